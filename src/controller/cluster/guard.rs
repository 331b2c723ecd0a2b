//! [`Guard`]: the last check of each request to the apiserver, and its deadline.
//!
//! A request whose URL was made from a text that is no name is refused: it could be another request
//! than the code meant. Each answer has to arrive within a minute; only a watch may stay open.

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Body as HttpBody;
use hyper::http::{Request, Response, Uri};
use kube::client::Body;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{BoxError, Layer, Service};

/// A request takes milliseconds; etcd's own limit is 34 s (`etcd3` in `k8s.io/apiserver`).
const DEADLINE: Duration = Duration::from_secs(60);

/// A log is read through the kubelet of the mover's node, which may be unreachable.
const LOG_DEADLINE: Duration = Duration::from_secs(5);

/// The longest answer: a page of 500 objects, of 256 KiB each.
const LONGEST_ANSWER: usize = 128 << 20;

/// Adds a [`Guard`] to a client.
#[derive(Clone)]
pub struct GuardLayer;

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard(inner)
    }
}

#[derive(Clone)]
pub struct Guard<S>(S);

impl<S, B> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<B, Full<Bytes>>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let uri = request.uri();
        if !is_safe(uri) {
            let why = format!("the path of a request to the apiserver is not valid: {:.200}", uri.path());
            return Box::pin(async { Err(why.into()) });
        }
        let deadline = if uri.path().ends_with("/log") { LOG_DEADLINE } else { DEADLINE };
        let is_watch = is_watch(uri);
        let sent = self.0.call(request);
        let answer = async move {
            let (parts, body) = sent.await.map_err(Into::into)?.into_parts();
            let body = match is_watch {
                true => Either::Left(body),
                false => Either::Right(Full::new(Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes())),
            };
            Ok(Response::from_parts(parts, body))
        };
        Box::pin(async move {
            let answered = tokio::time::timeout(deadline, answer).await;
            answered.unwrap_or_else(|_| Err(format!("no answer within {} s", deadline.as_secs()).into()))
        })
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

/// Whether a URL has the form that names of objects and kinds give it.
fn is_safe(uri: &Uri) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_plain);
    // A name with a question mark leaves one behind that of the query.
    uri.path().split('/').skip(1).all(is_segment) && uri.query().is_none_or(|query| !query.contains('?'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt;

    /// The URL of a GET request in kube-core: the name goes in as it is, and `?` follows.
    fn get(name: &str) -> Option<Uri> {
        format!("https://host/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents/{name}?").parse().ok()
    }

    #[test]
    fn names_that_change_the_request_are_refused() {
        assert!(is_safe(&get("snapcontent-1.x").unwrap()));
        for name in ["?watch=true&timeoutSeconds=9", "?", "a?watch=true", "..", "../secrets", "a//b", "a%2fb", "", "é"]
        {
            assert!(get(name).is_none_or(|uri| !is_safe(&uri)), "{name}");
        }
        let list = "https://host/api/v1/namespaces/a/pods?labelSelector=a%3Db&watch=true".parse().unwrap();
        assert!(is_safe(&list) && is_watch(&list));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends_and_a_watch_stays_open() {
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        let request = |path: &str| Request::get(format!("https://host/api/v1/{path}")).body(Body::empty()).unwrap();
        for (path, seconds) in [("nodes/a?", 60), ("namespaces/a/pods/b/log?", 5), ("pods?watch=true", 60)] {
            let start = tokio::time::Instant::now();
            let error = GuardLayer.layer(silent).oneshot(request(path)).await.unwrap_err();
            assert!(error.to_string().contains(&format!("{seconds} s")), "{error}");
            assert_eq!((tokio::time::Instant::now() - start).as_secs(), seconds);
        }
        // The events of a watch come later than its head.
        let endless = tower::service_fn(|_: Request<Body>| async {
            let events = futures::stream::pending::<Result<hyper::body::Frame<Bytes>, BoxError>>();
            Ok::<_, BoxError>(Response::new(http_body_util::StreamBody::new(events)))
        });
        assert!(GuardLayer.layer(endless).oneshot(request("pods?watch=true")).await.is_ok());
        assert!(GuardLayer.layer(endless).oneshot(request("pods?")).await.is_err());
    }
}
