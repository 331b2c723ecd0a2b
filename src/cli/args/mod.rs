//! The options that all or several commands accept.
//!
//! An empty environment variable counts as unset. A switch takes no value. An unknown option is an
//! error, because an option that is silently ignored would mislead the user.

mod filter;
mod global;
mod values;

pub use filter::{Filter, GroupBy, group_by};
pub use global::{Global, RepositoryArgs, TrafficArgs};
pub use values::{Limit, duration, rate, requests, size, split_list, time};
