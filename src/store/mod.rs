//! Where a repository's files are stored: in a folder or an object store.
//!
//! A [`Store`] knows names and bytes, but not the meaning of the bytes. Its calls block; an
//! object store runs its own small runtime inside. A [`Place`] holds many repositories, and lists
//! its directories.
//!
//! A write returns only when the file is durable and visible under its name, whole or not at all.
//! The store retries whatever can be retried: an error that it returns is final.

mod cache;
mod directory;
pub mod environment;
mod error;
mod file;
pub mod folder;
mod interface;
pub mod layout;
pub mod location;
#[cfg(feature = "cloud")]
pub mod object;
mod open;
pub mod options;
mod place;
pub mod traffic;

pub use cache::{CacheLifetime, Cached};
pub use directory::Directory;
pub use error::{GivenUp, Result, StoreError};
pub use file::{File, FileType};
pub use interface::{Download, Store, Upload};
pub use location::Location;
pub use open::open;
pub use options::Options;
pub use place::Place;
