//! An object store whose connections break: what can be had again is, and what cannot be is said.
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

/// A store behind a proxy that has answered once, so that it is given all the patience there is.
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

/// A download that is cut again and again is whole in the end, and no byte of a range is sent twice.
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

/// What looks at many directories waits with all patience for a few of them, and not for each, when the store has gone.
pub fn a_survey_ends_when_the_store_is_gone(endpoint: &Endpoint) {
    endpoint.plant((0..40).map(|n| (format!("survey/dir-{n:02}/object"), b"x".to_vec())));
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let mut options = endpoint.options();
    options.retry.patience = Duration::from_millis(300);
    let place = Place::new(&endpoint.location("survey"), &options).expect("a place");
    let found = survey::find(&place, "", |_, _| false).expect("nothing is wrong yet");
    assert!(found.repositories.is_empty() && found.failed.is_empty());
    assert_eq!(proxy.requests().len(), 41);
    // One that fails for ever is told, and the others are looked into.
    proxy.inject("dir-07", vec![Fault::CutRequest(0); 1000]);
    let found = survey::find(&place, "", |_, _| false).expect("a survey");
    assert_eq!(found.failed.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["dir-07"]);
    proxy.requests();
    proxy.inject("dir-", vec![Fault::CutRequest(0); 100_000]);
    let error = survey::find(&place, "", |_, _| false).expect_err("it is gone");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    let asked: BTreeSet<String> =
        proxy.requests().iter().filter_map(|head| Some(head.split("dir-").nth(1)?[..2].to_owned())).collect();
    // Four that failed, and those that were under way beside them.
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

/// A create whose success got lost is still a success; one that another process got in before is not.
pub fn a_create_that_lost_its_answer_knows_its_own(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "lost-create");
    let ours = bytes(150, 3);
    proxy.inject("PUT /", [Fault::LoseAnswer]);
    store.create(File::CONFIG, ours.clone().into()).expect("a created config");
    assert_eq!(proxy.requests().iter().filter(|line| line.starts_with("PUT")).count(), 1, "created once");
    assert_eq!(store.read(File::CONFIG, 1000).expect("the config"), ours);
    // The same bytes, but nothing of ours was lost: so it was somebody else.
    let again = store.create(File::CONFIG, ours.into());
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");

    let theirs = bytes(150, 4);
    put(&*store, FileType::Lock, &theirs);
    let lock = File::new(FileType::Lock, Id::of(&theirs));
    proxy.inject("HEAD /", [Fault::CutRequest(0)]);
    let late = store.create(lock, bytes(150, 5).into());
    assert!(matches!(late, Err(StoreError::AlreadyExists { .. })), "{late:?}");
}

/// Answers of a server in trouble are retried; each other kind of request comes through a broken connection too.
pub fn trouble_passes(endpoint: &Endpoint) {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 62\r\nconnection: close\r\n\r\n\
                        <Error><Code>SlowDown</Code><Message>Gently.</Message></Error>";
    const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (proxy, endpoint, _) = behind(endpoint, "trouble");
    let mut options = endpoint.options();
    let heard = listen(&mut options);
    let store = endpoint.open_with("trouble", &options).expect("a store");
    let trouble = || [Fault::Answer(BUSY), Fault::CutAnswer(0), Fault::Answer(FAILED), Fault::CutAnswer(20)];
    // Not first of all: a store that has never answered gets three attempts only.
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

pub fn a_hanging_request_is_made_again(endpoint: &Endpoint) {
    let (proxy, _, store) = behind(endpoint, "hang");
    proxy.inject("PUT /", [Fault::Hang]);
    let file = put(&*store, FileType::Index, b"index");
    proxy.inject("GET /", [Fault::Hang]);
    assert_eq!(store.read(file, 10).expect("the file"), "index");
}

/// A store that goes away for a while is waited for, by all who use it; one that stays away is given up.
pub fn an_outage_is_sat_out(endpoint: &Endpoint) {
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

/// A server that does not know conditional writes gets plain ones; one that ignores the condition is caught by looking.
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

/// What never was a store is given up after a few attempts, and says what failed.
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
        let error = store.size(File::CONFIG).expect_err("nobody there");
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        let text = told(&error);
        assert!(text.to_lowercase().contains(&why.to_lowercase()) && text.contains(&url), "{text}");
        assert!(heard.lock().expect("no panic").len() < most, "each but the last is heard of");
    }
}

/// The defaults, too, end after a few attempts at a port where nobody listens.
pub fn the_default_patience_at_a_wrong_address_is_short(endpoint: &Endpoint) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let endpoint = endpoint.by(format!("http://{nobody}"));
    let mut options = Options { retry: Default::default(), ..endpoint.options() };
    let (heard, most) = (listen(&mut options), options.retry.opening_attempts as usize);
    let store = endpoint.open_with("nowhere", &options).expect("a store");
    store.read(File::CONFIG, 1000).expect_err("nobody there");
    assert_eq!(heard.lock().expect("no panic").len(), most - 1, "each but the last is heard of");
    assert!(most <= 5, "{most} attempts");
}
