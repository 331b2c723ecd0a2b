//! [`Client`]: sends requests to one bucket, bounds and retries them, and translates their
//! failures.

use super::blocks::Blocks;
use super::failure::{Failure, Kind};
use super::permits::Permits;
use super::remote::Remote;
use super::retry::Retry;
use super::runtime::Runtimes;
use crate::store::error::{GivenUp, StoreError};
use crate::store::file::{File, FileType};
use crate::store::layout;
use crate::store::options::Options;
use crate::store::traffic::Traffic;
use object_store::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Result<T> = std::result::Result<T, Failure>;

/// Bytes a second of the slowest upload that does not count as stalled.
const SLOWEST_UPLOAD: u64 = 32 << 10;

/// Bytes of an answer that has to arrive whole before the client passes on any: a page of a
/// listing, of a thousand objects.
const LISTING: u64 = 1 << 20;

/// The kind of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// It sends a request.
    Request,
    /// It reads the answer to an earlier request. A success does not show that the store would
    /// accept more requests.
    Transfer,
}

/// A place in a bucket. All places in one bucket share the fields in an `Arc`.
#[derive(Clone)]
pub(super) struct Client {
    pub remote: Remote,
    pub runtimes: Arc<Runtimes>,
    retry: Arc<Retry>,
    permits: Arc<Permits>,
    pub blocks: Arc<Blocks>,
    traffic: Arc<Traffic>,
    /// Whether the server has refused a conditional write.
    pub unconditional: Arc<AtomicBool>,
    /// Whether a listing has shown that the bucket exists and may be listed.
    pub listed: Arc<AtomicBool>,
}

impl Client {
    pub fn new(remote: Remote, runtimes: Runtimes, options: &Options) -> Client {
        Client {
            permits: Arc::new(Permits::new(remote.connections.downloads)),
            blocks: Arc::default(),
            remote,
            runtimes: Arc::new(runtimes),
            retry: Arc::new(Retry::new(options)),
            traffic: options.traffic.clone(),
            unconditional: Arc::default(),
            listed: Arc::default(),
        }
    }

    /// The key of the object at a path below the place.
    pub fn key(&self, path: &str) -> Path {
        let prefix = &self.remote.place.prefix;
        let key = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        // A prefix from the location's parser is a valid key, which stays as it is.
        Path::parse(&key).unwrap_or_else(|_| Path::from(key))
    }

    /// Runs attempts on this thread until one succeeds or a retry cannot help.
    pub fn run<T>(&self, action: &str, ty: FileType, attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        self.run_attempts(action, ty, AttemptKind::Request, attempt)
    }

    /// [`Client::run`] for attempts of the given kind.
    pub fn run_attempts<T>(
        &self,
        action: &str,
        ty: FileType,
        kind: AttemptKind,
        mut attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let attempts = self.retry.run(action, async || {
            // Locks must be refreshed in time, however many packs are queued.
            if ty == FileType::Lock {
                return attempt().await;
            }
            let permit = self.permits.acquire().await;
            let outcome = attempt().await;
            if kind == AttemptKind::Request || outcome.is_err() {
                permit.heed(&outcome);
            }
            outcome
        });
        let outcome = self.runtimes.block_on(self.retry.until_interrupted(ty, attempts));
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::new(Kind::Final, error.to_string())));
        if outcome.as_ref().is_err_and(|failure| failure.kind == Kind::Missing { bucket: true }) {
            self.listed.store(false, Ordering::Relaxed);
        }
        outcome
    }

    /// The error of a request for a file.
    pub fn error(&self, action: &str, file: File, failure: Failure) -> StoreError {
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

    /// The error of a request that is not for one file.
    pub fn general(&self, action: &str, failure: Failure) -> StoreError {
        let (action, location) = (action.to_owned(), self.remote.location.clone());
        match failure.kind {
            Kind::Missing { .. } => StoreError::NoBucket { bucket: self.remote.place.name.clone(), location },
            Kind::Denied => StoreError::Denied { action, location, reason: failure.text },
            Kind::Interrupted => StoreError::Interrupted { action, location },
            _ if failure.is_passing() => StoreError::Failed { action, location, source: GivenUp::new(failure).into() },
            _ => StoreError::Failed { action, location, source: failure.into() },
        }
    }

    /// Waits for an answer to a request that carries `bytes`.
    pub async fn within<T>(&self, bytes: u64, request: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        let Traffic { upload, download, .. } = &*self.traffic;
        // Time that our own rate limits take is no stall. All requests may share the limits.
        let paced = upload.longest(bytes, self.remote.connections.downloads)
            + download.longest(LISTING, self.remote.connections.downloads);
        let limit = self.retry.policy().stall + Duration::from_secs(bytes / SLOWEST_UPLOAD) + paced;
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::new(Kind::Link, format!("the store did not respond for {} s", limit.as_secs()))),
        }
    }
}
