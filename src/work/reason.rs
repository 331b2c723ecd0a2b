//! Why a mover or a request failed or waits: the stable words of conditions, events, metrics and
//! reports, each with an advice for the administrator.
//!
//! A mover's report carries a reason as its name, so that a controller and a mover of two releases
//! understand each other: a name that this release does not know reaches the user unchanged.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The program that reports a reason.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Mover,
    Controller,
}

/// Whether the Job controller retries a mover that failed for a reason. A request that failed is
/// never retried; of the controller's own reasons only waits are `Again`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another attempt may succeed.
    Again,
    /// Another attempt would only repeat the failure.
    Never,
}

/// Defines the reasons, so that no list of them can lack one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident: $origin:ident, $retry:ident, $advice:literal;)*) => {
        /// Why a mover or a request failed or waits. `docs/reference/mover.md` explains those of
        /// movers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The name in conditions, events, metrics and reports: one word in CamelCase.
            pub fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }

            /// The program that reports it: `docs/reference/mover.md` lists the reasons of movers.
            #[cfg(test)]
            fn origin(self) -> Origin {
                match self {
                    $(Reason::$name => Origin::$origin,)*
                }
            }

            pub fn retry(self) -> Retry {
                match self {
                    $(Reason::$name => Retry::$retry,)*
                }
            }

            /// The advice for the administrator: one sentence without a full stop.
            pub fn advice(self) -> &'static str {
                match self {
                    $(Reason::$name => $advice,)*
                }
            }
        }
    };
}

reasons! {
    Ambiguous: Controller, Never,
        "delete the remaining objects of earlier restores, and restore one namespace at a time";
    // A Secret or ConfigMap may be corrected while the Job retries.
    BadConfiguration: Mover, Again, "correct the secret or the location that the message names";
    BucketMissing: Mover, Never, "create the bucket, or correct the location";
    Copied: Controller, Never,
        "create a new VolumeSnapshotRestore if the data is wanted again";
    Denied: Controller, Never,
        "ask an administrator: the message names the denied access, and docs/reference/permissions.md says how to allow it";
    Forbidden: Controller, Again,
        "apply the controller's roles again: it lacks the right that the message names";
    Incomplete: Controller, Never,
        "look at status.problems and the mover's log, and repair the entries that could not be read or written";
    // A panic may depend on timing.
    InternalError: Mover, Again,
        "report the message and the mover's log to the project: it is a bug in the mover";
    Interrupted: Mover, Again,
        "nothing: uploaded data is kept, and the next backup resumes from it";
    Invalid: Controller, Never,
        "correct the field that the message names, and create a new object: this one is not retried";
    LockLost: Mover, Again,
        "check whether the store was reachable, and whether `restic unlock` was run: the mover's lock was lost";
    // The next pod may run on another node.
    MachineFaulty: Mover, Again, "replace the memory of the node that the mover ran on";
    MoverLost: Controller, Never,
        "look at the events of the mover's pod and its node; often it was killed for its memory";
    NoUsableKey: Mover, Never,
        "restore the directory keys/ of the repository from a copy of the bucket";
    NotExposed: Controller, Never,
        "look at the VolumeSnapshotContent and the claim in the controller's namespace";
    NotHandedOver: Controller, Never,
        "free the name that the message says, or look at the snapshot's events; then restore again";
    NotPrepared: Controller, Never,
        "look at the events of the objects that the message names in the controller's namespace";
    NothingRestored: Mover, Never,
        "look at the snapshot with `restic ls`: it is empty, and does not say that the volume was empty";
    OtherVolumeMode: Mover, Never,
        "restore into a volume of the same mode, Filesystem or Block";
    RepositoryDamaged: Mover, Never,
        "run `vsm-mover check` on the repository, and restore the file from a copy of the bucket";
    RepositoryLocked: Mover, Again,
        "wait for the process that holds the lock, or run `restic unlock` if it is dead";
    RepositoryMissing: Mover, Never,
        "look at the location and at the bucket: its versions may still have the repository";
    RepositoryRefused: Mover, Again,
        "wait for the process that creates the repository, or remove the unfinished one that the message names";
    RepositoryUnsupported: Mover, Never,
        "restore the snapshot with stock restic: the repository uses a feature that the mover does not support";
    SnapshotAmbiguous: Mover, Never, "name the snapshot by its id in spec.snapshotID";
    SnapshotMissing: Mover, Never,
        "list the repository with `restic snapshots`, and name the snapshot by its id in spec.snapshotID";
    StoreFailed: Mover, Again,
        "check whether the store can be reached from the controller's namespace, and read its answer in the message";
    // A write error may be transient, such as a network volume that reconnects.
    TargetFailed: Mover, Again,
        "look at the volume and its storage system: the message names the entry that could not be written";
    TargetFull: Mover, Never, "restore into a larger claim";
    TargetTooSmall: Mover, Never, "restore into a larger claim";
    TooLittleMemory: Mover, Never,
        "give movers more memory by VSM_MEMORY and VSM_MOVER_MEMORY_LIMIT";
    VeleroFailed: Controller, Never, "look at Velero's own Backup or Restore for why it failed";
    VolumeMissing: Mover, Never,
        "look at the events of the mover's pod: its volume was not at the expected path";
    // A device's read error may be transient, such as a path that fails over.
    VolumeUnreadable: Mover, Again,
        "look at the events of the mover's pod and at the node's kernel log: the root of the volume, or its block device, cannot be read";
    Waiting: Controller, Again, "look at the events of the objects that the message names";
    WrongPassword: Mover, Never,
        "compare the password in the secret with the password that the repository was created with";
}

/// The exit code of a failure that another attempt would only repeat and that restic has no code
/// for. The Job's failure policy ends the Job at it.
const FINAL: u8 = 13;

impl Reason {
    /// The reason of this name; `None` if this release does not know it.
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.name() == name)
    }

    /// The exit code of a mover that failed for this reason: restic's where restic has one.
    pub fn exit_code(self) -> u8 {
        match (self, self.retry()) {
            (Reason::RepositoryMissing, _) => 10,
            (Reason::RepositoryLocked, _) => 11,
            (Reason::NoUsableKey | Reason::WrongPassword, _) => 12,
            (Reason::Interrupted, _) => 130,
            (_, Retry::Never) => FINAL,
            (_, Retry::Again) => 1,
        }
    }
}

/// A reason as a report names it: one of this release, or one that only another release knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ReasonName {
    Known(Reason),
    /// Of another release, or forged: it is bounded only by the size of a report.
    Foreign(String),
}

impl ReasonName {
    pub fn as_str(&self) -> &str {
        match self {
            ReasonName::Known(reason) => reason.name(),
            ReasonName::Foreign(name) => name,
        }
    }

    /// A message followed by the advice of the reason, if this release knows it.
    pub fn advised(&self, message: &str) -> String {
        match self {
            ReasonName::Known(reason) => format!("{message} (what to do: {})", reason.advice()),
            ReasonName::Foreign(_) => message.to_owned(),
        }
    }
}

impl From<Reason> for ReasonName {
    fn from(reason: Reason) -> ReasonName {
        ReasonName::Known(reason)
    }
}

impl From<String> for ReasonName {
    fn from(name: String) -> ReasonName {
        Reason::parse(&name).map_or(ReasonName::Foreign(name), ReasonName::Known)
    }
}

impl From<ReasonName> for String {
    fn from(name: ReasonName) -> String {
        name.as_str().to_owned()
    }
}

impl PartialEq<Reason> for ReasonName {
    fn eq(&self, reason: &Reason) -> bool {
        *self == ReasonName::Known(*reason)
    }
}

impl fmt::Display for ReasonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVER: &str = include_str!("../../docs/reference/mover.md");

    fn of_movers() -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().filter(|reason| reason.origin() == Origin::Mover)
    }

    /// The reasons in the first column of the table in `docs/reference/mover.md`.
    fn documented() -> Vec<&'static str> {
        let table = MOVER.split_once("| reason |").expect("the table of reasons").1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.map(|row| row.split('|').nth(1).expect("a cell"));
        cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim().trim_matches('`')).collect()
    }

    #[test]
    fn the_document_lists_exactly_the_reasons_of_movers() {
        let mut documented = documented();
        documented.sort_unstable();
        let all: Vec<&str> = of_movers().map(Reason::name).collect();
        assert_eq!(documented, all);
    }

    #[test]
    fn a_reason_is_parsed_from_its_name_and_any_other_name_is_kept() {
        for reason in Reason::ALL {
            assert_eq!(ReasonName::from(reason.name().to_owned()), *reason);
        }
        let foreign = ReasonName::from("Novel".to_owned());
        assert_eq!((foreign.as_str(), foreign.advised("it broke")), ("Novel", "it broke".to_owned()));
        let full = ReasonName::from(Reason::TargetFull);
        assert_eq!(full.advised("no space"), "no space (what to do: restore into a larger claim)");
        assert!(Reason::ALL.is_sorted_by_key(|reason| reason.name()), "the table can be searched by eye");
    }

    /// `docs/reference/mover.md`: 3, 10, 12 and 13 end the Job, and the reasons of 13 are in
    /// parentheses.
    #[test]
    fn a_mover_is_not_retried_exactly_if_its_exit_code_ends_the_job() {
        let sentence = MOVER.split_once("13, which only `work` has").expect("the sentence on 13").1;
        let listed = sentence.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
        for reason in of_movers() {
            let code = reason.exit_code();
            assert_eq!(reason.retry() == Retry::Never, [3, 10, 12, 13].contains(&code), "{reason:?}");
            assert_eq!(code == 13, listed.contains(&format!("`{}`", reason.name())), "{reason:?}");
        }
    }
}
