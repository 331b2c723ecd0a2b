//! An apiserver in memory, for tests of the clients of one.
//!
//! It stores objects as JSON by their path, and implements these parts of
//! `kubernetes.io/docs/reference/using-api/api-concepts`: resource versions, preconditions,
//! finalizers, merge patches, the status subresource, and watches that can end or expire. A test
//! scripts its failures by [`ApiServer::fails`].

use super::merge;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

/// The next `times` requests of this method whose path ends with `path` fail.
struct Fault {
    method: Method,
    path: String,
    code: u16,
    reason: &'static str,
    times: usize,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// The watch events, each with its version and the path of its object.
    history: Vec<(u64, String, Value)>,
    /// A watch from an earlier version is answered with 410 Gone.
    oldest: u64,
    /// Raising this number ends all watches.
    generation: u64,
    faults: Vec<Fault>,
    asked: Vec<Asked>,
}

#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Notified of every request and change.
    changed: watch::Sender<()>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn whole(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap()
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn failed(code: u16, reason: &str) -> Answer {
    // For an API group that is not installed the apiserver answers in plain text.
    if reason.is_empty() {
        let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
        return Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap();
    }
    whole(code, &failure(code, reason, &format!("the apiserver says {reason}")))
}

/// The collection of an object: its path without the last part.
fn collection(path: &str) -> &str {
    path.rsplit_once('/').expect("an object's path").0
}

/// Whether the collection at a path, with or without a namespace, contains an object.
fn has(asked: &str, path: &str) -> bool {
    let of = collection(path);
    let without = || {
        let (before, rest) = of.split_once("/namespaces/")?;
        Some(format!("{before}/{}", rest.split_once('/')?.1))
    };
    of == asked || without().is_some_and(|of| of == asked)
}

/// Whether an object has the labels of a selector of the form `a=b,c=d`.
fn selected(object: &Value, query: &str) -> bool {
    let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or_default();
    let selector = selector.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    let labels = &object["metadata"]["labels"];
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (key, value) = term.split_once('=').expect("an equality");
        labels[key].as_str() == Some(value)
    })
}

impl State {
    /// Stores or deletes an object and adds the watch event.
    fn put(&mut self, path: &str, kind: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = json!({"type": kind, "object": object});
        self.history.push((self.version, path.to_owned(), event));
        if kind == "DELETED" {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.to_owned(), object.clone());
        }
        object
    }

    fn answer(&mut self, Asked { method, path, query, body }: &Asked) -> Answer {
        let fault = self.faults.iter_mut().find(|it| it.times > 0 && it.method == method && path.ends_with(&it.path));
        if let Some(fault) = fault {
            fault.times -= 1;
            return failed(fault.code, fault.reason);
        }
        let (place, status) = match path.strip_suffix("/status") {
            Some(place) => (place, true),
            None => (&**path, false),
        };
        let there = self.objects.get(place).cloned();
        match (method.as_str(), there) {
            ("GET", Some(object)) => whole(200, &object),
            // In these tests a collection's name ends with an `s`, an object's does not.
            ("GET", None) if path.ends_with('s') => {
                let items = self.objects.iter().filter(|(at, it)| has(path, at) && selected(it, query));
                let items: Vec<&Value> = items.map(|(_, object)| object).collect();
                let version = self.version.to_string();
                whole(
                    200,
                    &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            ("POST", _) => {
                let given = &body["metadata"];
                let name = given["name"].as_str().map_or_else(|| format!("generated-{}", self.version), str::to_owned);
                let place = format!("{path}/{name}");
                if self.objects.contains_key(&place) {
                    return failed(409, "AlreadyExists");
                }
                let mut object = body.clone();
                merge(&mut object, &json!({"metadata": {"name": name, "uid": format!("uid-of-{name}")}}));
                whole(201, &self.put(&place, "ADDED", object))
            }
            (_, None) => failed(404, "NotFound"),
            ("PATCH", Some(mut object)) => {
                let differs = |field: &str| {
                    let wanted = &body["metadata"][field];
                    !wanted.is_null() && *wanted != object["metadata"][field]
                };
                if differs("uid") || differs("resourceVersion") {
                    return failed(409, "Conflict");
                }
                if status {
                    merge(&mut object, &json!({"status": body["status"]}));
                } else {
                    let kept = object["status"].clone();
                    merge(&mut object, body);
                    object["status"] = kept;
                }
                let gone = !object["metadata"]["deletionTimestamp"].is_null() && !finalized(&object);
                whole(200, &self.put(place, if gone { "DELETED" } else { "MODIFIED" }, object))
            }
            ("DELETE", Some(mut object)) => {
                let wanted = &body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
                    return failed(409, "Conflict");
                }
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                let kind = if finalized(&object) { "MODIFIED" } else { "DELETED" };
                whole(200, &self.put(place, kind, object))
            }
            _ => failed(405, "MethodNotAllowed"),
        }
    }

    /// The events of a collection after a version.
    fn news(&self, path: &str, query: &str, after: u64) -> Vec<(u64, Value)> {
        let news = self
            .history
            .iter()
            .filter(|(version, at, event)| *version > after && has(path, at) && selected(&event["object"], query));
        news.map(|(version, _, event)| (*version, event.clone())).collect()
    }
}

fn finalized(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

impl Default for ApiServer {
    fn default() -> ApiServer {
        ApiServer { state: Arc::default(), changed: watch::channel(()).0 }
    }
}

impl ApiServer {
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let asked = Asked {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                Ok::<_, kube::Error>(server.answer(asked))
            }
        });
        Client::new(service, "adp")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, asked: Asked) -> Answer {
        let mut state = self.lock();
        state.asked.push(asked.clone());
        let answer = match asked.query.split('&').any(|part| part == "watch=true") {
            true => self.watch(&state, &asked),
            false => state.answer(&asked),
        };
        drop(state);
        self.changed.send_replace(());
        answer
    }

    /// The stream of a watch: the events since its version, and all later ones.
    fn watch(&self, state: &State, Asked { path, query, .. }: &Asked) -> Answer {
        let version = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let version: u64 = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        if version < state.oldest {
            let expired = failure(410, "Expired", "too old resource version");
            return whole(200, &json!({"type": "ERROR", "object": expired}));
        }
        let begun = (self.clone(), self.changed.subscribe(), path.clone(), query.clone(), version);
        let generation = state.generation;
        let lines = stream::unfold(begun, move |(server, mut changed, path, query, version)| async move {
            loop {
                let news = {
                    let state = server.lock();
                    if state.generation != generation {
                        return None;
                    }
                    state.news(&path, &query, version)
                };
                if let Some((version, event)) = news.into_iter().next() {
                    let line = Ok(Frame::data(Bytes::from(format!("{event}\n"))));
                    return Some((line, (server, changed, path, query, version)));
                }
                changed.changed().await.ok()?;
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)))
    }

    /// Creates or replaces an object, as another client than the controller.
    pub fn put(&self, path: &str, object: Value) {
        let known = self.lock().objects.contains_key(path);
        self.lock().put(path, if known { "MODIFIED" } else { "ADDED" }, object);
        self.changed.send_replace(());
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// All requests of a method whose path ends with `path`.
    pub fn asked(&self, method: &Method, path: &str) -> Vec<Asked> {
        let state = self.lock();
        state.asked.iter().filter(|it| it.method == method && it.path.ends_with(path)).cloned().collect()
    }

    /// Makes the next `times` requests of a method fail whose path ends with `path`.
    pub fn fails(&self, method: Method, path: &str, code: u16, reason: &'static str, times: usize) {
        self.lock().faults.push(Fault { method, path: path.to_owned(), code, reason, times });
    }

    /// Ends all watches. A client that watches again gets the events that it missed.
    pub fn end_watches(&self) {
        self.lock().generation += 1;
        self.changed.send_replace(());
    }

    /// Expires all events: a watch from an earlier version is answered with 410 Gone.
    pub fn compact(&self) {
        let mut state = self.lock();
        state.oldest = state.version;
        drop(state);
    }

    /// Waits until a condition holds.
    pub async fn until(&self, what: impl Fn(&ApiServer) -> bool) {
        let mut changed = self.changed.subscribe();
        while !what(self) {
            changed.changed().await.expect("the server lives as long as the test");
        }
    }
}
