//! [`ObjectStore`]: the calls of a store, as requests to a bucket.

use super::attempt::EarlierAttempts;
use super::client::Client;
use super::download::ObjectDownload;
use super::failure::{Failure, Kind};
use super::listing::Listing;
use super::remote::Remote;
use super::runtime::Runtimes;
use super::upload::ObjectUpload;
use super::{azure, google, s3};
use crate::id::Id;
use crate::store::error::{Result, StoreError};
use crate::store::file::{File, FileType};
use crate::store::interface::{Download, Store, Upload};
use crate::store::layout;
use crate::store::location::{Bucket, Service};
use crate::store::options::Options;
use bytes::Bytes;
use futures::StreamExt;
use object_store::list::PaginatedListStore;
use object_store::{ObjectStoreExt, PutPayload};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A repository in an object store.
pub struct ObjectStore(pub(super) Arc<Client>);

impl ObjectStore {
    /// A place in a bucket. The only request sent here looks up the region of an S3 bucket, unless
    /// the options have one.
    pub fn open(bucket: &Bucket, options: &Options) -> Result<ObjectStore> {
        let runtimes = Runtimes::default();
        let remote = match &bucket.service {
            Service::S3(endpoint) => s3::remote(bucket, endpoint, options, &runtimes)?,
            Service::Azure => azure::remote(bucket, options)?,
            Service::Google => google::remote(bucket, options)?,
        };
        Ok(ObjectStore::new(remote, runtimes, options))
    }

    /// The clients of the object store crate, with our transport and signing, for the tests of that
    /// crate.
    pub fn clients(&self) -> (Arc<dyn object_store::ObjectStore>, Arc<dyn PaginatedListStore>) {
        (self.0.remote.store.clone(), self.0.remote.pages.clone())
    }

    pub(super) fn new(remote: Remote, runtimes: Runtimes, options: &Options) -> ObjectStore {
        ObjectStore(Arc::new(Client::new(remote, runtimes, options)))
    }

    /// The error of a file that could not be read. An absent config may mean an absent bucket,
    /// which not every answer distinguishes.
    fn absent(&self, file: File, error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { .. } if file == File::CONFIG => match self.probe() {
                Ok(()) => error,
                Err(failure) => self.0.general("list keys", failure),
            },
            error => error,
        }
    }

    /// Whether the bucket exists and may be listed, which is known after a listing.
    fn probe(&self) -> std::result::Result<(), Failure> {
        if self.0.listed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let keys = self.0.key(layout::directory(FileType::Key));
        self.0.run("look for the bucket", FileType::Key, async || {
            let mut listing = self.0.remote.store.list(Some(&keys));
            self.0.within(0, async { listing.next().await.transpose() }).await.map(|_| ())
        })?;
        self.0.listed.store(true, Ordering::Relaxed);
        Ok(())
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

    /// The large services list a file as soon as it is written. For the others, this is restic's
    /// wait.
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
        // Each attempt reads from the start: a file without an id may have been replaced meanwhile.
        let read = self.0.run(&format!("read {file}"), file.ty, async || self.0.fetch(&key, max).await);
        read.map_err(|failure| self.absent(file, self.0.error("read", file, failure)))
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        Ok(Box::new(ObjectDownload::start(&self.0, file, offset, length)?))
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.0.replace(file, &bytes.into())
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        let payload = PutPayload::from(bytes);
        let mut earlier = EarlierAttempts::None;
        self.0
            .run(&format!("create {file}"), file.ty, async || {
                let attempt = self.0.put_new(file, &payload, earlier).await;
                if attempt.is_err() {
                    earlier = EarlierAttempts::Unconfirmed;
                }
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
        match (self.probe(), &self.0.remote.make) {
            (Ok(()), _) => Ok(()),
            (Err(failure), Some(make)) if matches!(failure.kind, Kind::Missing { .. }) => {
                let action = format!("create the bucket {}", self.0.remote.place.name);
                let made = self.0.run(&action, FileType::Config, async || make().await);
                made.and_then(|()| self.probe()).map_err(|failure| self.0.general(&action, failure))
            }
            (Err(failure), _) => Err(self.0.general("list keys", failure)),
        }
    }
}
