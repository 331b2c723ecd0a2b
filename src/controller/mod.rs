//! The controller: watches backup and restore requests and moves their volumes' data.
//!
//! Each reconcile observes the cluster, decides on one action in a pure function, and carries the
//! action out. The modules by role, each of which uses only those above it, except where the
//! architecture test says otherwise:
//!
//! * [`domain`]: the words of every flow (stage, action, names, sizes) without Kubernetes API calls.
//! * [`volumes`]: snapshot to claim, claim to snapshot, rebinding of a PV, garbage collection.
//! * [`tenancy`]: what a tenant may ask for, with which credentials, in which repository.
//! * [`mover_job`]: one mover as a Job, from its spec to its report.
//! * [`kinds`]: the kinds of requests and their flows, backup and restore.
//! * [`dialect`]: statuses as the API of each kind writes them.
//! * [`cluster`]: reads from and writes to the apiserver.
//! * [`runtime`]: the reconcile loop, queue, leader election, health, metrics, events, settings.

pub mod cluster;
pub mod dialect;
pub mod domain;
pub mod kinds;
pub mod mover_job;
pub mod runtime;
pub mod tenancy;
#[cfg(test)]
mod testing;
pub mod volumes;
