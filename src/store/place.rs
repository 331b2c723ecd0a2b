//! [`Place`]: a folder, or a prefix in a bucket, that may hold many repositories.

use super::directory::Directory;
use super::error::Result;
use super::folder::{self, Folder};
use super::interface::Store;
use super::location::{Location, folder_below};
#[cfg(feature = "cloud")]
use super::object::ObjectStore;
use super::options::Options;
use std::path::PathBuf;
use std::sync::Arc;

/// A folder, or a prefix in a bucket, that may hold many repositories.
pub struct Place {
    location: Location,
    by: Way,
}

/// How a place is accessed.
enum Way {
    Folder {
        root: PathBuf,
        connections: usize,
    },
    /// All stores below this place share connections, the bucket's region and the limit on
    /// requests.
    #[cfg(feature = "cloud")]
    Bucket(ObjectStore),
}

impl Place {
    /// The only request sent here looks up the region of an S3 bucket, unless the options have one.
    pub fn new(location: &Location, options: &Options) -> Result<Place> {
        let by = match location {
            #[cfg(feature = "cloud")]
            Location::Bucket(bucket) => Way::Bucket(ObjectStore::open(bucket, options)?),
            #[cfg(not(feature = "cloud"))]
            Location::Bucket(_) => return Err(super::open::folders_only(location)),
            Location::Folder(root) => {
                let connections = options.local_connections.unwrap_or(folder::CONNECTIONS);
                Way::Folder { root: root.clone(), connections }
            }
        };
        Ok(Place { location: location.clone(), by })
    }

    /// How many calls may usefully run at the same time.
    pub fn connections(&self) -> usize {
        match &self.by {
            Way::Folder { connections, .. } => *connections,
            #[cfg(feature = "cloud")]
            Way::Bucket(bucket) => bucket.connections(),
        }
    }

    /// The location of `path` below this place, with `/` between its parts. An empty `path` is the
    /// place itself.
    pub fn location(&self, path: &str) -> Location {
        self.location.below(path)
    }

    /// The entries of a directory; of files, only those whose name is in `wanted`. A bucket has no
    /// empty directories, so that a missing directory in a bucket is empty; a missing folder is an
    /// error.
    pub fn directory(&self, path: &str, wanted: &[&str]) -> Result<Directory> {
        match &self.by {
            Way::Folder { root, .. } => folder::directory(&folder_below(root, path), wanted),
            #[cfg(feature = "cloud")]
            Way::Bucket(bucket) => bucket.below(path).directory(wanted),
        }
    }

    /// The repository at `path`. No request is sent yet.
    pub fn store(&self, path: &str) -> Arc<dyn Store> {
        match &self.by {
            Way::Folder { root, connections } => Arc::new(Folder::new(folder_below(root, path), *connections)),
            #[cfg(feature = "cloud")]
            Way::Bucket(bucket) => Arc::new(bucket.below(path)),
        }
    }
}
