//! Tests an object store whose connections break: requests are retried where that helps, and
//! otherwise fail with the cause.
//!
//! Each function puts a [`Proxy`] before a server.

use super::proxy::{Fault, Proxy};
use super::{Endpoint, bytes, listen, told};
use crate::common::wait_for;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vsm::id::Id;
use vsm::maintain::survey;
use vsm::store::{File, FileType, Options, Place, Store, StoreError};

/// A store behind a proxy that has answered once, so that it has the full retry budget.
fn behind(endpoint: &Endpoint, prefix: &str) -> (Proxy, Endpoint, Arc<dyn Store>) {
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let store = endpoint.open(prefix);
    store.list(FileType::Key).expect("an answer");
    proxy.requests();
    (proxy, endpoint, store)
}

fn put(store: &dyn Store, ty: FileType, content: &[u8]) -> File {
    let file = File::new(ty, Id::of(content));
    store.write(file, content.to_vec().into()).expect("a written file");
    file
}

/// A download that is interrupted repeatedly is whole in the end, and no byte of a range is sent
/// twice.
pub fn a_cut_download_is_whole(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "cut-download");
    let content = bytes(3_000_000, 1);
    let file = put(&*store, FileType::Pack, &content);
    let cuts = [1_000_000, 400_000, 100, 700_000].map(Fault::CutAnswer);
    proxy.inject("GET /", cuts.clone());
    assert_eq!(store.read_at(file, 10, 2_999_990).expect("the range"), content[10..]);
    assert_eq!((proxy.left(), proxy.requests().len()), (0, 1 + 5));
    proxy.inject("GET /", cuts);
    assert_eq!(store.read(file, 3_000_000).expect("the file"), content);
    assert_eq!(proxy.left(), 0);
}

/// If the store fails, a survey of many directories spends its retry budget on a few of them, not
/// on each.
pub fn a_survey_ends_when_the_store_fails(endpoint: &Endpoint) {
    endpoint.plant((0..40).map(|n| (format!("survey/dir-{n:02}/object"), b"x".to_vec())));
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let mut options = endpoint.options();
    options.retry.patience = Duration::from_millis(300);
    let place = Place::new(&endpoint.location("survey"), &options).expect("a place");
    let found = survey::find(&place, "", |_, _| false).expect("nothing is wrong yet");
    assert!(found.repositories.is_empty() && found.failed.is_empty());
    assert_eq!(proxy.requests().len(), 41);
    // A directory that fails for ever is reported, and the others are surveyed.
    proxy.inject("dir-07", vec![Fault::CutRequest(0); 1000]);
    let found = survey::find(&place, "", |_, _| false).expect("a survey");
    assert_eq!(found.failed.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["dir-07"]);
    proxy.requests();
    proxy.inject("dir-", vec![Fault::CutRequest(0); 100_000]);
    let error = survey::find(&place, "", |_, _| false).expect_err("an outage");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    let asked: BTreeSet<String> =
        proxy.requests().iter().filter_map(|head| Some(head.split("dir-").nth(1)?[..2].to_owned())).collect();
    // The four directories that failed, and those that were in flight beside them.
    assert!((4..=8).contains(&asked.len()), "{asked:?}");
}

pub fn a_cut_upload_is_whole(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "cut-upload");
    let content = bytes(3_000_000, 2);
    proxy.inject("PUT /", [Fault::CutRequest(0), Fault::CutRequest(1_000_000), Fault::LoseAnswer]);
    let mut upload = store.upload(FileType::Pack).expect("an upload");
    for part in content.chunks(700_001) {
        upload.write(part).expect("a part");
    }
    upload.commit(Id::of(&content)).expect("an upload");
    assert_eq!(proxy.requests().len(), 4);
    assert_eq!(store.list(FileType::Pack).expect("a list"), [(Id::of(&content), 3_000_000)]);
    let file = File::new(FileType::Pack, Id::of(&content));
    assert_eq!(store.read(file, 3_000_000).expect("the file"), content);
}

/// A create whose answer was lost is a success; one after that of another process is not.
pub fn a_create_whose_answer_was_lost_is_a_success(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "lost-create");
    let ours = bytes(150, 3);
    proxy.inject("PUT /", [Fault::LoseAnswer]);
    store.create(File::CONFIG, ours.clone().into()).expect("a created config");
    assert_eq!(proxy.requests().iter().filter(|line| line.starts_with("PUT")).count(), 1, "created once");
    assert_eq!(store.read(File::CONFIG, 1000).expect("the config"), ours);
    // The same bytes, but no answer was lost: another process has created the file.
    let again = store.create(File::CONFIG, ours.into());
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");

    let theirs = bytes(150, 4);
    put(&*store, FileType::Lock, &theirs);
    let lock = File::new(FileType::Lock, Id::of(&theirs));
    proxy.inject("HEAD /", [Fault::CutRequest(0)]);
    let late = store.create(lock, bytes(150, 5).into());
    assert!(matches!(late, Err(StoreError::AlreadyExists { .. })), "{late:?}");
}

/// Server errors and broken connections are retried, for every kind of request.
pub fn server_errors_are_retried(endpoint: &Endpoint) {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 62\r\nconnection: close\r\n\r\n\
                        <Error><Code>SlowDown</Code><Message>Gently.</Message></Error>";
    const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (proxy, endpoint, _) = behind(endpoint, "trouble");
    let mut options = endpoint.options();
    let heard = listen(&mut options);
    let store = endpoint.open_with("trouble", &options).expect("a store");
    let trouble = || [Fault::Answer(BUSY), Fault::CutAnswer(0), Fault::Answer(FAILED), Fault::CutAnswer(20)];
    // A store that has never answered gets only three attempts, so it answers once before the
    // faults.
    store.list(FileType::Key).expect("an answer");
    for method in ["PUT /", "HEAD /", "GET /", "DELETE /"] {
        proxy.inject(method, trouble());
    }
    let file = put(&*store, FileType::Index, b"index");
    assert_eq!(store.size(file).expect("a size"), 5);
    assert_eq!(store.list(FileType::Index).expect("a list"), [(file.id, 5)]);
    store.remove(file).expect("a removal");
    assert_eq!(proxy.left(), 0);
    let heard = heard.lock().expect("no panic");
    assert_eq!(heard.len(), 16, "{heard:#?}");
    assert!(heard[0].starts_with("write index ") && heard[0].contains("503 Service Unavailable: SlowDown (Gently)"));
}

pub fn a_stalled_request_is_retried(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "hang");
    proxy.inject("PUT /", [Fault::Hang]);
    let file = put(&*store, FileType::Index, b"index");
    proxy.inject("GET /", [Fault::Hang]);
    assert_eq!(store.read(file, 10).expect("the file"), "index");
}

/// All users of a store wait for the end of an outage; a store that stays down is given up.
pub fn requests_wait_for_the_end_of_an_outage_up_to_a_limit(endpoint: &Endpoint) {
    let (proxy, endpoint, _) = behind(endpoint, "outage");
    let mut options = endpoint.options();
    let heard = listen(&mut options);
    let store = endpoint.open_with("outage", &options).expect("a store");
    let content = bytes(10_000, 6);
    let file = put(&*store, FileType::Pack, &content);
    proxy.set_down(true);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(store.read(file, 10_000).expect("the file"), content));
        }
        wait_for("each to fail", || (heard.lock().expect("no panic").len() >= 6).then_some(()));
        proxy.set_down(false);
    });
    let mut options = endpoint.options();
    options.retry.patience = Duration::from_millis(500);
    let store = endpoint.open_with("outage", &options).expect("a store");
    store.size(file).expect("an answer");
    proxy.set_down(true);
    let error = store.read(file, 10_000).expect_err("an outage");
    assert!(told(&error).contains("gave up after"), "{}", told(&error));
}

/// A server without conditional writes gets plain ones, after a check for an existing file.
pub fn creation_without_conditions(endpoint: &Endpoint) {
    const UNKNOWN: &str = "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (proxy, _, store) = behind(endpoint, "unconditional");
    proxy.inject("if-none-match: *", [Fault::Answer(UNKNOWN), Fault::Answer(UNKNOWN)]);
    store.create(File::CONFIG, vec![1].into()).expect("a config");
    let again = store.create(File::CONFIG, vec![2].into());
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    store.create(File::new(FileType::Lock, Id::of(b"x")), b"x"[..].into()).expect("a lock");
    assert_eq!(proxy.left(), 1, "the condition was tried once");
    assert_eq!(store.read(File::CONFIG, 10).expect("the config"), vec![1]);
}

/// A wrong address is given up after a few attempts, with the cause.
pub fn a_wrong_address_fails_soon(endpoint: &Endpoint) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    for (url, why) in [
        (format!("http://{nobody}"), "Connection refused"),
        ("http://no-such-host.invalid:9000".to_owned(), "resolving DNS"),
        (endpoint.url.replace("http:", "https:"), "does not speak TLS"),
    ] {
        let endpoint = endpoint.by(url.clone());
        let mut options = endpoint.options();
        let (heard, most) = (listen(&mut options), options.retry.opening_attempts as usize);
        let store = endpoint.open_with("nowhere", &options).expect("a store");
        let error = store.size(File::CONFIG).expect_err("no store");
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        let text = told(&error);
        assert!(text.to_lowercase().contains(&why.to_lowercase()) && text.contains(&url), "{text}");
        assert!(heard.lock().expect("no panic").len() < most, "each attempt but the last is reported");
    }
}

/// The default policy, too, ends after a few attempts at a port without a listener.
pub fn the_default_patience_at_a_wrong_address_is_short(endpoint: &Endpoint) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let endpoint = endpoint.by(format!("http://{nobody}"));
    let mut options = Options { retry: Default::default(), ..endpoint.options() };
    let (heard, most) = (listen(&mut options), options.retry.opening_attempts as usize);
    let store = endpoint.open_with("nowhere", &options).expect("a store");
    store.read(File::CONFIG, 1000).expect_err("no store");
    assert_eq!(heard.lock().expect("no panic").len(), most - 1, "each attempt but the last is reported");
    assert!(most <= 5, "{most} attempts");
}
