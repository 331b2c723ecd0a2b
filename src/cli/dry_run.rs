//! [`DryRun`]: whether a command only reports the changes that it would make.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    No,
    Yes,
}

impl From<bool> for DryRun {
    /// Converts the option `--dry-run`.
    fn from(is_given: bool) -> DryRun {
        if is_given { DryRun::Yes } else { DryRun::No }
    }
}
