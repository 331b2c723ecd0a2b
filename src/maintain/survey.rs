//! Finds the repositories below a place and reads the snapshots of each.
//!
//! The search descends directory by directory. It does not descend into a repository, so that its
//! packs, which may be millions, are never listed, nor into a directory that the caller excludes.
//! The result lists every directory that was not searched.

use crate::limits;
use crate::parallel::side_by_side;
use crate::repo::{self, Error, Password, Repository, Settings, StoredSnapshot};
use crate::store::{Directory, Place, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const CONFIG: &str = "config";

/// The result of a search below a place; paths are relative to the place.
#[derive(Debug, Default)]
pub struct Found {
    /// Repositories, sorted.
    pub repositories: Vec<String>,
    /// Directories that could not be listed.
    pub failed: Vec<(String, StoreError)>,
    /// Directories that were not searched: excluded ones, and links that may lead out of the place.
    pub passed_over: Vec<String>,
}

/// Decides from a directory's listing and the name of one of its subdirectories whether the search
/// skips that subdirectory.
pub type Exclude = fn(&Directory, &str) -> bool;

/// Finds every repository at or below a directory of a place (the place itself if `directory` is
/// empty). An error means that this directory cannot be listed, or that the store is unreachable.
pub fn find(place: &Place, directory: &str, excludes: Exclude) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let given_up = InARow::default();
    let mut level = vec![directory.to_owned()];
    while !level.is_empty() {
        let mut below = Vec::new();
        for part in level.chunks(WINDOW) {
            let listed = side_by_side(place.connections(), part, |path| {
                let listed = (!given_up.too_often()).then(|| place.directory(path, &[CONFIG]))?;
                given_up.count(listed.as_ref().err());
                Some(listed)
            });
            let gone = listed.iter().any(Option::is_none);
            for (path, listed) in part.iter().zip(listed).filter_map(|(path, listed)| Some((path, listed?))) {
                match listed {
                    Ok(listed) if is_repository(&listed) => found.repositories.push(path.clone()),
                    Ok(listed) => {
                        let (search, skip) = subdirectories(path, &listed, excludes);
                        below.extend(search);
                        found.passed_over.extend(skip);
                    }
                    Err(error) if path == directory => return Err(error),
                    Err(error) => found.failed.push((path.clone(), error)),
                }
            }
            if gone {
                return Err(found.failed.pop().expect("each failure that was counted is listed").1);
            }
        }
        level = below;
    }
    found.repositories.sort_unstable();
    Ok(found)
}

/// Whether a directory is a repository or the remains of one. A `config` or a `data` alone does not
/// count, because other programs use these names, too.
fn is_repository(directory: &Directory) -> bool {
    let has = |name: &str| directory.directories.iter().any(|one| one == name);
    let config = !directory.files.is_empty();
    let marks = [config, has("keys"), has("snapshots"), has("data")].into_iter().filter(|mark| *mark).count();
    (config && has("keys")) || marks >= 3
}

/// The paths of a directory's subdirectories: those to search, and those to skip.
fn subdirectories(path: &str, directory: &Directory, excludes: Exclude) -> (Vec<String>, Vec<String>) {
    let full = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
    let (skip, search): (Vec<&String>, Vec<&String>) =
        directory.directories.iter().partition(|name| excludes(directory, name));
    let skip = skip.into_iter().chain(&directory.passed_over);
    (search.into_iter().map(full).collect(), skip.map(full).collect())
}

/// The content of one repository.
#[derive(Debug, Default)]
pub struct Contents {
    /// Oldest first.
    pub snapshots: Vec<StoredSnapshot>,
    /// Snapshots that cannot be read.
    pub damaged: Vec<Error>,
}

/// Reads the snapshots of some repositories, several at a time, and passes the outcome of each to
/// `take`, in order. No lock is needed: snapshots never change, and a snapshot that is deleted
/// meanwhile is left out.
pub fn read<E>(
    place: &Place,
    paths: &[String],
    password: &Password,
    settings: &Settings,
    mut take: impl FnMut(&str, repo::Result<Contents>) -> Result<(), E>,
) -> Result<(), E> {
    // Each thread derives a key, which takes a core and the memory of `limits::KDF_MEMORY`.
    let threads = place.connections().min(settings.budget.threads);
    let given_up = InARow::default();
    for part in paths.chunks(WINDOW) {
        let contents = side_by_side(threads, part, |path| {
            if given_up.too_often() {
                return Err(Error::Stopped);
            }
            let contents = contents(place.store(path), password, settings.clone());
            given_up.count(match &contents {
                Err(Error::Store(error)) => Some(error),
                _ => None,
            });
            contents
        });
        for (path, contents) in part.iter().zip(contents) {
            take(path, contents)?;
        }
    }
    Ok(())
}

fn contents(store: Arc<dyn Store>, password: &Password, settings: Settings) -> repo::Result<Contents> {
    let repo = Repository::open(store, password, None, settings)?;
    let (snapshots, mut damaged) = repo.snapshots()?;
    damaged.retain(|error| !matches!(error, Error::Store(StoreError::NotFound { .. })));
    Ok(Contents { snapshots, damaged })
}

/// The number of outcomes that are buffered so that they can be passed on in order.
const WINDOW: usize = 64;

/// Counts consecutive requests that failed after all retries. Each of them used up its retry
/// budget, so an unreachable store must not cost that once for every object.
#[derive(Default)]
struct InARow(AtomicU32);

impl InARow {
    fn count(&self, error: Option<&StoreError>) {
        if error.is_some_and(StoreError::is_given_up) {
            self.0.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn too_often(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= limits::STORE_ERRORS
    }
}
