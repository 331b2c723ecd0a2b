//! The parts of a location.

use std::path::{Path, PathBuf};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A prefix in a bucket, which Azure calls a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub service: Service,
    pub name: String,
    /// Cleaned: no empty, `.` or `..` parts, no slash at either end; empty for the bucket's root.
    pub prefix: String,
}

/// The protocol of a bucket, and its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    S3(Endpoint),
    /// Azure Blob Storage. The account is part of the credentials.
    Azure,
    /// Google Cloud Storage, where a bucket's name is unique worldwide.
    Google,
}

/// An S3 server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is reached by https: true unless the location says http.
    pub tls: bool,
    /// `host` or `host:port`.
    pub host: String,
}

impl Location {
    /// A place below this one; `path` has `/` between its names.
    pub fn below(&self, path: &str) -> Location {
        match self {
            Location::Folder(folder) => Location::Folder(folder_below(folder, path)),
            Location::Bucket(bucket) => Location::Bucket(bucket.below(path)),
        }
    }

    /// The parts of the path to the place, outermost first: the names of its folders, or the parts
    /// of its prefix.
    pub fn parts(&self) -> Vec<String> {
        let path = match self {
            Location::Folder(folder) => folder.to_string_lossy(),
            Location::Bucket(bucket) => bucket.prefix.as_str().into(),
        };
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

impl Bucket {
    /// [`Location::below`]
    pub fn below(&self, path: &str) -> Bucket {
        let parts = [self.prefix.as_str(), path].into_iter().filter(|part| !part.is_empty());
        self.at(parts.collect::<Vec<_>>().join("/"))
    }

    /// Another place in the same bucket.
    pub fn at(&self, prefix: String) -> Bucket {
        Bucket { prefix, ..self.clone() }
    }

    /// Whether two places are in one bucket. Two host names count as two endpoints.
    pub fn is_beside(&self, other: &Bucket) -> bool {
        let same_service = match (&self.service, &other.service) {
            (Service::S3(one), Service::S3(two)) => one.tls == two.tls && one.host.eq_ignore_ascii_case(&two.host),
            (one, two) => one == two,
        };
        same_service && self.name == other.name
    }
}

/// [`Location::below`] of a folder.
pub(in crate::store) fn folder_below(folder: &Path, path: &str) -> PathBuf {
    if path.is_empty() { folder.to_owned() } else { folder.join(path) }
}
