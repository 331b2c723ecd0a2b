//! The controller's rooms. Most are pure: what is there goes in, what is to be done comes out.
//!
//! * [`settings`]: what whoever runs the controller says of it.
//! * [`names`]: how the objects are called that are made for a backup or a restore.
//! * [`quantity`]: sizes as Kubernetes writes them.
//! * [`repository`]: which repository a volume has, and what a location says about whose it is.
//! * [`trust`]: what the author of a backup or restore may ask for. They are tenants, not administrators.
//! * [`queue`]: whose turn it is.
//! * [`expose`]: a storage snapshot becomes a claim in the controller's own namespace.
//! * [`job`]: one mover as a Job, and how it ended.
//! * [`capture`]: a claim becomes a storage snapshot that outlives it.
//! * [`rehome`]: a volume leaves its claim for one in another namespace.
//! * [`free`]: a storage snapshot that is nobody's any more goes.
//! * [`access`]: which bucket a request may use, and with what.
//! * [`flow`]: the words of every flow: what is seen, recorded, and to be done.
//! * [`helpers`]: how helpers are brought to life and taken down again.
//! * [`backup`] and [`restore`]: the two flows.
//! * [`waiting`]: what keeps a request from getting on.
//! * [`advice`]: what to do about a failure.
//! * [`events`]: what people are told beside the status.
//! * [`rights`]: what the controller must be allowed to do.
//! * [`compat`]: the words of VolumeSnapshotMover 1.2, to and from our own.
//!
//! The others are not: [`cluster`] reads what is there and writes what is to be done, [`kinds`] says which flow an object has, and [`run`]
//! waits for changes and calls them all. Of several controllers [`lease`] lets one work; [`metrics`] counts what happens, [`health`] says
//! whether it is well, and [`serve`] tells both to whoever asks.

pub mod access;
pub mod advice;
pub mod backup;
pub mod capture;
pub mod cluster;
pub mod compat;
pub mod events;
pub mod expose;
pub mod flow;
pub mod free;
pub mod health;
pub mod helpers;
pub mod job;
pub mod kinds;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod quantity;
pub mod queue;
pub mod rehome;
pub mod repository;
pub mod restore;
pub mod rights;
pub mod run;
pub mod serve;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod waiting;
