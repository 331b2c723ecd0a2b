//! Decides when a lock file is replaced, and when the lock counts as lost: pure functions of ages
//! and of the store's answers.

use std::time::Duration;

/// Other processes may remove a lock whose time stamp is older: `StaleLockTimeout` in restic's
/// internal/restic/lock.go.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(30 * 60);
/// The age at which a lock file is replaced: restic's `defaultRefreshInterval`
/// (internal/repository/lock.go).
pub(super) const REFRESH: Duration = Duration::from_secs(5 * 60);
/// A lock that cannot be refreshed is given up at this age: restic's `refreshabilityTimeout`
/// (internal/repository/lock.go), which is the staleness limit less one and a half refresh
/// intervals, because the clocks of other machines may be ahead.
pub(super) const LOST_AFTER: Duration =
    Duration::from_secs(STALE_AFTER.as_secs() - REFRESH.as_secs() - REFRESH.as_secs() / 2);
/// The pause after a refresh that failed. The store has already retried on its own.
pub(super) const RETRY: Duration = Duration::from_secs(60);
/// A wall clock that was set by this much makes the time stamp in the lock file wrong. Adjustments
/// without a step stay below one second in half an hour (500 ppm, adjtimex(2)).
pub(super) const WALL_JUMP: Duration = Duration::from_secs(60);

/// The store's answer to a look for a lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Present,
    Missing,
    /// The store does not answer.
    Unknown,
}

/// The latest event of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time has passed, and no refresh is under way.
    Tick {
        wall_jump: Duration,
        /// The time since the last refresh, if it failed.
        since_failure: Option<Duration>,
    },
    FirstLook(Look),
    Written,
    WriteFailed,
    SecondLook {
        old: Look,
        /// Counted from its time stamp, not from the end of its write.
        age_of_new: Duration,
    },
}

/// The next step of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    LookForOld,
    WriteNew,
    LookAgain,
    /// The new file takes the place of the old one.
    Replace,
    /// The old file stays, and the next refresh tries again.
    Fail,
    GiveUp(Loss),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Another process removed the file.
    Removed,
    /// The lock is too old, and the store did not confirm that the file still exists.
    Overdue,
}

/// The policy. `age` is that of the lock file that others see.
pub(super) fn decide(event: Event, age: Duration) -> Step {
    let fail = if age > LOST_AFTER { Step::GiveUp(Loss::Overdue) } else { Step::Fail };
    match event {
        // Late, for example after a suspension: the lock is held if the file still exists.
        Event::Tick { .. } if age > LOST_AFTER => Step::LookForOld,
        Event::Tick { since_failure: Some(since), .. } if since < RETRY => Step::Wait,
        Event::Tick { wall_jump, .. } if age < REFRESH && wall_jump < WALL_JUMP => Step::Wait,
        Event::Tick { .. } => Step::LookForOld,
        Event::FirstLook(Look::Present) => Step::WriteNew,
        Event::FirstLook(Look::Missing) => Step::GiveUp(Loss::Removed),
        Event::FirstLook(Look::Unknown) => fail,
        Event::Written => Step::LookAgain,
        Event::WriteFailed => fail,
        // Another process may soon remove the new file, too, or has removed it: keep the old one.
        Event::SecondLook { old: Look::Present, age_of_new } if age_of_new > LOST_AFTER => Step::Fail,
        Event::SecondLook { old: Look::Present, .. } => Step::Replace,
        Event::SecondLook { old: Look::Missing, .. } => Step::GiveUp(Loss::Removed),
        Event::SecondLook { old: Look::Unknown, .. } => fail,
    }
}

/// Whether a lock of this age is to be given up while its refresh, which has been `running` for
/// some time, still waits for the store. A refresh that began late, for example after a suspension,
/// may take up to [`REFRESH`].
pub(super) fn is_overdue(age: Duration, running: Duration) -> bool {
    let age_at_start = age.saturating_sub(running);
    age > LOST_AFTER && (age_at_start <= LOST_AFTER || running > REFRESH)
}
