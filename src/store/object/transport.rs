//! The HTTP client of all object stores, and the only module that sets up TLS.
//!
//! Each thread has its own client, because a connection is served by the
//! [`runtime`](super::runtime) that opened it. It trusts the system's certificates (or those of
//! `SSL_CERT_FILE`) and those of the file that the caller names. A system without certificates,
//! like an image made from scratch, can still use plain http. Redirects are not followed, because a
//! signature is valid for one host only. An answer that is not a success becomes an error with the
//! server's message.

use super::body::{self, Gone};
use super::failure::{Answer, Failure, Kind};
use super::meter::{Metered, Way};
use crate::store::location::Endpoint;
use crate::store::options::{Options, RetryPolicy};
use crate::store::traffic::{Request, Traffic};
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use std::error::Error;
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thread_local::ThreadLocal;

/// How long an idle connection is kept. Servers close idle connections, too, and a request on a
/// connection that is just being closed costs a failed attempt.
const IDLE: Duration = Duration::from_secs(20);

/// The most bytes that are read of an error document.
const ERROR_DOCUMENT: usize = 16 << 10;

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn of_url(url: &str) -> Scheme {
        if url.starts_with("https:") { Scheme::Https } else { Scheme::Http }
    }
}

impl From<&Endpoint> for Scheme {
    fn from(endpoint: &Endpoint) -> Scheme {
        if endpoint.tls { Scheme::Https } else { Scheme::Http }
    }
}

/// A client for each thread, for one endpoint.
#[derive(Debug)]
pub(super) struct Clients {
    each: ThreadLocal<reqwest::Client>,
    certificates: Vec<reqwest::Certificate>,
    retry: RetryPolicy,
    scheme: Scheme,
    traffic: Arc<Traffic>,
}

impl Clients {
    pub fn new(options: &Options, scheme: Scheme) -> Result<Clients, String> {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = match &options.cacert {
            Some(path) => {
                let read = || Ok(reqwest::Certificate::from_pem_bundle(&fs::read(path)?)?);
                let read = { read }().map_err(|error: Box<dyn Error + Send + Sync>| {
                    format!("cannot read certificates from {}: {error}", path.display())
                })?;
                if read.is_empty() {
                    return Err(format!("{} holds no PEM certificate", path.display()));
                }
                read
            }
            None => Vec::new(),
        };
        let (retry, traffic) = (options.retry.clone(), options.traffic.clone());
        let clients = Clients { each: ThreadLocal::new(), certificates, retry, scheme, traffic };
        clients.get()?;
        Ok(clients)
    }

    /// The client of this thread.
    pub fn get(&self) -> Result<&reqwest::Client, String> {
        self.each.get_or_try(|| self.build())
    }

    fn build(&self) -> Result<reqwest::Client, String> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("vsm/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                // One connection per request in flight: streams of a shared connection wait for
                // each other's windows.
                .http1_only()
                .connect_timeout(self.retry.connect)
                .pool_idle_timeout(IDLE)
                .tcp_keepalive(Duration::from_secs(30))
                // Detects stalled uploads; the callers' own timeouts detect all other stalls.
                .tcp_user_timeout(self.retry.stall)
        };
        let built = match builder().tls_certs_merge(self.certificates.clone()).build() {
            Err(_) if self.scheme == Scheme::Http => builder().tls_certs_only(self.certificates.clone()).build(),
            built => built,
        };
        built.map_err(|error| {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!("cannot set up TLS: {cause}; name a file of trusted certificates (--cacert or SSL_CERT_FILE)")
        })
    }
}

/// Implements the HTTP interfaces of the object store crate with the clients.
#[derive(Clone, Debug)]
pub(super) struct Transport(pub Arc<Clients>);

impl Transport {
    /// Sends a request that creates a bucket or container, for which the object store crate has no
    /// call. An existing one is a success.
    pub async fn make(&self, request: HttpRequest) -> Result<(), Failure> {
        let Err(error) = HttpService::call(self, request).await else { return Ok(()) };
        match error.source().and_then(|cause| cause.downcast_ref::<Answer>()) {
            Some(answer) => match Failure::from(answer.clone()) {
                failure if failure.kind == Kind::Exists => Ok(()),
                failure => Err(failure),
            },
            None => Err(Failure::new(Kind::Link, error.to_string())),
        }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The options of all clients of the object store crate.
pub(super) fn client_options(scheme: Scheme) -> ClientOptions {
    ClientOptions::new().with_allow_http(scheme == Scheme::Http).with_default_content_type("application/octet-stream")
}

/// Disables the retries of the object store crate: `retry` makes them.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Transport {
    fn call<'s, 'a>(&'s self, request: HttpRequest) -> Answered<'a>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let client = self.0.get().map_err(hopeless)?;
            let traffic = &self.0.traffic;
            if let Some(wait) = traffic.requests.reserve(1) {
                tokio::time::sleep(wait).await;
            }
            traffic.count(kind(&request));
            let response = client.execute(outgoing(request, traffic)?).await.map_err(lost)?;
            let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
            let body = Metered::new(body, traffic.clone(), Way::Down, lost);
            let response = HttpResponse::from_parts(parts, HttpResponseBody::new(body));
            if response.status().is_success() {
                return Ok(response);
            }
            Err(HttpError::new(HttpErrorKind::Unknown, refusal(response).await))
        })
    }
}

/// An error that a retry would meet again.
fn hopeless(text: String) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, Failure::new(Kind::Final, text))
}

/// Converts a request for the client, with its real content and a metered body.
fn outgoing(request: HttpRequest, traffic: &Arc<Traffic>) -> Result<reqwest::Request, HttpError> {
    let content = body::of(&request).map_err(hopeless)?;
    let request = request.map(|body| match (content, body.as_bytes()) {
        (Some(content), _) => reqwest::Body::wrap(Metered::new(content, traffic.clone(), Way::Up, |error| error)),
        (None, Some(bytes)) if bytes.is_empty() => reqwest::Body::default(),
        (None, _) => reqwest::Body::wrap(Metered::new(body, traffic.clone(), Way::Up, |error| error)),
    });
    reqwest::Request::try_from(request).map_err(lost)
}

/// The kind by which the store bills a request. Listings are recognized by their query.
fn kind(request: &HttpRequest) -> Request {
    let query = request.uri().query().unwrap_or_default();
    let lists = query.split('&').any(|pair| matches!(pair, "list-type=2" | "comp=list"));
    match request.method().as_str() {
        "GET" if lists => Request::List,
        "GET" => Request::Get,
        "HEAD" => Request::Head,
        "PUT" => Request::Put,
        "DELETE" => Request::Delete,
        _ => Request::Other,
    }
}

/// The error of a request without a complete answer.
fn lost(error: reqwest::Error) -> HttpError {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    if let Some(gone) = causes.find_map(|cause| cause.downcast_ref::<Gone>()) {
        return hopeless(gone.to_string());
    }
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_builder() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

async fn refusal(response: HttpResponse) -> Answer {
    let status = response.status();
    let header =
        |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (region, code) = (header("x-amz-bucket-region"), header("x-ms-error-code"));
    let mut document = Vec::new();
    let mut body = response.into_body().bytes_stream();
    let read = async {
        while let Some(Ok(part)) = body.next().await {
            document.extend_from_slice(&part);
            if document.len() >= ERROR_DOCUMENT {
                break;
            }
        }
    };
    // A partial document is enough, because the status matters most.
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await;
    let document = String::from_utf8_lossy(&document);
    Answer::new(status.as_u16(), status.canonical_reason().unwrap_or("status"), &region, &document).with_code(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::io::{self, Read};
    use std::net::TcpListener;

    /// A part of the body cannot be read; the server accepts everything.
    #[test]
    fn an_unreadable_spill_file_is_a_final_failure() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let taking = std::thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            io::copy(&mut connection.by_ref().take(1 << 20), &mut io::sink()).ok();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gone = || Err::<bytes::Bytes, _>(Gone::from(io::Error::other("the disk has failed")));
        let body = reqwest::Body::wrap_stream(stream::iter([Ok("before".into()), gone()]));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = runtime.block_on(client.put(url).body(body).send()).unwrap_err();
        let failure = lost(error);
        let cause = failure.source().and_then(|cause| cause.downcast_ref::<Failure>()).unwrap();
        assert_eq!(cause.kind, Kind::Final);
        assert!(cause.to_string().contains("the disk has failed"), "{cause}");
        drop(client);
        drop(runtime);
        taking.join().unwrap();
    }
}
