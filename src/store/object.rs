//! [`ObjectStore`]: a repository in an object store, reached over HTTP.
//!
//! What differs between the clouds is in a [`Remote`], built by a module of its own (`s3`, `azure`, `google`); everything here holds for
//! all of them. Calls come from plain threads, many at once, and each drives its own request. A file is one object, written
//! by one PUT, so it is there whole or not at all.
//! Calls must not be made from a thread that drives another async runtime.

mod attempt;
mod azure;
mod body;
mod browse;
mod credentials;
mod download;
mod failure;
mod google;
mod listing;
mod meter;
mod permits;
mod retry;
mod runtime;
mod s3;
mod signing;
#[cfg(test)]
mod tests;
mod transport;
mod upload;

use super::error::{GivenUp, Result, StoreError};
use super::file::{File, FileType};
use super::interface::{Download, Store, Upload};
use super::layout;
use super::location::{Bucket, Service};
use super::options::Options;
use super::traffic::Traffic;
use crate::id::Id;
use body::Content;
use bytes::Bytes;
use download::ObjectDownload;
use failure::{Failure, Kind};
use futures::StreamExt;
use futures::future::BoxFuture;
use listing::Listing;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{Attributes, ObjectStoreExt, PutMode, PutPayload};
use permits::Permits;
use retry::Retry;
use runtime::Runtimes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use upload::{Blocks, ObjectUpload};

/// The most that one PUT may carry at any of the providers we know.
const MAX_OBJECT: u64 = 5 << 30;

/// The slowest upload that is not taken for a stalled one.
const SLOWEST_UPLOAD: u64 = 32 << 10;

/// Makes the bucket.
type Make = Arc<dyn Fn() -> BoxFuture<'static, std::result::Result<(), Failure>> + Send + Sync>;

/// How many requests run at the same time: those that carry a pack to the
/// store, and those that fetch from it.
#[derive(Clone, Copy)]
struct Connections {
    uploads: usize,
    downloads: usize,
}

impl Connections {
    /// The number that somebody gave is for all. Otherwise 5 packs are on their way, as with restic,
    /// each of them in memory; reading takes a few MiB for each connection, and over more of them.
    fn new(given: Option<usize>) -> Connections {
        Connections { uploads: given.unwrap_or(5), downloads: given.unwrap_or(16) }
    }
}

/// A place in some cloud.
#[derive(Clone)]
struct Remote {
    store: Arc<dyn object_store::ObjectStore>,
    /// The same, for listings by directory.
    pages: Arc<dyn PaginatedListStore>,
    place: Bucket,
    /// The place as people write it.
    location: String,
    connections: Connections,
    /// What packs are stored with; everything else is stored plainly.
    packs: Attributes,
    make: Option<Make>,
}

/// A repository in an object store.
pub struct ObjectStore(Arc<Inner>);

/// What all places in one bucket share is behind an `Arc`.
#[derive(Clone)]
struct Inner {
    remote: Remote,
    runtimes: Arc<Runtimes>,
    retry: Arc<Retry>,
    permits: Arc<Permits>,
    blocks: Arc<Blocks>,
    traffic: Arc<Traffic>,
    /// Whether the server has said that it cannot create conditionally.
    unconditional: Arc<AtomicBool>,
    /// Whether a listing has shown that the bucket exists and may be listed.
    listed: Arc<AtomicBool>,
}

impl ObjectStore {
    /// A place in a bucket. The only question asked here is for the region of S3, if nobody gave one.
    pub fn open(bucket: &Bucket, options: &Options) -> Result<ObjectStore> {
        let runtimes = Runtimes::default();
        let remote = match &bucket.service {
            Service::S3(endpoint) => s3::remote(bucket, endpoint, options, &runtimes)?,
            Service::Azure => azure::remote(bucket, options)?,
            Service::Google => google::remote(bucket, options)?,
        };
        Ok(ObjectStore::new(remote, runtimes, options))
    }

    /// The clients of the object store crate that all of this goes by, with our transport and signing: for that crate's tests of what it is built on.
    pub fn clients(&self) -> (Arc<dyn object_store::ObjectStore>, Arc<dyn PaginatedListStore>) {
        (self.0.remote.store.clone(), self.0.remote.pages.clone())
    }

    fn new(remote: Remote, runtimes: Runtimes, options: &Options) -> ObjectStore {
        ObjectStore(Arc::new(Inner {
            permits: Arc::new(Permits::new(remote.connections.downloads)),
            blocks: Arc::default(),
            remote,
            runtimes: Arc::new(runtimes),
            retry: Arc::new(Retry::new(options)),
            traffic: options.traffic.clone(),
            unconditional: Arc::default(),
            listed: Arc::default(),
        }))
    }
}

impl Inner {
    fn key(&self, path: &str) -> Path {
        let prefix = &self.remote.place.prefix;
        let key = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        // Kept as it is when it is a valid key, which the location's parser sees to.
        Path::parse(&key).unwrap_or_else(|_| Path::from(key))
    }

    /// Runs attempts on this thread until one succeeds or there is no point in more.
    fn run<T>(
        &self,
        action: &str,
        ty: FileType,
        attempt: impl AsyncFnMut() -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        self.run_attempts(action, ty, true, attempt)
    }

    /// The same. `asks`: an attempt is a request. Otherwise it takes what an earlier request brings,
    /// whose success is no sign that the store would take more requests.
    fn run_attempts<T>(
        &self,
        action: &str,
        ty: FileType,
        asks: bool,
        mut attempt: impl AsyncFnMut() -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        let attempts = self.retry.run(action, async || {
            // Locks must be refreshed in time, however long the line of packs is.
            if ty == FileType::Lock {
                return attempt().await;
            }
            let permit = self.permits.acquire().await;
            let outcome = attempt().await;
            if asks || outcome.is_err() {
                permit.heed(&outcome);
            }
            outcome
        });
        let outcome = self.runtimes.block_on(attempts);
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::new(Kind::Final, error.to_string())));
        if outcome.as_ref().is_err_and(|failure| failure.kind == Kind::Missing { bucket: true }) {
            self.listed.store(false, Ordering::Relaxed);
        }
        outcome
    }

    /// What an attempt's failure means to the caller.
    fn error(&self, action: &str, file: File, failure: Failure) -> StoreError {
        let location = self.remote.location.clone();
        match failure.kind {
            Kind::Missing { bucket: true } => StoreError::NoBucket { bucket: self.remote.place.name.clone(), location },
            Kind::Missing { bucket: false } => StoreError::NotFound { file, location },
            Kind::Exists => StoreError::AlreadyExists { file, location },
            Kind::Short { offset, wanted, got } => StoreError::Short { file, offset, wanted, got },
            Kind::TooLarge { size, max } => StoreError::TooLarge { file, size, max },
            _ => self.general(&format!("{action} {}", layout::path(file)), failure),
        }
    }

    fn general(&self, action: &str, failure: Failure) -> StoreError {
        let (action, location) = (action.to_owned(), self.remote.location.clone());
        match failure.kind {
            Kind::Missing { .. } => StoreError::NoBucket { bucket: self.remote.place.name.clone(), location },
            Kind::Denied => StoreError::Denied { action, location, reason: failure.text },
            _ if failure.is_passing() => StoreError::Failed { action, location, source: GivenUp::new(failure).into() },
            _ => StoreError::Failed { action, location, source: failure.into() },
        }
    }

    /// An absent config may mean an absent bucket, which not every answer tells apart.
    fn absent(&self, file: File, error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { .. } if file == File::CONFIG => match self.probe() {
                Ok(()) => error,
                Err(failure) => self.general("list keys", failure),
            },
            error => error,
        }
    }

    /// Whether the bucket is there and may be listed. After a listing that is known.
    fn probe(&self) -> std::result::Result<(), Failure> {
        if self.listed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let keys = self.key(layout::directory(FileType::Key));
        self.run("look for the bucket", FileType::Key, async || {
            let mut listing = self.remote.store.list(Some(&keys));
            self.within(0, async { listing.next().await.transpose() }).await.map(|_| ())
        })?;
        self.listed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn replace(&self, file: File, payload: &PutPayload) -> Result<()> {
        self.replace_by(file, payload, async || self.put(file, payload, PutMode::Overwrite).await)
    }

    /// The same of a file that is not in memory.
    fn replace_by_content(&self, file: File, content: &Content) -> Result<()> {
        let payload = &content.placeholder();
        let put = async || content.clone().sent_by(self.put(file, payload, PutMode::Overwrite)).await;
        self.replace_by(file, payload, put)
    }

    fn replace_by(
        &self,
        file: File,
        payload: &PutPayload,
        put: impl AsyncFnMut() -> std::result::Result<(), Failure>,
    ) -> Result<()> {
        let size = payload.content_length() as u64;
        if size > MAX_OBJECT {
            return Err(StoreError::TooLarge { file, size, max: MAX_OBJECT });
        }
        self.run(&format!("write {file}"), file.ty, put).map_err(|failure| self.error("write", file, failure))
    }
}

impl Store for ObjectStore {
    fn location(&self) -> &str {
        &self.0.remote.location
    }

    fn connections(&self) -> usize {
        self.0.remote.connections.uploads
    }

    fn downloads(&self) -> usize {
        self.0.remote.connections.downloads
    }

    /// The large services list at once what has been written. restic waits this long for those that do not.
    fn settles_after(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>> {
        Listing::new(&self.0, ty).run()
    }

    fn size(&self, file: File) -> Result<u64> {
        let key = self.0.key(&layout::path(file));
        let action = format!("look up {file}");
        let looked = self.0.run(&action, file.ty, async || self.0.within(0, self.0.remote.store.head(&key)).await);
        looked.map(|meta| meta.size).map_err(|failure| self.0.error("look up", file, failure))
    }

    fn read(&self, file: File, max: u64) -> Result<Bytes> {
        let key = self.0.key(&layout::path(file));
        // Each attempt from the start: in between, a file without an id may have become another.
        let read = self.0.run(&format!("read {file}"), file.ty, async || self.0.fetch(&key, max).await);
        read.map_err(|failure| self.0.absent(file, self.0.error("read", file, failure)))
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        Ok(Box::new(ObjectDownload::start(&self.0, file, offset, length)?))
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.0.replace(file, &bytes.into())
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        let payload = PutPayload::from(bytes);
        let mut unsure = false;
        self.0
            .run(&format!("create {file}"), file.ty, async || {
                let attempt = self.0.put_new(file, &payload, unsure).await;
                unsure |= attempt.is_err();
                attempt
            })
            .map_err(|failure| self.0.error("create", file, failure))
    }

    fn keeps_uploads(&self) -> bool {
        true
    }

    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        Ok(Box::new(ObjectUpload::new(self.0.clone(), ty)))
    }

    fn remove(&self, file: File) -> Result<()> {
        let key = self.0.key(&layout::path(file));
        let action = format!("remove {file}");
        let removed = self.0.run(&action, file.ty, async || self.0.within(0, self.0.remote.store.delete(&key)).await);
        match removed {
            Err(failure) if failure.kind == (Kind::Missing { bucket: false }) => Ok(()),
            other => other.map_err(|failure| self.0.error("remove", file, failure)),
        }
    }

    fn prepare(&self) -> Result<()> {
        match (self.0.probe(), &self.0.remote.make) {
            (Ok(()), _) => Ok(()),
            (Err(failure), Some(make)) if matches!(failure.kind, Kind::Missing { .. }) => {
                let action = format!("make the bucket {}", self.0.remote.place.name);
                let made = self.0.run(&action, FileType::Config, async || make().await);
                made.and_then(|()| self.0.probe()).map_err(|failure| self.0.general(&action, failure))
            }
            (Err(failure), _) => Err(self.0.general("list keys", failure)),
        }
    }
}
