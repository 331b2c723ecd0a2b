//! The options that every command takes, and those that several commands share.
//!
//! An empty environment variable counts as unset. A switch takes no value. An option that is
//! defined neither here nor with its command is an error: one that silently had no effect would be
//! worse.

mod filter;
mod global;
mod values;

pub use filter::{Filter, GroupBy, group_by};
pub use global::{Global, RepositoryArgs, TrafficArgs};
pub use values::{Limit, duration, rate, requests, size, split_list, time};
