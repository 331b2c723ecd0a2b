//! The layout of a backup location as Velero writes it, and the backups in it.

use super::expiry::Backups;
use crate::parallel::side_by_side;
use crate::store::{Directory, Place, StoreError};

/// The directory of a location that has one directory for each backup.
pub const BACKUPS: &str = "backups";

/// The file in a backup's directory that Velero writes last.
const COMPLETE: &str = "velero-backup.json";

/// The directories of a location that never have repositories of ours: those that Velero's
/// validation lists (`pkg/persistence`), without `restic`.
const OWN: [&str; 5] = [BACKUPS, "restores", "kopia", "metadata", "plugins"];

/// Backups that are listed at the same time.
const WINDOW: usize = 64;

/// Whether a subdirectory belongs to Velero alone. `parent` is the listing that it is in: a
/// directory is a location if it has backups.
pub fn is_own_directory(parent: &Directory, name: &str) -> bool {
    OWN.contains(&name) && parent.directories.iter().any(|directory| directory == BACKUPS)
}

/// Lists the backups in a location. After an error it is unknown which backups exist.
pub fn backups(place: &Place) -> Result<Backups, StoreError> {
    let mut backups = Backups::default();
    let names = place.directory(BACKUPS, &[])?.directories;
    for part in names.chunks(WINDOW) {
        let listed =
            side_by_side(place.connections(), part, |name| place.directory(&format!("{BACKUPS}/{name}"), &[COMPLETE]));
        for (name, directory) in part.iter().zip(listed) {
            backups.add(name, !directory?.files.is_empty());
        }
    }
    Ok(backups)
}
