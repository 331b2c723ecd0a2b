//! Inspects and maintains repositories: every operation that is neither a backup nor a restore.
//!
//! Each operation has a module, which does not format output. The shared modules are [`walk`], a
//! tree walk that holds one directory per level and needs no call stack; [`gaps`], which reports
//! damage that such a walk meets; [`forest`], which visits all trees below a root with many
//! threads; [`blobs`], a set of blobs; [`reach`], which finds the blobs that snapshots need;
//! [`transfer`], [`rewrite`] and [`reindex`], which replace packs, trees and index files; and
//! [`group`], which groups snapshots by host, paths and tags. [`survey`] reads many repositories,
//! one after the other.

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
