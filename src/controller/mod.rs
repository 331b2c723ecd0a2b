//! The controller's rooms. Most are pure: what is there goes in, what is to be done comes out.
//!
//! * [`names`]: how the objects are called that are made for a backup or a restore.
//! * [`quantity`]: sizes as Kubernetes writes them.
//! * [`repository`]: which repository a volume has, and what a location says about whose it is.
//! * [`trust`]: what the author of a backup or restore may ask for. They are tenants, not administrators.
//! * [`queue`]: whose turn it is.
//! * [`expose`]: a storage snapshot becomes a claim in the controller's own namespace.
//! * [`job`]: one mover as a Job, and how it ended.
//! * [`flow`]: what a flow is made of, and how everything is taken down again.
//! * [`backup`]: the flow of a backup.
//! * [`compat`]: the words of VolumeSnapshotMover 1.2, to and from our own.
//!
//! Two are not: [`cluster`] reads what is there and writes what is to be done, [`run`] waits for changes and calls them all.

pub mod backup;
pub mod cluster;
pub mod compat;
pub mod expose;
pub mod flow;
pub mod job;
pub mod names;
pub mod quantity;
pub mod queue;
pub mod repository;
pub mod run;
pub mod trust;
