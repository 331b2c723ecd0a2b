//! [`Place`]: where many repositories are, one beside and below the other: a folder, or a bucket and a prefix.

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

/// Where many repositories are.
pub struct Place {
    location: Location,
    by: Way,
}

/// How it is reached.
enum Way {
    Folder {
        root: PathBuf,
        connections: usize,
    },
    /// All that is below shares connections, the bucket's region, and the bound on requests.
    #[cfg(feature = "cloud")]
    Bucket(ObjectStore),
}

impl Place {
    /// Nothing is asked of it yet, but for the region of a bucket if nobody said it.
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

    /// The location of what is at `path` below this place, with `/` between its parts; that of the place itself if it is empty.
    pub fn location(&self, path: &str) -> Location {
        self.location.below(path)
    }

    /// What is in a directory; of files only those with one of the names that are `wanted`. A bucket has no empty directories, so that
    /// there one that is not there is empty; a folder must be there.
    pub fn directory(&self, path: &str, wanted: &[&str]) -> Result<Directory> {
        match &self.by {
            Way::Folder { root, .. } => folder::directory(&folder_below(root, path), wanted),
            #[cfg(feature = "cloud")]
            Way::Bucket(bucket) => bucket.below(path).directory(wanted),
        }
    }

    /// The repository at `path`. Nothing is asked of it yet.
    pub fn store(&self, path: &str) -> Arc<dyn Store> {
        match &self.by {
            Way::Folder { root, connections } => Arc::new(Folder::new(folder_below(root, path), *connections)),
            #[cfg(feature = "cloud")]
            Way::Bucket(bucket) => Arc::new(bucket.below(path)),
        }
    }
}
