//! [`Remote`]: a bucket, with the differences between the services.

use super::failure::Failure;
use crate::store::location::Bucket;
use futures::future::BoxFuture;
use object_store::Attributes;
use object_store::list::PaginatedListStore;
use std::sync::Arc;

/// Creates the bucket.
pub(super) type Make = Arc<dyn Fn() -> BoxFuture<'static, std::result::Result<(), Failure>> + Send + Sync>;

/// The operator of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// The cloud itself, whose machines have an identity of their own.
    Cloud,
    /// Another server that speaks the cloud's protocol. Nothing in its network would answer a
    /// request for the machine's identity.
    Other,
}

/// How many requests run at the same time: uploads of packs, and downloads.
#[derive(Clone, Copy)]
pub(super) struct Connections {
    pub uploads: usize,
    pub downloads: usize,
}

impl Connections {
    /// A given number is for both. Otherwise 5 packs are uploaded at a time, as with restic, each
    /// of them in memory. A download takes a few MiB of memory, so that there may be more of them.
    pub fn new(given: Option<usize>) -> Connections {
        Connections { uploads: given.unwrap_or(5), downloads: given.unwrap_or(16) }
    }
}

/// A bucket of one of the services, and a prefix in it.
#[derive(Clone)]
pub(super) struct Remote {
    pub store: Arc<dyn object_store::ObjectStore>,
    /// The same bucket, for listings in pages.
    pub pages: Arc<dyn PaginatedListStore>,
    pub place: Bucket,
    /// The place in the form that the user writes.
    pub location: String,
    pub connections: Connections,
    /// The attributes of packs; all other files have none.
    pub packs: Attributes,
    pub make: Option<Make>,
}
