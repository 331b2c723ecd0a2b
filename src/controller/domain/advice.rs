//! What to do about a failure, in one sentence for each reason. `docs/MOVER.md` says more of those that a mover reports.

use crate::work::Reason;

/// The controller's own reasons, and what to do. The sentences end without a full stop, as all
/// messages do.
const OWN: [(&str, &str); 12] = [
    ("Ambiguous", "delete what is left of earlier restores, and restore one namespace at a time"),
    ("Copied", "make a new VolumeSnapshotRestore if the data is wanted once more"),
    ("Denied", "ask an administrator: the message says what is not allowed, docs/CONTROLLER.md what would allow it"),
    ("Forbidden", "apply the controller's roles again: it lacks the right that the message names"),
    ("Incomplete", "look at status.problems and the mover's log, and mend what could not be read or written"),
    ("Invalid", "correct what the message names, and make a new object: this one is not looked at again"),
    ("MoverLost", "look at the events of the mover's pod and its node; often it was killed for its memory"),
    ("NotExposed", "look at the VolumeSnapshotContent and the claim in the controller's namespace"),
    (
        "NotHandedOver",
        "make room for the name that the message says, or look at the snapshot's events; then restore again",
    ),
    ("NotPrepared", "look at the events of what the message waits for in the controller's namespace"),
    ("VeleroFailed", "look at Velero's own Backup or Restore for why it failed"),
    ("Waiting", "look at the events of what the message names"),
];

/// What to do about a mover's failure.
fn of_mover(reason: Reason) -> &'static str {
    match reason {
        Reason::BadConfiguration => "correct the secret or the location that the message names",
        Reason::BucketMissing => "make the bucket, or correct the location",
        Reason::InternalError => "report the message to the project, with the mover's log: it is a fault of the mover",
        Reason::Interrupted => {
            "nothing is to be done: what was uploaded is kept, and the next backup goes on from there"
        }
        Reason::LockLost => {
            "look whether the store was reachable, and whether `restic unlock` was run: the mover's lock was lost"
        }
        Reason::MachineFaulty => "replace the memory of the node that the mover ran on",
        Reason::NoUsableKey => "restore the directory keys/ of the repository from a copy of the bucket",
        Reason::NothingRestored => {
            "look at the snapshot with `restic ls`: it has nothing, and does not say that the volume was empty"
        }
        Reason::OtherVolumeMode => "restore into a volume of the same mode, Filesystem or Block",
        Reason::RepositoryDamaged => {
            "run `vsm-mover check` on the repository, and bring the file back from a copy of the bucket"
        }
        Reason::RepositoryLocked => "wait for the process that holds the lock, or run `restic unlock` if it is dead",
        Reason::RepositoryMissing => {
            "look at the location and at the bucket: its versions may still have the repository"
        }
        Reason::RepositoryRefused => {
            "wait for the process that makes the repository, or remove the unfinished one that the message names"
        }
        Reason::RepositoryUnsupported => {
            "restore the snapshot with stock restic: the repository has what the mover does not accept"
        }
        Reason::SnapshotAmbiguous => "name the snapshot by its id in spec.snapshotID",
        Reason::SnapshotMissing => {
            "look at the repository with `restic snapshots`, and name the snapshot by its id in spec.snapshotID"
        }
        Reason::StoreFailed => {
            "look whether the store can be reached from the controller's namespace, and what it says in the message"
        }
        Reason::TargetFailed => {
            "look at the volume and its storage system: the message names what could not be written"
        }
        Reason::TargetFull => "restore into a larger claim",
        Reason::TargetTooSmall => "restore into a larger claim",
        Reason::TooLittleMemory => "give movers more by VSM_MEMORY and VSM_MOVER_MEMORY_LIMIT",
        Reason::VolumeMissing => "look at the events of the mover's pod: its volume was not where it should be",
        Reason::VolumeUnreadable => {
            "look at the events of the mover's pod and at the node's kernel log: the root of the volume, or its block device, cannot be read"
        }
        Reason::WrongPassword => "compare the password in the secret with the one that the repository was made with",
    }
}

/// A message with what to do about it.
pub fn advised(reason: &str, message: &str) -> String {
    match advice(reason) {
        Some(advice) => format!("{message} (what to do: {advice})"),
        None => message.to_owned(),
    }
}

/// Whether a reason is one of this release's, and not whatever a mover's report says.
pub fn is_known(reason: &str) -> bool {
    advice(reason).is_some()
}

fn advice(reason: &str) -> Option<&'static str> {
    let own = || OWN.iter().find(|(known, _)| *known == reason).map(|(_, advice)| *advice);
    Reason::parse(reason).map(of_mover).or_else(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Reasons as they stand in the sources: after `failed("`, and as that of a rejection.
    #[test]
    fn every_reason_of_the_controller_has_its_advice() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller");
        let mut found = Vec::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            let text = if path.is_file() { fs::read_to_string(&path).unwrap() } else { continue };
            let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
            for start in ["failed(\"", "failed(\n            \"", "reason: \""] {
                let after = text.match_indices(start).map(|(at, _)| &text[at + start.len()..]);
                let words = after.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
                found.extend(words.filter(|word| word.starts_with(char::is_uppercase)));
            }
        }
        for known in ["Invalid", "Denied", "NotExposed", "MoverLost", "Ambiguous", "Copied"] {
            assert!(found.iter().any(|word| word == known), "{known} is in the sources: {found:?}");
        }
        for reason in found {
            assert!(advice(&reason).is_some(), "{reason} has no advice");
        }
    }

    #[test]
    fn the_table_can_be_searched_by_eye() {
        assert!(OWN.is_sorted(), "in order");
        assert_eq!(advised("TargetFull", "no space"), "no space (what to do: restore into a larger claim)");
        assert_eq!(advised("Novel", "what is this"), "what is this");
    }
}
