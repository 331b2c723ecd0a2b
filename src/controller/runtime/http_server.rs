//! The HTTP server for probes and metrics.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::warn;

/// Deadline for a client to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_secs(1);

/// An answer of plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The value of `Content-Type`.
    pub kind: &'static str,
    pub text: String,
}

impl Answer {
    pub fn ok(text: impl Into<String>) -> Answer {
        Answer::with(StatusCode::OK, text)
    }

    pub fn unavailable(text: impl Into<String>) -> Answer {
        Answer::with(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    fn with(status: StatusCode, text: impl Into<String>) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", text: text.into() }
    }
}

/// Listens at `[HOST]:PORT`, or at all addresses of the machine if the host is omitted. `0`
/// disables the server: `None`.
pub async fn listen(address: &str) -> io::Result<Option<TcpListener>> {
    match address {
        "0" => Ok(None),
        address => match address.strip_prefix(':') {
            // The first binds both address families if the machine has both.
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Ok(listener) => Ok(Some(listener)),
                Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await.map(Some),
            },
            None => TcpListener::bind(address).await.map(Some),
        },
    }
}

/// Answers GET requests by their path, forever. `None` is 404.
pub async fn serve(listener: TcpListener, answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), &*answer);
                async { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // An error concerns only this client.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn respond(method: &Method, path: &str, answer: &impl Fn(&str) -> Option<Answer>) -> Response<Full<Bytes>> {
    let answer = match (method, answer(path)) {
        (&Method::GET | &Method::HEAD, Some(answer)) => answer,
        (_, Some(_)) => Answer::with(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        (_, None) => Answer::with(StatusCode::NOT_FOUND, "not found\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.text)));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_known_path_is_answered_and_an_unknown_one_is_404() {
        let listener = listen("127.0.0.1:0").await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, |path| match path {
            "/healthz" => Some(Answer::ok("ok\n")),
            "/readyz" => Some(Answer::unavailable("not yet\n")),
            _ => None,
        }));
        for (request, status, text) in [
            ("GET /healthz", "200 OK", "ok\n"),
            ("GET /healthz?verbose", "200 OK", "ok\n"),
            ("GET /readyz", "503 Service Unavailable", "not yet\n"),
            ("POST /healthz", "405 Method Not Allowed", "only GET\n"),
            ("GET /", "404 Not Found", "not found\n"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.ends_with(text), "{answer}");
        }
        assert!(ask(address, "HEAD /healthz").await.ends_with("\r\n\r\n"));
        server.abort();
    }

    #[tokio::test]
    async fn the_host_is_optional_and_0_disables_listening() {
        assert!(listen("0").await.unwrap().is_none());
        let everywhere = listen(":0").await.unwrap().unwrap();
        let address = everywhere.local_addr().unwrap();
        assert!(address.ip().is_unspecified());
        assert!(TcpStream::connect(("127.0.0.1", address.port())).await.is_ok());
        for bad in ["8080", "localhost", "127.0.0.1:http", ":99999"] {
            assert!(listen(bad).await.is_err(), "{bad}");
        }
    }
}
