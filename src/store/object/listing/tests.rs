//! Listings of a bucket in memory: every file is found once, with the expected number of requests.

use super::*;
use crate::store::location::{Bucket, Service};
use crate::store::object::ObjectStore;
use crate::store::object::failure::Answer;
use crate::store::object::remote::{Connections, Remote};
use crate::store::object::runtime::Runtimes;
use crate::store::options::RetryPolicy;
use crate::store::{File, Options, Store, StoreError};
use async_trait::async_trait;
use object_store::list::{PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attributes, ListResult, ObjectMeta};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Called before an answer with the number of the request, its prefix, and the keys.
type Event = Box<dyn Fn(usize, &str, &mut BTreeMap<String, u64>) -> object_store::Result<()> + Send + Sync>;

/// Keys and sizes, listed in pages. The token is the last key of the page before.
struct Pages {
    keys: Mutex<BTreeMap<String, u64>>,
    size: usize,
    requests: Mutex<Vec<String>>,
    event: Event,
    reversed: bool,
}

#[async_trait]
impl PaginatedListStore for Pages {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let request = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(prefix.to_owned());
            requests.len()
        };
        let mut keys = self.keys.lock().unwrap();
        (self.event)(request, prefix, &mut keys)?;
        let mut left: Vec<(&String, &u64)> = keys.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
        if self.reversed {
            left.reverse();
        }
        if let Some(token) = &options.page_token {
            left.retain(|(key, _)| if self.reversed { *key < token } else { *key > token });
        }
        let page_token = left.get(self.size).map(|_| left[self.size - 1].0.clone());
        left.truncate(self.size);
        let meta = |(key, size): (&String, &u64)| ObjectMeta {
            location: Path::parse(key).unwrap(),
            last_modified: Default::default(),
            size: *size,
            e_tag: None,
            version: None,
        };
        let objects = left.into_iter().map(meta).collect();
        let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
        Ok(PaginatedListResult { result, page_token })
    }
}

/// A place in a bucket with these packs, listed in pages of a size.
struct Bed {
    store: ObjectStore,
    pages: Arc<Pages>,
    packs: Vec<(Id, u64)>,
}

impl Bed {
    fn new(packs: u64, size: usize) -> Bed {
        Bed::with(packs, size, |pages| pages)
    }

    fn with(packs: u64, size: usize, change: impl FnOnce(Pages) -> Pages) -> Bed {
        let mut packs: Vec<(Id, u64)> = (0..packs).map(|number| (Id::of(&number.to_le_bytes()), number)).collect();
        packs.sort_unstable();
        let key = |id: Id| format!("p/{}", layout::path(File::new(FileType::Pack, id)));
        let keys: BTreeMap<String, u64> = packs.iter().map(|&(id, size)| (key(id), size)).collect();
        let event: Event = Box::new(|_, _, _| Ok(()));
        let (keys, requests) = (Mutex::new(keys), Mutex::default());
        let pages = Arc::new(change(Pages { keys, size, requests, event, reversed: false }));
        let place = Bucket { service: Service::Google, name: "bucket".to_owned(), prefix: "p".to_owned() };
        let remote = Remote {
            store: Arc::new(InMemory::new()),
            pages: pages.clone(),
            location: place.to_string(),
            place,
            connections: Connections::new(Some(5)),
            packs: Attributes::new(),
            make: None,
        };
        let retry = RetryPolicy { first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
        let options = Options { retry, ..Options::default() };
        Bed { store: ObjectStore::new(remote, Runtimes::default(), &options), pages, packs }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.pages.requests.lock().unwrap())
    }

    /// The digits by which the packs were listed, sorted, a request each.
    fn digits(&self) -> Vec<String> {
        let requests = self.requests();
        let mut digits: Vec<String> = requests.iter().map(|prefix| prefix["p/data/".len()..].to_owned()).collect();
        digits.sort();
        digits
    }
}

#[test]
fn a_few_pages_are_read_one_after_the_other() {
    for (packs, pages) in [(0, 1), (10, 1), (11, 2), (60, 6)] {
        let bed = Bed::new(packs, 10);
        assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
        assert_eq!(bed.digits(), vec![""; pages], "{packs} packs");
    }
}

#[test]
fn many_pages_are_listed_by_16_prefixes() {
    let bed = Bed::new(2000, 50);
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
    let mut digits = bed.digits();
    // One prefix has about 2000 / 16 packs, which is 3 pages.
    assert!((33..=33 + 24).contains(&digits.len()), "{} requests", digits.len());
    digits.dedup();
    let mut expected = vec![String::new()];
    expected.extend((0..16).map(|digit| format!("{digit:x}")));
    assert_eq!(digits, expected);
}

#[test]
fn very_many_pages_are_listed_by_256_prefixes() {
    // With 10 names in a page, the estimate may be wrong by half; with 1,000 it is not.
    let bed = Bed::new(12_000, 10);
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
    let mut digits = bed.digits();
    assert!((1201..=1201 + 256).contains(&digits.len()), "{} requests", digits.len());
    digits.dedup();
    assert_eq!(digits.len(), 257);
}

/// Foreign names fill the first pages, and packs begin in the middle of one.
#[test]
fn foreign_names_are_skipped_and_do_not_distort_the_estimate() {
    let bed = Bed::with(1000, 50, |pages| {
        let foreign = (0..120).map(|number| (format!("p/data/.{number:03}"), 1));
        let more = ["p/data/00/x", "p/data/zz", "p/data/7f/tmp", "p/datax"].map(|key| (key.to_owned(), 2));
        pages.keys.lock().unwrap().extend(foreign.chain(more));
        pages
    });
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
    let digits = bed.digits();
    let in_a_row = digits.iter().filter(|digits| digits.is_empty()).count();
    assert!(in_a_row == 3 && digits.len() < 3 + 16 * 3, "{in_a_row} of {}", digits.len());
}

#[test]
fn packs_removed_during_a_listing_are_omitted_without_an_error() {
    let bed = Bed::with(2000, 50, |pages| Pages {
        event: Box::new(|request, _, keys| {
            if request == 2 {
                keys.retain(|key, _| !key.starts_with("p/data/7"));
            }
            Ok(())
        }),
        ..pages
    });
    let mut left = bed.packs.clone();
    left.retain(|(id, _)| id.0[0] >> 4 != 7);
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), left);
}

#[test]
fn a_listing_that_is_not_sorted_by_name_is_read_page_after_page() {
    let bed = Bed::with(1000, 50, |pages| Pages { reversed: true, ..pages });
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
    assert_eq!(bed.digits(), vec![""; 20]);
}

/// The names are not hashes, so that the estimate is wrong; the listing must be complete.
#[test]
fn unevenly_distributed_names_cost_requests_but_no_files() {
    let bed = Bed::with(0, 10, |pages| {
        let name = |number: u64| format!("p/data/00/00{number:062x}");
        pages.keys.lock().unwrap().extend((0..100).map(|number| (name(number), number)));
        pages
    });
    let listed = bed.store.list(FileType::Pack).unwrap();
    assert_eq!(listed.iter().map(|(_, size)| *size).collect::<Vec<u64>>(), (0..100).collect::<Vec<u64>>());
    assert!(bed.requests().len() <= 1 + 256 + 10);
}

/// A bucket that answers requests for one prefix with an error status, `times` times.
fn refused(status: u16, times: usize) -> Bed {
    let count = AtomicUsize::new(0);
    Bed::with(2000, 50, move |pages| Pages {
        event: Box::new(move |_, prefix, _| {
            if prefix.ends_with("/a") && count.fetch_add(1, Ordering::Relaxed) < times {
                let source = Answer::new(status, "status", "", "").into();
                return Err(object_store::Error::Generic { store: "bucket", source });
            }
            Ok(())
        }),
        ..pages
    })
}

#[test]
fn a_final_failure_of_one_prefix_fails_the_listing() {
    let bed = refused(403, usize::MAX);
    assert!(matches!(bed.store.list(FileType::Pack), Err(StoreError::Denied { .. })));
}

#[test]
fn a_transient_failure_of_one_prefix_is_retried() {
    let bed = refused(503, 2);
    assert_eq!(bed.store.list(FileType::Pack).unwrap(), bed.packs);
}
