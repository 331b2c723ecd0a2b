//! The vocabulary of all flows: requests, stages, recorded results, owners. Nothing here reads or
//! changes a cluster.

pub mod backup;
pub mod direction;
pub mod names;
pub mod record;
pub mod restore;
