//! Serves Google's XML API, as its reference describes it, from a server that has the JSON API.
//!
//! fake-gcs-server stores the objects and their generations, finds, cuts and lists them. Its own
//! XML API has neither unsigned uploads nor conditions nor pages of a listing. So the front
//! translates each request to JSON, and the response back to XML.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Objects per page of a listing; Google's pages have a thousand.
const PAGE: usize = 10;

/// A front, which runs until the process ends.
pub struct Xml {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    /// The `Authorization` header of the last request.
    authorization: Mutex<String>,
    /// Requests with this `Authorization` header are refused.
    refused: Mutex<Option<String>>,
}

type Answer = Response<Full<Bytes>>;

impl Xml {
    /// A front before the server at this port.
    pub fn before(port: u16) -> Xml {
        // The client demands a provider, though nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Arc::new(Shared {
            server: format!("http://127.0.0.1:{port}"),
            client: reqwest::Client::new(),
            authorization: Mutex::default(),
            refused: Mutex::default(),
        });
        let (listening, address) = std::sync::mpsc::channel();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                listening.send(listener.local_addr().expect("its address").port()).expect("a receiver");
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = serving.clone();
                    tokio::spawn(async move {
                        let answer = hyper::service::service_fn(|request| {
                            let shared = shared.clone();
                            async move { Ok::<_, Infallible>(shared.answer(request).await) }
                        });
                        // A client that has disconnected needs no response.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await;
                    });
                }
            });
        });
        Xml { port: address.recv().expect("a port"), shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The `Authorization` header of the last request.
    pub fn authorization(&self) -> String {
        self.shared.authorization.lock().expect("no panic").clone()
    }

    /// Refuses requests with this token from now on.
    pub fn refuse(&self, token: &str) {
        *self.shared.refused.lock().expect("no panic") = Some(format!("Bearer {token}"));
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        *self.authorization.lock().expect("no panic") = header("authorization").to_owned();
        if self.refused.lock().expect("no panic").as_deref() == Some(header("authorization")) {
            return error(401, "AuthenticationRequired");
        }
        let url = Url::parse(&format!("http://front{}", parts.uri)).expect("a request's path");
        let mut names = url.path_segments().expect("a path").map(decode);
        let (bucket, object) = (names.next().unwrap_or_default(), names.collect::<Vec<_>>().join("/"));
        let given = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        match (&parts.method, object.as_str()) {
            (&Method::GET, "") => self.list(&bucket, &given).await,
            (&Method::PUT, "") => {
                let url = self.url(&["storage", "v1", "b"], &[("project", header("x-goog-project-id"))]);
                let asked = self.client.post(url).body(json!({"name": bucket}).to_string());
                let made = asked.send().await.expect("an answer");
                if made.status() == 409 { error(409, "BucketAlreadyOwnedByYou") } else { through(made).await }
            }
            (&Method::PUT, object) => {
                let mut query = vec![("uploadType", "media"), ("name", object)];
                if !header("x-goog-if-generation-match").is_empty() {
                    query.push(("ifGenerationMatch", header("x-goog-if-generation-match")));
                }
                let url = self.url(&["upload", "storage", "v1", "b", &bucket, "o"], &query);
                let sent = self.client.post(url).header("content-type", header("content-type")).body(body).send().await;
                let sent = sent.expect("an answer");
                match sent.status().as_u16() {
                    412 => error(412, "PreconditionFailed"),
                    404 => error(404, "NoSuchBucket"),
                    200 => {
                        let object: Value = serde_json::from_slice(&sent.bytes().await.expect("a body")).expect("JSON");
                        let etag = object["etag"].as_str().expect("a tag");
                        let answer = Response::builder().header("etag", format!("\"{etag}\""));
                        answer.body(Full::default()).expect("a head")
                    }
                    _ => through(sent).await,
                }
            }
            (method @ (&Method::GET | &Method::HEAD | &Method::DELETE), object) => {
                let url = self.url(&["storage", "v1", "b", &bucket, "o", object], &[("alt", "media")]);
                let mut asked = self.client.request(method.clone(), url);
                if !header("range").is_empty() {
                    asked = asked.header("range", header("range"));
                }
                let answer = asked.send().await.expect("an answer");
                match answer.status().as_u16() {
                    404 if method == Method::HEAD => error(404, ""),
                    404 if self.has(&bucket).await => error(404, "NoSuchKey"),
                    404 => error(404, "NoSuchBucket"),
                    _ => through(answer).await,
                }
            }
            _ => error(405, "MethodNotAllowed"),
        }
    }

    async fn has(&self, bucket: &str) -> bool {
        let asked = self.client.get(self.url(&["storage", "v1", "b", bucket], &[])).send().await;
        asked.expect("an answer").status().is_success()
    }

    async fn list(&self, bucket: &str, given: &impl Fn(&str) -> Option<String>) -> Answer {
        let delimiter = given("delimiter").unwrap_or_default();
        let after = given("start-after").unwrap_or_default();
        let (prefix, token) = (given("prefix").unwrap_or_default(), given("continuation-token").unwrap_or_default());
        let page = given("max-keys").unwrap_or_else(|| PAGE.to_string());
        let mut query = vec![("prefix", prefix.as_str()), ("startOffset", &after), ("pageToken", &token)];
        // The server pages objects only, and returns all prefixes with each page.
        query.push(if delimiter.is_empty() { ("maxResults", &page) } else { ("delimiter", &delimiter) });
        let listed = self.client.get(self.url(&["storage", "v1", "b", bucket, "o"], &query)).send().await;
        let listed = listed.expect("an answer");
        if listed.status() == 404 {
            return error(404, "NoSuchBucket");
        }
        let listed: Value = serde_json::from_slice(&listed.bytes().await.expect("a body")).expect("JSON");
        let items = |name: &str| listed[name].as_array().cloned().unwrap_or_default();
        let mut document = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        for object in items("items").iter().filter(|object| object["name"] != after.as_str()) {
            let text = |name: &str| escape(object[name].as_str().expect("a text"));
            document += &format!(
                "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                text("name"),
                text("generation"),
                text("updated"),
                text("etag"),
                text("size")
            );
        }
        for prefix in items("prefixes") {
            let prefix = escape(prefix.as_str().expect("a text"));
            document += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
        }
        if let Some(token) = listed["nextPageToken"].as_str() {
            document += &format!("<NextContinuationToken>{}</NextContinuationToken>", escape(token));
        }
        Response::new(Full::from(document + "</ListBucketResult>"))
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = Url::parse(&self.server).expect("a URL");
        url.path_segments_mut().expect("a path").extend(path);
        url.query_pairs_mut().extend_pairs(query);
        url
    }
}

/// Passes the server's own response through.
async fn through(answer: reqwest::Response) -> Answer {
    let mut head = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !matches!(name.as_str(), "transfer-encoding")) {
        head = head.header(name, value);
    }
    head.body(Full::from(answer.bytes().await.expect("a body"))).expect("a head")
}

fn error(status: u16, code: &str) -> Answer {
    let body = match code {
        "" => String::new(),
        code => format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>.</Message></Error>"),
    };
    Response::builder().status(status).body(Full::from(body)).expect("a head")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn decode(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| std::str::from_utf8(&tail[..2]).expect("two digits"));
        bytes.push(code.map_or(*first, |hex| u8::from_str_radix(hex, 16).expect("two digits")));
        rest = &tail[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8(bytes).expect("UTF-8")
}
