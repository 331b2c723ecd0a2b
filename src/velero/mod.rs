//! Velero's side of a backup location: its directories, its backups, and the snapshots whose backup
//! Velero has deleted.

pub mod expiry;
pub mod location;
