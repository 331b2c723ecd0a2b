//! The reasons that a mover reports for a failure.
//!
//! The report carries a reason as its name, so that a controller and a mover of two releases
//! understand each other: a name that this release does not know is passed on to the user as it is.

/// Defines the reasons with their names, so that the list of all reasons cannot lack one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a mover failed. `docs/MOVER.md` lists what each reason means and what to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The name in the report: one word in CamelCase.
            pub fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    BadConfiguration,
    BucketMissing,
    /// A fault of this program.
    InternalError,
    Interrupted,
    LockLost,
    MachineFaulty,
    NoUsableKey,
    NothingRestored,
    OtherVolumeMode,
    RepositoryDamaged,
    RepositoryLocked,
    RepositoryMissing,
    RepositoryRefused,
    RepositoryUnsupported,
    SnapshotAmbiguous,
    SnapshotMissing,
    StoreFailed,
    TargetFailed,
    TargetFull,
    TargetTooSmall,
    TooLittleMemory,
    VolumeMissing,
    VolumeUnreadable,
    WrongPassword,
}

/// The exit code of a failure that another try would only repeat and that restic has no code for.
const FINAL: u8 = 13;

impl Reason {
    /// The reason of this name; `None` if this release does not know it.
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.name() == name)
    }

    /// Whether another try would only repeat the failure: the wanted object is missing, or does not
    /// fit.
    pub fn is_final(self) -> bool {
        match self {
            Reason::BucketMissing
            | Reason::NoUsableKey
            | Reason::NothingRestored
            | Reason::OtherVolumeMode
            | Reason::RepositoryDamaged
            | Reason::RepositoryMissing
            | Reason::RepositoryUnsupported
            | Reason::SnapshotAmbiguous
            | Reason::SnapshotMissing
            | Reason::TargetFull
            | Reason::TargetTooSmall
            | Reason::TooLittleMemory
            | Reason::VolumeMissing
            | Reason::WrongPassword => true,
            // A Secret or ConfigMap may be corrected while the Job retries.
            Reason::BadConfiguration
            // A panic may depend on timing.
            | Reason::InternalError
            | Reason::Interrupted
            | Reason::LockLost
            // The next pod may run on another node.
            | Reason::MachineFaulty
            | Reason::RepositoryLocked
            | Reason::RepositoryRefused
            | Reason::StoreFailed
            | Reason::TargetFailed
            // A device's read error may be transient, such as a path that fails over.
            | Reason::VolumeUnreadable => false,
        }
    }

    /// The exit code of a mover that failed for this reason: restic's where restic has one.
    pub fn exit_code(self) -> u8 {
        match self {
            Reason::RepositoryMissing => 10,
            Reason::RepositoryLocked => 11,
            Reason::NoUsableKey | Reason::WrongPassword => 12,
            Reason::Interrupted => 130,
            Reason::BucketMissing
            | Reason::NothingRestored
            | Reason::OtherVolumeMode
            | Reason::RepositoryDamaged
            | Reason::RepositoryUnsupported
            | Reason::SnapshotAmbiguous
            | Reason::SnapshotMissing
            | Reason::TargetFull
            | Reason::TargetTooSmall
            | Reason::TooLittleMemory
            | Reason::VolumeMissing => FINAL,
            Reason::BadConfiguration
            | Reason::InternalError
            | Reason::LockLost
            | Reason::MachineFaulty
            | Reason::RepositoryRefused
            | Reason::StoreFailed
            | Reason::TargetFailed
            | Reason::VolumeUnreadable => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVER: &str = include_str!("../../docs/MOVER.md");

    /// The reasons in the first column of the table in `docs/MOVER.md`.
    fn documented() -> Vec<&'static str> {
        let table = MOVER.split_once("| reason |").expect("the table of reasons").1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.map(|row| row.split('|').nth(1).expect("a cell"));
        cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim().trim_matches('`')).collect()
    }

    #[test]
    fn the_document_lists_exactly_the_reasons() {
        let mut documented = documented();
        documented.sort_unstable();
        let all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(documented, all);
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::parse("Novel"), None);
    }

    /// `docs/MOVER.md`: 3, 10, 12 and 13 end the Job, and the reasons of 13 are in parentheses.
    #[test]
    fn a_reason_is_final_if_its_exit_code_ends_the_job() {
        let sentence = MOVER.split_once("13, which only `work` has").expect("the sentence on 13").1;
        let listed = sentence.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
        for reason in Reason::ALL {
            let code = reason.exit_code();
            assert_eq!(reason.is_final(), [3, 10, 12, 13].contains(&code), "{reason:?}");
            assert_eq!(code == 13, listed.contains(&format!("`{}`", reason.name())), "{reason:?}");
        }
    }
}
