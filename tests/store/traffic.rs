//! Tests the traffic with a server: its account equals that of a proxy, and it keeps its limits.

use super::proxy::{Fault, Proxy};
use super::{Endpoint, bytes};
use crate::common::wait_for;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vsm::id::Id;
use vsm::store::traffic::Account;
use vsm::store::{File, FileType, Options, Store};

fn opened(endpoint: &Endpoint, prefix: &str, options: &Options) -> Arc<dyn Store> {
    endpoint.open_with(prefix, options).expect("a store")
}

fn pack(content: Vec<u8>) -> (File, bytes::Bytes) {
    (File::new(FileType::Pack, Id::of(&content)), content.into())
}

/// Everything but the received bytes, which the head of a request does not show.
fn seen_by(proxy: &Proxy) -> Account {
    let mut account = Account::default();
    for head in proxy.requests() {
        let kind = match head.split(' ').next().expect("a method") {
            "PUT" => &mut account.puts,
            "GET" if head.contains("list-type=2") => &mut account.lists,
            "GET" => &mut account.gets,
            "HEAD" => &mut account.heads,
            "DELETE" => &mut account.deletes,
            _ => &mut account.others,
        };
        *kind += 1;
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        account.bytes_sent += length.unwrap_or(0);
    }
    account
}

pub fn the_account_equals_the_requests_that_the_server_sees(endpoint: &Endpoint) {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let options = endpoint.options();
    let store = opened(&endpoint, "account", &options);
    store.create(File::CONFIG, bytes(100, 1).into()).expect("a config");
    let (file, content) = pack(bytes(3_000_000, 2));
    store.write(file, content.clone()).expect("a pack");
    let before = options.traffic.account().bytes_received;
    assert_eq!(store.read_at(file, 10, 1_000_000).expect("a range"), content[10..1_000_010]);
    assert_eq!(options.traffic.account().bytes_received - before, 1_000_000);
    store.size(file).expect("its size");
    store.list(FileType::Pack).expect("a list");
    // A retried request counts again.
    proxy.inject("HEAD", [Fault::Answer(BUSY), Fault::Answer(BUSY)]);
    store.size(file).expect("its size");
    store.remove(file).expect("no pack");
    let account = options.traffic.account();
    let seen = seen_by(&proxy);
    assert_eq!(Account { bytes_received: 0, ..account }, seen);
    assert!(seen.puts == 2 && seen.gets == 1 && seen.lists == 1 && seen.heads >= 4 && seen.deletes == 1, "{seen:?}");
}

/// Asserts only that a limit is not exceeded, because a machine may always be slower.
pub fn limits_are_kept(endpoint: &Endpoint) {
    let options = endpoint.options();
    let store = opened(endpoint, "limits", &options);
    let (file, content) = pack(bytes(1 << 20, 1));
    let at_least = |what: &str, least: Duration, act: &dyn Fn()| {
        let start = Instant::now();
        act();
        assert!(start.elapsed() >= least, "{what} in {:?}", start.elapsed());
    };
    options.traffic.upload.set(Some(1 << 20));
    at_least("1 MiB up", Duration::from_millis(950), &|| store.write(file, content.clone()).expect("a pack"));
    options.traffic.download.set(Some(1 << 20));
    at_least("1 MiB down", Duration::from_millis(950), &|| {
        assert_eq!(store.read_at(file, 0, 1 << 20).expect("a range"), content);
    });
    options.traffic.requests.set(Some(10));
    at_least("10 requests", Duration::from_millis(950), &|| {
        (0..10).for_each(|_| assert_eq!(store.size(file).expect("its size"), 1 << 20));
    });
}

/// All connections share a limit, and a changed limit applies to running transfers, which would
/// take hours with the first one.
pub fn changed_limits_apply_to_running_transfers(endpoint: &Endpoint) {
    let options = endpoint.options();
    let store = opened(endpoint, "changing", &options);
    let rate = 1 << 10;
    options.traffic.upload.set(Some(rate));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writing: Vec<_> = (0..4)
            .map(|seed| {
                let store = &store;
                let (file, content) = pack(bytes(4 << 20, seed));
                scope.spawn(move || store.write(file, content).expect("a pack"))
            })
            .collect();
        let sent =
            wait_for("two portions", || Some(options.traffic.account().bytes_sent).filter(|sent| *sent >= 2 * rate));
        let least = Duration::from_secs_f64(sent as f64 / rate as f64);
        assert!(start.elapsed() >= least, "{sent} bytes in {:?}", start.elapsed());
        assert!(writing.iter().all(|writer| !writer.is_finished()));
        options.traffic.upload.set(None);
        wait_for("all uploads to end", || writing.iter().all(|writer| writer.is_finished()).then_some(()));
        writing.into_iter().for_each(|writer| writer.join().expect("a pack"));
    });
    assert_eq!(store.list(FileType::Pack).expect("a list").len(), 4);
}
