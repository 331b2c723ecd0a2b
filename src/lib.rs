//! The engine of VolumeSnapshotMover: a volume into a restic repository, and back.
//!
//! Layers, lowest first; a module uses only modules of its own layer's list and below (`tests/architecture.rs` enforces it):
//!
//! * L0 `format`, `crypto`, `chunk`: pure bytes and types, no I/O.
//! * L1 `store`: where the repository's files live.
//! * L2 `repo`: an open repository: keys, locks, index, packs.
//! * L3 `backup`, `restore`, `maintain`: the flows.
//! * L5 `cli`: parses, calls, prints.

pub mod chunk;
