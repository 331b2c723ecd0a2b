//! Tests the stores through the library: the promises of every store, and the behaviour of an
//! object store whose server fails.
//!
//! Nothing here depends on the repository's format. [`conformance`] holds for every store; [`s3`]
//! and [`faults`] take the [`Endpoint`] of a server that the caller started, so that they run
//! against any server.

pub mod azure;
pub mod clouds;
pub mod conformance;
pub mod faults;
pub mod google;
mod on_servers;
pub mod proxy;
pub mod s3;
pub mod traffic;
mod upstream;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{self, Runtime};
use vsm::store::object::ObjectStore;
use vsm::store::options::{Notify, RetryPolicy};
use vsm::store::{CacheLifetime, Cached, Location, Options, Place, Result, Store, StoreError};

/// An S3 server with one bucket.
#[derive(Clone)]
pub struct Endpoint {
    /// `http://host:port`
    pub url: String,
    pub bucket: String,
    pub access: String,
    pub secret: String,
}

impl Endpoint {
    /// The same server at another URL.
    pub fn by(&self, url: String) -> Endpoint {
        Endpoint { url, ..self.clone() }
    }

    /// Options with this server's credentials, its region and a short retry policy.
    pub fn options(&self) -> Options {
        self.options_of(&[("AWS_DEFAULT_REGION", "us-east-1")])
    }

    pub fn options_of(&self, variables: &[(&str, &str)]) -> Options {
        let credentials = [("AWS_ACCESS_KEY_ID", &*self.access), ("AWS_SECRET_ACCESS_KEY", &*self.secret)];
        let pairs = credentials.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Options { environment: pairs.collect(), retry: impatient(), ..Options::default() }
    }

    pub fn location(&self, prefix: &str) -> Location {
        format!("s3:{}/{}/{prefix}", self.url, self.bucket).parse().expect("a location")
    }

    pub fn open(&self, prefix: &str) -> Arc<dyn Store> {
        self.open_with(prefix, &self.options()).expect("a store")
    }

    pub fn open_with(&self, prefix: &str, options: &Options) -> Result<Arc<dyn Store>> {
        vsm::store::open(&self.location(prefix), options)
    }

    /// Puts objects into the bucket, without our store.
    pub fn plant(&self, objects: impl IntoIterator<Item = (String, Vec<u8>)> + Send) {
        self.as_anybody(async |client| {
            let put = |(name, content): (String, Vec<u8>)| {
                let client = client.clone();
                async move { client.put(&name.into(), content.into()).await.map(drop) }
            };
            stream::iter(objects).map(put).buffer_unordered(16).try_collect::<()>().await.expect("objects");
        });
    }

    /// The content of an object in the bucket.
    pub fn object(&self, name: &str) -> Vec<u8> {
        self.as_anybody(async |client| client.get(&name.into()).await?.bytes().await).expect(name).to_vec()
    }

    /// Calls the client of the crate directly, which only signs and sends requests.
    fn as_anybody<T: Send>(&self, act: impl AsyncFnOnce(Arc<dyn object_store::ObjectStore>) -> T + Send) -> T {
        let Location::Bucket(bucket) = self.location("") else { unreachable!("a bucket") };
        let (client, _) = ObjectStore::open(&bucket, &self.options()).expect("a store").clients();
        on_a_new_runtime(|runtime| runtime.block_on(act(client)))
    }
}

/// Runs on another thread, because this one may have connections that only a store's calls can use.
fn on_a_new_runtime<T: Send>(act: impl FnOnce(&Runtime) -> T + Send) -> T {
    let run = || act(&runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// A retry policy with waits that fit a test.
pub fn impatient() -> RetryPolicy {
    RetryPolicy {
        patience: Duration::from_secs(20),
        first_wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(200),
        opening_attempts: 3,
        connect: Duration::from_secs(2),
        stall: Duration::from_secs(2),
    }
}

/// Collects the failed attempts that a store reports.
pub fn listen(options: &mut Options) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    options.notify = Some(Notify(Arc::new(move |attempt| {
        notes.lock().expect("no panic").push(format!("{}: {}", attempt.action, attempt.error));
    })));
    heard
}

/// `length` pseudo-random bytes.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// An error with all its causes, as the command line prints it.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[test]
fn a_cached_store_conforms() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let location: Location = scratch.path().join("repo").to_str().expect("a plain path").parse().expect("a location");
    let store = vsm::store::open(&location, &Options::default()).expect("a store");
    let cached =
        Cached::open(store, &scratch.path().join("copies"), "id", CacheLifetime::Lasting, |error| panic!("{error}"));
    conformance::conforms(&cached.expect("a place for copies"));
}

#[test]
fn a_folder_conforms() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = scratch.path().join("repo");
    let location: Location = path.to_str().expect("a plain path").parse().expect("a location");
    conformance::conforms(&*vsm::store::open(&location, &Options::default()).expect("a store"));
}

#[test]
fn a_folder_lists_its_entries_and_those_it_does_not_follow() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let root = scratch.path();
    for directory in ["a/b", "c"] {
        std::fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    std::fs::create_dir(root.join(std::ffi::OsStr::from_bytes(b"\xff"))).expect("a directory");
    for file in ["config", "other", "a/config"] {
        std::fs::write(root.join(file), "x").expect("a file");
    }
    std::os::unix::fs::symlink("a", root.join("link")).expect("a link");
    let location: Location = root.to_str().expect("UTF-8").parse().expect("a location");
    let place = Place::new(&location, &Options::default()).expect("a place");
    let mut found = place.directory("", &["config"]).expect("a directory");
    found.directories.sort();
    found.passed_over.sort();
    assert_eq!((found.directories, found.files), (vec!["a".into(), "c".into()], vec!["config".into()]));
    assert_eq!(found.passed_over, ["link", "\u{fffd}"]);
    assert_eq!(place.directory("a", &["config"]).expect("a directory").directories, ["b"]);
    assert!(matches!(place.directory("none", &[]), Err(StoreError::Failed { .. })));
    assert_eq!(place.location("a/b").to_string(), root.join("a/b").to_str().expect("UTF-8"));
    assert_eq!(place.store("").location(), location.to_string());
}
