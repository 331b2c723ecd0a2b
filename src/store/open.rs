//! Opens the store at a location.

use super::error::Result;
#[cfg(not(feature = "cloud"))]
use super::error::StoreError;
use super::folder::{self, Folder};
use super::interface::Store;
use super::location::Location;
#[cfg(feature = "cloud")]
use super::object::ObjectStore;
use super::options::Options;
use std::sync::Arc;

/// The store at a location. No request is sent yet, except for one that looks up the region of an
/// S3 bucket: the first call shows whether the store can be reached.
pub fn open(location: &Location, options: &Options) -> Result<Arc<dyn Store>> {
    match location {
        Location::Folder(path) => {
            let connections = options.local_connections.unwrap_or(folder::CONNECTIONS);
            Ok(Arc::new(Folder::new(path, connections)))
        }
        #[cfg(feature = "cloud")]
        Location::Bucket(bucket) => Ok(Arc::new(ObjectStore::open(bucket, options)?)),
        #[cfg(not(feature = "cloud"))]
        Location::Bucket(_) => Err(folders_only(location)),
    }
}

/// The error of a bucket in a build without object stores.
#[cfg(not(feature = "cloud"))]
pub(super) fn folders_only(location: &Location) -> StoreError {
    let reason = "this build supports only folders; for buckets, build it with the feature \"cloud\"".to_owned();
    StoreError::Location { location: location.to_string(), reason }
}
