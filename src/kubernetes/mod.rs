//! Kubernetes without our custom resources: volumes and snapshots, leader election, quantities,
//! metadata.

pub mod deletion_policy;
pub mod leader_election;
pub mod naming;
pub mod quantity;
pub mod snapshot_api;
pub mod volumes;
