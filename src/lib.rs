//! The engine of VolumeSnapshotMover: a volume into a restic repository, and back.
//!
//! Layers, lowest first; a module uses only its own layer and those below (`tests/architecture.rs` enforces it):
//!
//! * L0 `id`, `limits`, `memory`, `format`, `crypto`, `hash`, `chunk`, `work`, `provenance`,
//!   `expiry`, `manifest`, `api`: pure bytes and types, no I/O; `parallel`: calls side by side;
//!   `room`: bytes that threads hold together; `clock`, `host`: what the machine says;
//!   `concurrency`: how many operations are kept in flight on a volume; `aside`: what memory does not
//!   hold, in temporary files.
//! * L1 `store`: where the repository's files live.
//! * L2 `repo`: an open repository: keys, locks, index, packs.
//! * L3 `backup`, `restore`, `maintain`: the flows; `mount`: snapshots as directories.
//! * L4 `mover`: what one Job does, from its work description to its report; `controller`: what is done with the kinds of `api`.
//! * L5 `cli`: parses, calls, prints.

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
pub mod expiry;
pub mod format;
pub mod hash;
pub mod host;
pub mod id;
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
pub mod work;
