//! [`ObjectStore`]: a repository in an object store, reached over HTTP.
//!
//! A `Remote` holds the differences between the services and is built by a module for each (`s3`,
//! `azure`, `google`); everything else holds for all of them. Calls come from plain threads, many
//! at once, and each thread drives its own request. A file is one object, written by one PUT, so
//! that it exists whole or not at all. A thread that drives another async runtime must not make
//! calls.

mod attempt;
mod azure;
mod blocks;
mod body;
mod browse;
mod client;
mod credentials;
mod download;
mod failure;
mod google;
mod listing;
mod meter;
mod page_tokens;
mod permits;
mod remote;
mod retry;
mod runtime;
mod s3;
mod signing;
mod store;
#[cfg(test)]
mod tests;
mod transport;
mod upload;

pub use store::ObjectStore;
