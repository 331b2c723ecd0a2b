//! Azure Blob Storage against Azurite: the promises, and what is particular to containers and credentials.

use super::conformance::conforms;
use super::{bytes, impatient, told};
use crate::common::azurite::{ACCOUNT, Azurite, CONTAINER, KEY};
use std::sync::Arc;
use vsm::id::Id;
use vsm::store::{File, FileType, Location, Options, Place, Store, StoreError};

fn options(server: &Azurite, key: &str) -> Options {
    let pairs = [("AZURE_ACCOUNT_NAME", ACCOUNT), ("AZURE_ACCOUNT_KEY", key)];
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let mut options = Options { environment, retry: impatient(), ..Options::default() };
    options.set(&format!("azure.endpoint={}", server.endpoint())).expect("an endpoint");
    options
}

fn location(container: &str, prefix: &str) -> Location {
    format!("azure:{container}:/{prefix}").parse().expect("a location")
}

pub fn open(server: &Azurite, container: &str, prefix: &str) -> Arc<dyn Store> {
    vsm::store::open(&location(container, prefix), &options(server, KEY)).expect("a store")
}

pub fn conforms_below_a_prefix(server: &Azurite) {
    let store = open(server, "made-here", "deep/er/prefix with space/100%25~[x]");
    // The container is made with the first repository.
    let missing = store.list(FileType::Key).expect_err("no container yet");
    assert!(matches!(&missing, StoreError::NoBucket { bucket, .. } if bucket == "made-here"), "{missing:?}");
    store.prepare().expect("a container");
    conforms(&*store);
}

pub fn conforms_in_the_containers_root(server: &Azurite) {
    let store = open(server, "another", "");
    store.prepare().expect("a container");
    conforms(&*store);
}

pub fn what_is_missing_or_refused_is_named(server: &Azurite) {
    let store = open(server, "not-there", "x");
    for error in [
        store.read(File::CONFIG, 1000).expect_err("nothing"),
        store.size(File::CONFIG).expect_err("nothing"),
        store.list(FileType::Pack).expect_err("nothing"),
    ] {
        assert!(matches!(&error, StoreError::NoBucket { bucket, .. } if bucket == "not-there"), "{error:?}");
    }
    let wrong = options(server, "d3Jvbmcga2V5");
    let store = vsm::store::open(&location(CONTAINER, ""), &wrong).expect("a store");
    let error = store.list(FileType::Key).expect_err("a wrong key");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(!told(&error).contains("d3Jvbmcga2V5"), "{}", told(&error));
    let nobody = Options { environment: Default::default(), ..wrong };
    let error = vsm::store::open(&location(CONTAINER, ""), &nobody).err().expect("no account");
    assert!(told(&error).contains("AZURE_ACCOUNT_NAME"), "{}", told(&error));
}

pub fn directories_are_listed(server: &Azurite) {
    let store = open(server, "browsed", "a/b");
    store.prepare().expect("a container");
    store.create(File::CONFIG, bytes(10, 1).into()).expect("a config");
    let pack = bytes(100, 2);
    store.write(File::new(FileType::Pack, Id::of(&pack)), pack.into()).expect("a pack");
    let place = Place::new(&location("browsed", ""), &options(server, KEY)).expect("a place");
    assert_eq!(place.directory("", &["config"]).expect("a directory").directories, ["a"]);
    let found = place.directory("a/b", &["config"]).expect("a directory");
    assert_eq!((found.directories, found.files), (vec!["data".to_owned()], vec!["config".to_owned()]));
    assert_eq!(place.location("a/b").to_string(), "azure:browsed:/a/b");
}
