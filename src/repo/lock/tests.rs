//! Tests of locks: the refresh policy, and refresh, loss and release with a fake clock.

use super::acquire::{RELEASE_WAIT, try_acquire};
use super::policy::{Event, LOST_AFTER, Look, Loss, REFRESH, RETRY, Step, WALL_JUMP, decide, is_overdue};
use super::refresh::Refresher;
use super::state::{Stamp, State};
use super::{Lock, LockMode, LocksToRemove, unlock};
use crate::clock::testing::FakeClock;
use crate::format::lock_file::LockFile;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::testing::{Call, Fate, Scripted};
use crate::repo::{Error, Repository, Result, Settings, tests::new_repository};
use crate::store::{File, FileType};
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// restic's `StaleLockTimeout`: other processes may remove a lock of this age.
const STALE: Duration = Duration::from_secs(30 * 60);

fn tick(age: Duration) -> Step {
    decide(Event::Tick { wall_jump: Duration::ZERO, since_failure: None }, age)
}

fn second_look(old: Look, age_of_new: Duration, age: Duration) -> Step {
    decide(Event::SecondLook { old, age_of_new }, age)
}

#[test]
fn a_lock_is_refreshed_at_restics_interval() {
    assert_eq!(tick(5 * MINUTE - SECOND), Step::Wait);
    assert_eq!(tick(5 * MINUTE), Step::LookForOld);
    assert_eq!(decide(Event::FirstLook(Look::Present), REFRESH), Step::WriteNew);
    assert_eq!(decide(Event::Written, REFRESH), Step::LookAgain);
    assert_eq!(second_look(Look::Present, SECOND, REFRESH), Step::Replace);
}

#[test]
fn a_failed_refresh_is_retried_after_a_pause_and_before_the_lock_is_given_up() {
    let failed = |since| Event::Tick { wall_jump: Duration::ZERO, since_failure: Some(since) };
    for event in [Event::FirstLook(Look::Unknown), Event::WriteFailed] {
        assert_eq!(decide(event, LOST_AFTER), Step::Fail);
        assert_eq!(decide(event, LOST_AFTER + SECOND), Step::GiveUp(Loss::Overdue));
    }
    assert_eq!(second_look(Look::Unknown, SECOND, LOST_AFTER), Step::Fail);
    assert_eq!(second_look(Look::Unknown, SECOND, LOST_AFTER + SECOND), Step::GiveUp(Loss::Overdue));
    assert_eq!(decide(failed(RETRY - SECOND), 20 * MINUTE), Step::Wait);
    assert_eq!(decide(failed(RETRY), 20 * MINUTE), Step::LookForOld);
    assert!(LOST_AFTER + RETRY < STALE);
}

#[test]
fn a_lock_that_another_process_removed_is_lost_at_any_age() {
    for age in [Duration::ZERO, REFRESH, STALE, HOUR] {
        assert_eq!(decide(Event::FirstLook(Look::Missing), age), Step::GiveUp(Loss::Removed));
        assert_eq!(second_look(Look::Missing, SECOND, age), Step::GiveUp(Loss::Removed));
    }
}

/// The store answers neither of two looks for 15 minutes each.
#[test]
fn a_lock_is_given_up_while_the_store_still_stalls() {
    // The first one begins at minute 5 and fails at minute 20.
    assert!(!is_overdue(20 * MINUTE, 15 * MINUTE));
    assert_eq!(decide(Event::FirstLook(Look::Unknown), 20 * MINUTE), Step::Fail);
    // The second one begins at minute 21; at minute 30 others may remove the lock.
    assert!(!is_overdue(22 * MINUTE, MINUTE));
    assert!(is_overdue(LOST_AFTER + SECOND, LOST_AFTER + SECOND - 21 * MINUTE));
    assert_eq!(decide(Event::FirstLook(Look::Unknown), 36 * MINUTE), Step::GiveUp(Loss::Overdue));
}

/// A look that takes 14 minutes, and a write that takes as long: at minute 33 the new file exists,
/// and others may have removed the old one at minute 30.
#[test]
fn after_a_slow_write_the_old_lock_file_is_checked_again() {
    let (age, age_of_new) = (33 * MINUTE, 14 * MINUTE);
    assert_eq!(decide(Event::FirstLook(Look::Present), 19 * MINUTE), Step::WriteNew);
    assert_eq!(decide(Event::Written, age), Step::LookAgain);
    assert_eq!(second_look(Look::Missing, age_of_new, age), Step::GiveUp(Loss::Removed));
    assert_eq!(second_look(Look::Present, age_of_new, age), Step::Replace);
}

#[test]
fn a_new_lock_file_that_is_soon_stale_itself_does_not_replace_the_old_one() {
    assert_eq!(second_look(Look::Present, LOST_AFTER, 28 * MINUTE), Step::Replace);
    assert_eq!(second_look(Look::Present, LOST_AFTER + SECOND, 28 * MINUTE), Step::Fail);
    assert_eq!(tick(28 * MINUTE), Step::LookForOld);
}

#[test]
fn after_a_suspension_the_lock_file_is_checked_before_the_lock_is_given_up() {
    let failed = Event::Tick { wall_jump: Duration::ZERO, since_failure: Some(SECOND) };
    assert_eq!(tick(HOUR), Step::LookForOld);
    assert_eq!(decide(failed, HOUR), Step::LookForOld);
    assert_eq!(decide(Event::FirstLook(Look::Present), HOUR), Step::WriteNew);
    assert_eq!(second_look(Look::Present, SECOND, HOUR), Step::Replace);
    // The check may take a refresh interval.
    assert!(!is_overdue(HOUR + REFRESH, REFRESH));
    assert!(is_overdue(HOUR + REFRESH + SECOND, REFRESH + SECOND));
}

#[test]
fn a_wall_clock_jump_makes_a_refresh_due() {
    let set_by = |wall_jump| decide(Event::Tick { wall_jump, since_failure: None }, SECOND);
    assert_eq!(set_by(WALL_JUMP - SECOND), Step::Wait);
    assert_eq!(set_by(WALL_JUMP), Step::LookForOld);
    let again = Event::Tick { wall_jump: WALL_JUMP, since_failure: Some(SECOND) };
    assert_eq!(decide(again, SECOND), Step::Wait);
}

#[test]
fn a_lock_file_has_the_older_of_two_ages() {
    let fake = FakeClock::new();
    let clock = fake.clock();
    let stamp = Stamp::now(&clock);
    fake.advance(10 * MINUTE);
    assert_eq!((stamp.age(&clock), stamp.wall_jump(&clock)), (10 * MINUTE, Duration::ZERO));
    fake.set_wall_by(1800);
    assert_eq!((stamp.age(&clock), stamp.wall_jump(&clock)), (40 * MINUTE, 30 * MINUTE));
    fake.set_wall_by(-7200);
    assert_eq!((stamp.age(&clock), stamp.wall_jump(&clock)), (10 * MINUTE, 90 * MINUTE));
}

/// A locked repository on a fake clock and a scripted store.
struct Bed {
    _dir: tempfile::TempDir,
    clock: FakeClock,
    store: Arc<Scripted>,
    repo: Arc<Repository>,
}

impl Bed {
    fn new() -> Bed {
        let clock = FakeClock::new();
        let (dir, repo) = new_repository(Settings { clock: clock.clock(), ..Settings::default() });
        let mut scripted = None;
        let repo = repo.through(|store| scripted.insert(Scripted::new(store)).clone());
        Bed { _dir: dir, clock, store: scripted.unwrap(), repo: Arc::new(repo) }
    }

    /// A lock that is refreshed when the test says so.
    fn lock(&self) -> (Arc<Mutex<State>>, Refresher) {
        let (id, stamp) = try_acquire(&self.repo, LockMode::Shared, &Progress::silent()).unwrap();
        let state = Arc::new(Mutex::new(State::new(id, stamp)));
        self.repo.holding.set(state.clone());
        let refresher = Refresher::new(self.repo.clone(), LockMode::Shared, state.clone());
        (state, refresher)
    }

    fn acquire(&self) -> Lock {
        Lock::acquire(self.repo.clone(), LockMode::Shared, Duration::ZERO, &Progress::silent()).unwrap()
    }

    /// The lock files in the store.
    fn files(&self) -> Vec<Id> {
        let files = self.store.store.list(FileType::Lock).unwrap();
        files.into_iter().map(|(id, _)| id).collect()
    }

    /// The time stamp of the only lock file.
    fn time(&self) -> i64 {
        let [id] = self.files()[..] else { panic!("{:?}", self.files()) };
        let json = self.repo.load_file(File::new(FileType::Lock, id)).unwrap();
        LockFile::decode(&json).unwrap().time.seconds
    }

    fn remove_all(&self) {
        let store = &self.store.store;
        self.files().into_iter().for_each(|id| store.remove(File::new(FileType::Lock, id)).unwrap());
    }

    fn confirm(&self) -> Result<()> {
        self.repo.confirm_lock()
    }
}

fn is_lost<T>(outcome: Result<T>) -> bool {
    matches!(outcome, Err(Error::LockLost { .. }))
}

#[test]
fn a_refresh_replaces_the_lock_file_by_one_with_the_current_time() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    let first = bed.files();
    bed.clock.advance(4 * MINUTE);
    assert!(refresher.tick().is_continue());
    assert_eq!(bed.files(), first);
    bed.clock.advance(MINUTE);
    let now = bed.clock.clock().now().0;
    assert!(refresher.tick().is_continue());
    assert_ne!(bed.files(), first);
    assert_eq!(bed.time(), now);
    bed.confirm().unwrap();
    assert!(lock(&state).warnings.is_empty());
}

#[test]
fn a_lock_that_was_removed_before_its_refresh_is_lost_and_no_file_is_written() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    bed.remove_all();
    bed.clock.advance(5 * MINUTE);
    assert!(refresher.tick().is_break());
    assert!(bed.files().is_empty());
    assert!(lock(&state).lost.is_some() && is_lost(bed.confirm()));
}

/// The first look succeeds after 14 minutes, the write after another 14, and meanwhile the lock was
/// stale and another process has removed it.
#[test]
fn a_lock_that_was_removed_during_its_slow_refresh_is_lost_and_the_new_file_is_removed() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    let [old] = bed.files()[..] else { panic!("one lock") };
    let (clock, store) = (bed.clock.clone(), bed.store.store.clone());
    let first = AtomicBool::new(true);
    bed.store.play(move |call, _| {
        if call == Call::Size && first.swap(false, Ordering::SeqCst) {
            clock.advance(14 * MINUTE);
        }
        if call == Call::Write {
            clock.advance(14 * MINUTE);
            store.remove(File::new(FileType::Lock, old)).unwrap();
        }
        Fate::Done
    });
    bed.clock.advance(5 * MINUTE);
    assert!(refresher.tick().is_break());
    assert!(lock(&state).lost.is_some() && is_lost(bed.confirm()));
    assert!(bed.files().is_empty());
}

#[test]
fn a_slow_refresh_counts_the_age_of_the_new_lock_from_its_time_stamp() {
    let bed = Bed::new();
    let (_, refresher) = bed.lock();
    let clock = bed.clock.clone();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    bed.store.play(move |call, _| {
        if call == Call::Write && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            clock.advance(14 * MINUTE);
        }
        Fate::Done
    });
    bed.clock.advance(5 * MINUTE);
    assert!(refresher.tick().is_continue());
    assert!(refresher.tick().is_continue());
    assert_eq!(writes.load(Ordering::SeqCst), 2, "the first new file is due for a refresh once it is written");
    assert!(bed.clock.clock().now().0 - bed.time() < 2);
}

#[test]
fn a_refresh_whose_answer_is_lost_leaves_the_old_lock_only() {
    for failing in [Call::Write, Call::Size] {
        let bed = Bed::new();
        let (state, refresher) = bed.lock();
        let old = bed.files();
        let looks = AtomicUsize::new(0);
        bed.store.play(move |call, _| match call {
            Call::Write if failing == Call::Write => Fate::AnswerLost,
            // The second look.
            Call::Size if failing == Call::Size && looks.fetch_add(1, Ordering::SeqCst) == 1 => Fate::Refused,
            _ => Fate::Done,
        });
        bed.clock.advance(5 * MINUTE);
        assert!(refresher.tick().is_continue());
        assert_eq!(bed.files(), old, "{failing:?}");
        bed.confirm().unwrap();
        let warnings = std::mem::take(&mut lock(&state).warnings);
        assert!(warnings.len() == 1 && warnings[0].contains("given up in 1049 s"), "{warnings:?}");
        // The refresh is not retried at once, and succeeds when the store does.
        bed.store.play(|_, _| Fate::Done);
        assert!(refresher.tick().is_continue());
        assert_eq!(bed.files(), old);
        bed.clock.advance(MINUTE);
        assert!(refresher.tick().is_continue());
        assert_ne!(bed.files(), old);
        bed.confirm().unwrap();
    }
}

#[test]
fn a_lock_file_that_cannot_be_removed_is_removed_by_the_next_refresh() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    bed.store.play(|call, _| if call == Call::Remove { Fate::Refused } else { Fate::Done });
    bed.clock.advance(5 * MINUTE);
    assert!(refresher.tick().is_continue());
    assert_eq!(bed.files().len(), 2);
    assert!(lock(&state).warnings[0].contains("could not be removed"));
    bed.store.play(|_, _| Fate::Done);
    bed.clock.advance(5 * MINUTE);
    assert!(refresher.tick().is_continue());
    assert_eq!(bed.files().len(), 1);
    bed.confirm().unwrap();
}

#[test]
fn a_lock_that_cannot_be_refreshed_warns_and_is_given_up() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    let start = bed.clock.clock().moment();
    bed.store.play(|call, _| if call == Call::Write { Fate::Refused } else { Fate::Done });
    while refresher.tick().is_continue() {
        bed.clock.advance(5 * SECOND);
    }
    let given_up_after = bed.clock.clock().moment().since(start);
    assert!((LOST_AFTER..STALE).contains(&given_up_after), "{given_up_after:?}");
    let state = lock(&state);
    assert!(state.lost.as_ref().is_some_and(|lost| lost.contains("the script says so")), "{:?}", state.lost);
    assert!(state.warnings.len() > 10 && state.warnings.iter().all(|warning| warning.contains("the script says so")));
}

#[test]
fn after_a_suspension_a_lock_whose_file_exists_is_still_held() {
    let bed = Bed::new();
    let (_, refresher) = bed.lock();
    bed.clock.advance(HOUR);
    bed.confirm().unwrap();
    assert!(refresher.tick().is_continue());
    assert!(bed.clock.clock().now().0 - bed.time() < 2);
    bed.confirm().unwrap();
    // Another hour passes, and this time another process considers the lock stale.
    bed.clock.advance(HOUR);
    assert_eq!(unlock(&bed.repo, LocksToRemove::Stale).unwrap(), 1);
    assert!(is_lost(bed.confirm()));
    assert!(refresher.tick().is_break());
    assert!(bed.files().is_empty());
}

#[test]
fn after_a_wall_clock_jump_the_lock_file_has_the_right_time() {
    for seconds in [3600, -3600] {
        let bed = Bed::new();
        let (_, refresher) = bed.lock();
        bed.clock.advance(SECOND);
        bed.clock.set_wall_by(seconds);
        assert!(refresher.tick().is_continue());
        assert!((0..2).contains(&(bed.clock.clock().now().0 - bed.time())), "set by {seconds} s");
        bed.confirm().unwrap();
    }
}

#[test]
fn a_confirmation_during_a_refresh_finds_the_new_lock_file() {
    let bed = Bed::new();
    let (_, refresher) = bed.lock();
    bed.clock.advance(5 * MINUTE);
    let first = AtomicBool::new(true);
    bed.store.play(move |call, _| {
        // Between reading the file's name and asking for it: no mutex may be held here.
        if call == Call::Size && first.swap(false, Ordering::SeqCst) {
            assert!(refresher.tick().is_continue());
        }
        Fate::Done
    });
    bed.confirm().unwrap();
    assert_eq!(bed.files().len(), 1);
}

#[test]
fn a_stalled_refresh_delays_no_check_and_the_lock_is_given_up_in_time() {
    let bed = Bed::new();
    let (state, refresher) = bed.lock();
    let (stalls, stalled) = crossbeam_channel::bounded(0);
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let first = AtomicBool::new(true);
    bed.store.play(move |call, _| {
        if call == Call::Size && first.swap(false, Ordering::SeqCst) {
            stalls.send(()).unwrap();
            wait.recv().unwrap();
        }
        Fate::Done
    });
    bed.clock.advance(5 * MINUTE);
    let clock = bed.clock.clock();
    std::thread::scope(|threads| {
        let refreshing = threads.spawn(|| refresher.tick());
        stalled.recv().unwrap();
        bed.confirm().unwrap();
        bed.clock.advance(15 * MINUTE);
        lock(&state).confirm_held(&clock).unwrap();
        bed.clock.advance(3 * MINUTE);
        assert!(is_lost(lock(&state).confirm_held(&clock)));
        assert!(is_lost(bed.confirm()));
        go_on.send(()).unwrap();
        assert!(refreshing.join().unwrap().is_break());
    });
}

#[test]
fn a_release_does_not_wait_for_a_stalled_refresh_which_leaves_no_file() {
    let bed = Bed::new();
    let lock = bed.acquire();
    let (stalls, stalled) = crossbeam_channel::bounded(0);
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let (removes, removed) = crossbeam_channel::unbounded();
    let written = Mutex::new(None);
    bed.store.play(move |call, file| {
        match call {
            Call::Write => {
                *written.lock().unwrap() = Some(file);
                stalls.send(()).unwrap();
                wait.recv().unwrap();
            }
            Call::Remove if *written.lock().unwrap() == Some(file) => removes.send(()).unwrap(),
            Call::Upload | Call::Remove | Call::Size => {}
        }
        Fate::Done
    });
    bed.clock.advance_a_waiting_thread(5 * MINUTE);
    stalled.recv().unwrap();
    std::thread::scope(|threads| {
        let released = threads.spawn(|| lock.release());
        bed.clock.advance_a_waiting_thread(RELEASE_WAIT);
        released.join().unwrap().unwrap();
    });
    assert!(bed.files().is_empty());
    removed.recv().expect("the release removes the file that is being written");
    go_on.send(()).unwrap();
    removed.recv().expect("the refresh removes the file that it wrote");
    // The file is removed after the script has run.
    while !bed.files().is_empty() {
        std::thread::yield_now();
    }
    assert!(is_lost(bed.confirm()), "a released lock is not held");
}

#[test]
fn a_lock_is_refreshed_by_a_thread_until_it_is_released() {
    let bed = Bed::new();
    let lock = bed.acquire();
    let first = bed.files();
    let (removes, removed) = crossbeam_channel::unbounded();
    bed.store.play(move |call, file| {
        if call == Call::Remove {
            removes.send(file.id).unwrap();
        }
        Fate::Done
    });
    bed.clock.advance_a_waiting_thread(6 * MINUTE);
    assert_eq!([removed.recv().unwrap()][..], first[..]);
    lock.check().unwrap();
    bed.confirm().unwrap();
    lock.release().unwrap();
    assert!(bed.files().is_empty());
}

#[test]
fn an_acquisition_whose_answer_is_lost_leaves_no_lock() {
    let bed = Bed::new();
    bed.store.play(|call, _| if call == Call::Write { Fate::AnswerLost } else { Fate::Done });
    let outcome = Lock::acquire(bed.repo.clone(), LockMode::Shared, Duration::ZERO, &Progress::silent());
    assert!(matches!(outcome, Err(Error::Store(_))));
    assert!(bed.files().is_empty());
}

/// The first look is made while the repository is opened, long before the lock may be acquired.
#[test]
fn an_outdated_first_look_neither_misses_nor_causes_a_conflict() {
    let bed = Bed::new();
    let acquire = |mode, first_look| {
        bed.repo.holding.set_first_look(Ok(first_look));
        try_acquire(&bed.repo, mode, &Progress::silent())
    };
    let list = || bed.store.store.list(FileType::Lock).unwrap();
    acquire(LockMode::Exclusive, Vec::new()).unwrap();
    let seen = list();
    assert!(matches!(acquire(LockMode::Shared, Vec::new()), Err(Error::Locked { .. })));
    assert_eq!(list(), seen, "the second look found the conflict, and the new file is removed");
    bed.remove_all();
    acquire(LockMode::Exclusive, seen).unwrap();
}
