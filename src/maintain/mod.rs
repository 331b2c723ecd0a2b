//! Looking at a repository and looking after it: everything that is neither a backup nor a restore.
//!
//! Each module is one operation and decides nothing about how it is shown. What they share is
//! [`walk`], a tree walk that holds one directory per level and no call stack, and [`gaps`], which
//! reports what such a walk cannot read; [`forest`], all trees below a root by many threads;
//! [`blobs`], a set of blobs; [`reach`], what the snapshots need; [`transfer`], [`rewrite`] and
//! [`reindex`], new packs, trees and index files in the places of old ones; and [`group`],
//! snapshots of the same host, paths and tags. [`survey`] looks at many repositories, one after the
//! other.

mod archive;
pub mod blobs;
pub mod check;
pub mod copy;
pub mod diff;
pub mod dump;
pub mod exclude;
pub mod find;
mod forest;
pub mod forget;
pub mod gaps;
pub mod group;
mod posix_acl;
pub mod prune;
mod reach;
mod reindex;
pub mod repair;
pub mod rewrite;
pub mod stats;
pub mod survey;
pub mod tag;
mod tar;
#[cfg(test)]
mod testing;
mod transfer;
pub mod walk;
mod zip;
