//! Tests that hold for every service whose locations name a bucket and no endpoint.

use super::conformance::conforms;
use super::{bytes, upstream};
use std::sync::Arc;
use vsm::id::Id;
use vsm::store::{File, FileType, Location, Options, Place, Result, Store, StoreError};

/// A service, and the options that reach it.
pub struct Cloud {
    /// The scheme of its locations.
    pub scheme: &'static str,
    pub options: Options,
}

impl Cloud {
    fn location(&self, bucket: &str, prefix: &str) -> Location {
        format!("{}:{bucket}:/{prefix}", self.scheme).parse().expect("a location")
    }

    pub fn open(&self, bucket: &str, prefix: &str) -> Arc<dyn Store> {
        self.try_open(bucket, prefix).expect("a store")
    }

    pub fn try_open(&self, bucket: &str, prefix: &str) -> Result<Arc<dyn Store>> {
        vsm::store::open(&self.location(bucket, prefix), &self.options)
    }

    /// Runs the tests of this module.
    pub fn is_right(&self) {
        self.conforms_below_a_prefix();
        self.conforms_in_the_buckets_root();
        self.a_missing_bucket_is_named();
        self.directories_are_listed();
    }

    /// Runs [`upstream::conforms`], in which exactly the functions in `fails` fail.
    pub fn is_up_to_upstream(&self, fails: &[&str]) {
        upstream::conforms(&self.location("upstream", ""), &self.options, fails);
    }

    fn conforms_below_a_prefix(&self) {
        let store = self.open("made-here", "deep/er/prefix with space/100%25~[x]");
        // The first repository creates the bucket.
        let missing = store.list(FileType::Key).expect_err("no bucket yet");
        assert!(matches!(&missing, StoreError::NoBucket { bucket, .. } if bucket == "made-here"), "{missing:?}");
        store.prepare().expect("a bucket");
        conforms(&*store);
    }

    fn conforms_in_the_buckets_root(&self) {
        let store = self.open("another", "");
        store.prepare().expect("a bucket");
        conforms(&*store);
    }

    fn a_missing_bucket_is_named(&self) {
        let store = self.open("not-there", "x");
        for error in
            [store.read(File::CONFIG, 1000).expect_err("nothing"), store.list(FileType::Pack).expect_err("nothing")]
        {
            assert!(matches!(&error, StoreError::NoBucket { bucket, .. } if bucket == "not-there"), "{error:?}");
        }
    }

    fn directories_are_listed(&self) {
        let store = self.open("browsed", "a/b");
        store.prepare().expect("a bucket");
        store.create(File::CONFIG, bytes(10, 1).into()).expect("a config");
        let pack = bytes(100, 2);
        store.write(File::new(FileType::Pack, Id::of(&pack)), pack.into()).expect("a pack");
        let place = Place::new(&self.location("browsed", ""), &self.options).expect("a place");
        assert_eq!(place.directory("", &["config"]).expect("a directory").directories, ["a"]);
        let found = place.directory("a/b", &["config"]).expect("a directory");
        assert_eq!((found.directories, found.files), (vec!["data".to_owned()], vec!["config".to_owned()]));
        assert_eq!(place.location("a/b").to_string(), format!("{}:browsed:/a/b", self.scheme));
    }
}
