//! The library of VolumeSnapshotMover: backs up volumes to restic repositories, and restores them.
//!
//! Layers, lowest first. A module may use modules of lower layers; in L0 and L4 it may also use the
//! earlier modules of its layer (`tests/architecture.rs` enforces this):
//!
//! * L0, bytes and types without I/O: `id`, `limits`, `volume_mode`, `format`, `crypto`, `hash`,
//!   `chunk`, `pattern`; and the machine: `clock`, `interrupt` (the request to end a run early),
//!   `host`, `memory`, `parallel` (concurrent calls), `sync` (mutexes with one poison policy),
//!   `room` (a byte budget that threads share), `concurrency` (operations in flight on a volume),
//!   `aside` (spill files), `progress`.
//! * L1 `store`: the files of a repository.
//! * L2 `repo`: an open repository with its keys, locks, index and packs.
//! * L3 `backup`, `restore`, `maintain`: the flows; `mount`: snapshots as directories.
//! * L4, the contract with Kubernetes and Velero: `api` (our custom resources), `work` (a mover's
//!   work description and report), `provenance` (repository paths and snapshot tags), `manifest`
//!   (restores as YAML), `velero` (its backup location, and the snapshots of deleted backups),
//!   `kubernetes` (volumes, snapshots and leader election, without our custom resources).
//! * L5 `mover`: one Job; `controller`: reconciles the custom resources of `api`.
//! * L6 `cli`: parses, calls, prints.

#[cfg(feature = "controller")]
pub mod api;
pub mod aside;
pub mod backup;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod concurrency;
#[cfg(feature = "controller")]
pub mod controller;
pub mod crypto;
pub mod format;
pub mod hash;
pub mod host;
pub mod id;
pub mod interrupt;
#[cfg(feature = "controller")]
pub mod kubernetes;
pub mod limits;
pub mod maintain;
pub mod manifest;
pub mod memory;
#[cfg(feature = "mount")]
pub mod mount;
pub mod mover;
mod parallel;
pub mod pattern;
pub mod progress;
pub mod provenance;
pub mod repo;
pub mod restore;
mod room;
pub mod store;
mod sync;
pub mod velero;
pub mod volume_mode;
pub mod work;
