//! The wait of a request in its status: which object it waits for, so that a user need not search a
//! log.
//!
//! A wait is recorded when it changes, and only if it lasts: most waits end before a user could
//! read them.

use crate::controller::action::Action;
use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::record::{MOVING, Record, Stage};
use crate::controller::mover_job::observe::{self, State};
use crate::controller::mover_job::status;
use crate::controller::observed::{Common, MoverObjects};
use crate::work::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::time::Duration;

/// Waits that are shorter are not recorded. Claims, snapshots and pods of a healthy cluster take
/// less.
const LASTS: Duration = Duration::from_secs(20);

/// Whether to record a wait.
#[derive(Debug, PartialEq)]
pub enum WaitReport<D: Direction> {
    No,
    /// Decide again after this time.
    Later(Duration),
    Now(Update<D>),
}

/// Decides whether to record a wait that has lasted for `idle`.
pub fn wait<D: Direction>(common: &Common, idle: Duration, why: &str) -> WaitReport<D> {
    let progressing = common.record.progressing.clone().unwrap_or_default();
    let is_started = common.stage() == Stage::Started && !common.is_deleted;
    if let Some(mover) = common.record.mover.as_ref().filter(|_| is_started && is_running(&common.mover)) {
        // A running mover is not a wait, and ends one.
        let is_recorded = progressing.reason == MOVING;
        return if is_recorded { WaitReport::No } else { WaitReport::Now(Update::Moving(mover.clone())) };
    }
    if is_same(&progressing.message, why) {
        return WaitReport::No;
    }
    match LASTS.checked_sub(idle) {
        Some(left) if !left.is_zero() => WaitReport::Later(left),
        _ => WaitReport::Now(Update::Waiting { reason: Reason::Waiting, message: why.to_owned() }),
    }
}

/// The update after the apiserver denied an action. An admitted request whose mover never ran fails
/// after `limit`: others are queued behind it.
pub fn forbidden<D: Direction>(record: &Record, limit: Duration, now: &Time, why: &str) -> Option<Update<D>> {
    let admitted_for = record.started.as_ref().map(|start| elapsed(start, now));
    let is_late = admitted_for.is_some_and(|admitted| admitted > limit);
    if record.stage == Stage::Started && record.mover.is_none() && is_late {
        return Some(Update::failed(Reason::Forbidden, why));
    }
    let is_recorded =
        record.progressing.as_ref().is_some_and(|it| it.is(Reason::Forbidden) && is_same(&it.message, why));
    (!is_recorded).then(|| Update::Waiting { reason: Reason::Forbidden, message: why.to_owned() })
}

/// The update before the finalizer of a request that has ended is removed, if a wait is recorded.
pub fn settle<D: Direction>(common: &Common, action: &Action<D>) -> Option<Update<D>> {
    let has_ended = matches!(common.stage(), Stage::Ended(_)) && !common.is_deleted;
    let progressing = common.record.progressing.as_ref();
    let waits = progressing.is_some_and(|it| it.is(Reason::Waiting) || it.is(Reason::Forbidden));
    (has_ended && waits && matches!(action, Action::RemoveFinalizer)).then_some(Update::Settled)
}

/// The time since the last known event of a request or its mover.
pub fn idle(meta: &ObjectMeta, record: &Record, mover: &MoverObjects, now: &Time) -> Duration {
    let recorded = [record.progressed.as_ref(), record.started.as_ref(), record.finished.as_ref()];
    let jobs = mover.job.iter().map(|job| &job.metadata);
    let metas = jobs.chain(mover.pods.iter().map(|pod| &pod.metadata)).chain([meta]);
    let created = metas.flat_map(|meta| [meta.creation_timestamp.as_ref(), meta.deletion_timestamp.as_ref()]);
    let ended = mover.pods.iter().map(status::ended_at);
    recorded.into_iter().chain(created).chain(ended).flatten().max().map(|last| elapsed(last, now)).unwrap_or_default()
}

fn elapsed(since: &Time, now: &Time) -> Duration {
    now.0.duration_since(since.0).try_into().unwrap_or_default()
}

fn is_running(mover: &MoverObjects) -> bool {
    let state = mover.job.as_ref().map(|job| observe::state(job, &mover.pods));
    matches!(state, Some(State::Running { .. }))
}

/// Whether two messages differ only in words with digits: a scheduler counts nodes, a driver its
/// retries.
fn is_same(one: &str, other: &str) -> bool {
    let words = |text: &str| {
        let plain = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        plain.map(str::to_owned).collect::<Vec<_>>()
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::record::{End, MoverProgress, Progressing};
    use crate::controller::testing::{Plain, epoch, object};
    use k8s_openapi::jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(seconds: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds))
    }

    fn waiting(why: &str) -> WaitReport<Plain> {
        WaitReport::Now(Update::Waiting { reason: Reason::Waiting, message: why.into() })
    }

    fn progressing(reason: &str, message: &str) -> Option<Progressing> {
        Some(Progressing { reason: reason.into(), message: message.into() })
    }

    fn common(stage: Stage, said: Option<Progressing>) -> Common {
        Common { record: Record { stage, progressing: said, ..Record::default() }, ..Common::default() }
    }

    #[test]
    fn a_wait_that_lasts_is_recorded_once() {
        let why = "0/3 nodes are available: 3 Insufficient cpu";
        let preparing = common(Stage::Started, progressing("Preparing", "the volume is being prepared"));
        assert_eq!(wait::<Plain>(&preparing, seconds(5), why), WaitReport::Later(seconds(15)));
        assert_eq!(wait(&preparing, seconds(20), why), waiting(why));
        let recorded = common(Stage::Started, progressing("Waiting", why));
        assert_eq!(wait::<Plain>(&recorded, seconds(90), why), WaitReport::No);
        let other = "0/4 nodes are available: 4 Insufficient cpu";
        assert_eq!(wait::<Plain>(&recorded, seconds(90), other), WaitReport::No, "numbers change often");
        let memory = "0/4 nodes are available: 4 Insufficient memory";
        assert_eq!(wait(&recorded, seconds(90), memory), waiting(memory));
        assert_eq!(wait(&common(Stage::Started, None), seconds(90), why), waiting(why));
    }

    /// The queue itself is recorded by [`Update::Queued`].
    #[test]
    fn a_queued_request_records_no_wait() {
        let queued = common(Stage::Queued, progressing("Queued", "queued: other requests fill the limit"));
        let why = "queued: other requests fill the limit";
        assert_eq!(wait::<Plain>(&queued, seconds(9999), why), WaitReport::No);
    }

    #[test]
    fn a_running_mover_is_not_a_wait_and_ends_one() {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j-1", "controller": true});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "j-1"}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "ownerReferences": [owner]},
            "status": {"phase": "Running"},
        });
        let mover = MoverObjects { job: Some(object(job)), pods: vec![object(pod)], ..MoverObjects::default() };
        let moving = MoverProgress { pod: "p".into(), ..MoverProgress::default() };
        let seen = |stage, said| {
            let mut common = common(stage, said);
            (common.mover, common.record.mover) = (mover.clone(), Some(moving.clone()));
            common
        };
        let recorded = seen(Stage::Started, progressing(MOVING, "the mover p runs"));
        assert_eq!(wait::<Plain>(&recorded, seconds(9999), "the mover runs"), WaitReport::No);
        let refused = seen(Stage::Started, progressing("Forbidden", "pods is forbidden"));
        assert_eq!(
            wait::<Plain>(&refused, seconds(0), "the mover runs"),
            WaitReport::Now(Update::Moving(moving.clone()))
        );
        // The request waits for a mover that is being stopped.
        let said = progressing("WrongPassword", "no key opens");
        let deleted = Common { is_deleted: true, ..seen(Stage::Started, said.clone()) };
        for stopping in [deleted, seen(Stage::Ended(End::Failed), said)] {
            let why = "waiting for the mover to stop";
            assert_eq!(wait(&stopping, seconds(60), why), waiting(why));
        }
    }

    #[test]
    fn a_denied_action_is_recorded_at_once_and_fails_after_the_limit() {
        let why = "jobs.batch is forbidden: User \"vsm\" cannot create resource \"jobs\"";
        let limit = seconds(1800);
        let record =
            |said| Record { stage: Stage::Started, started: Some(epoch()), progressing: said, ..Record::default() };
        let next = |record: &Record, now| forbidden::<Plain>(record, limit, &after(now), why);
        let wait = Some(Update::Waiting { reason: Reason::Forbidden, message: why.into() });
        assert_eq!(next(&record(progressing("Preparing", "…")), 1), wait);
        let recorded = record(progressing("Forbidden", why));
        assert_eq!(next(&recorded, 1800), None);
        assert_eq!(next(&recorded, 1801), Some(Update::failed(Reason::Forbidden, why)));
        // A mover that ran may have done its work.
        let ran = Record { mover: Some(MoverProgress::default()), ..recorded.clone() };
        assert_eq!(next(&ran, 9999), None);
        let moved = Record { stage: Stage::Moved, ..recorded };
        assert_eq!(next(&moved, 9999), None, "from here on it must not fail");
        assert_eq!(next(&Record::default(), 9999), wait);
    }

    #[test]
    fn a_request_that_has_ended_waits_for_nothing() {
        let ended = |said| common(Stage::Ended(End::Failed), said);
        let mut waits = ended(progressing("Waiting", "waiting for the mover to stop"));
        assert_eq!(settle::<Plain>(&waits, &Action::RemoveFinalizer), Some(Update::Settled));
        assert_eq!(settle::<Plain>(&waits, &Action::Nothing), None);
        assert_eq!(settle::<Plain>(&ended(progressing("WrongPassword", "…")), &Action::RemoveFinalizer), None);
        waits.is_deleted = true;
        assert_eq!(settle::<Plain>(&waits, &Action::RemoveFinalizer), None, "no client will read it");
    }

    #[test]
    fn idle_time_counts_from_the_last_event() {
        let mut meta = ObjectMeta { creation_timestamp: Some(epoch()), ..ObjectMeta::default() };
        let (mut record, mut mover) = (Record::default(), MoverObjects::default());
        assert_eq!(idle(&meta, &record, &mover, &after(100)), seconds(100));
        record.started = Some(after(40));
        assert_eq!(idle(&meta, &record, &mover, &after(100)), seconds(60));
        mover.pods = vec![object(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": after(50)},
            "status": {"containerStatuses": [{
                "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
                "state": {"terminated": {"exitCode": 0, "finishedAt": after(65)}},
            }]},
        }))];
        assert_eq!(idle(&meta, &record, &mover, &after(100)), seconds(35));
        record.finished = Some(after(70));
        assert_eq!(idle(&meta, &record, &mover, &after(100)), seconds(30));
        meta.deletion_timestamp = Some(after(90));
        assert_eq!(idle(&meta, &record, &mover, &after(100)), seconds(10));
        assert_eq!(idle(&meta, &record, &mover, &after(80)), seconds(0), "clocks differ");
        let nothing = (ObjectMeta::default(), Record::default(), MoverObjects::default());
        assert_eq!(idle(&nothing.0, &nothing.1, &nothing.2, &after(80)), seconds(0));
    }
}
