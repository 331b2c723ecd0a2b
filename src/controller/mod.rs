//! The controller: watches backup and restore requests and moves their volumes' data.
//!
//! Each reconcile observes the cluster, decides on one [`action`] in a pure function, and carries
//! it out. The modules in their order, lowest first; each uses only those before it
//! (`tests/architecture.rs` enforces it). Volumes, snapshots and the leader election are in
//! [`kubernetes`](crate::kubernetes).
//!
//! * [`domain`]: requests, stages, records, names: no Kubernetes API calls.
//! * [`config`]: the configuration of reconcilers and movers.
//! * [`tenancy`]: what a tenant may ask for, with which credentials, in which repository.
//! * [`action`] and [`observed`]: the output and the common input of a decision.
//! * [`mover_job`]: one mover as a Job, from its spec to its report.
//! * [`dialect`]: requests and records as the API of each kind writes them.
//! * [`cluster`]: reads from and writes to the apiserver.
//! * [`kinds`]: the flows, backup and restore: each observes and decides.
//! * [`runtime`]: watches, reconcile loop, queue, health, metrics, settings.

mod action;
pub mod cluster;
pub mod config;
mod dialect;
mod domain;
mod kinds;
mod mover_job;
mod observed;
pub mod runtime;
mod tenancy;
#[cfg(test)]
pub(crate) mod testing;
