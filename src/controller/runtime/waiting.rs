//! What keeps a request from getting on stands in its status, so that nobody has to look for it in a log.
//!
//! It is written when it changes and at no other time, and only if it lasts: most waits are over before anybody could read of them.

use crate::api::MoveStatus;
use crate::controller::domain::flow::{Act, Common, Mover, Stage, Update};
use crate::controller::mover_job::job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::time::Duration;

/// After so long nothing has happened a wait is worth a word. Claims, snapshots and pods of a healthy cluster are quicker.
const LASTS: Duration = Duration::from_secs(20);

/// The reasons of what is said here.
const WAITING: &str = "Waiting";
const FORBIDDEN: &str = "Forbidden";
/// The reason of a mover that gets on.
pub const MOVING: &str = "Moving";

/// What a request says of how it gets on: a reason and a message.
pub type Said<'s> = Option<(&'s str, &'s str)>;

/// Whether something is to be said.
#[derive(Debug, PartialEq)]
pub enum Word<U> {
    No,
    /// Not before this time has passed.
    Later(Duration),
    Say(U),
}

/// What is to be said when others have to do something first.
pub fn wait<S, D>(seen: &Common, said: Said<'_>, quiet: Duration, why: &str) -> Word<Update<S, D>> {
    let (reason, message) = said.unwrap_or_default();
    let at_work = seen.stage == Stage::Started && !seen.deleted && runs(seen);
    if let Some(moving) = seen.recorded.as_ref().filter(|_| at_work) {
        // That is no wait, and what was one is over.
        return if reason == MOVING { Word::No } else { Word::Say(Update::Moving(moving.clone())) };
    }
    if same(message, why) {
        return Word::No;
    }
    match LASTS.checked_sub(quiet) {
        Some(left) if !left.is_zero() => Word::Later(left),
        _ => Word::Say(Update::Waiting { reason: WAITING, why: why.to_owned() }),
    }
}

/// What is to be said when the apiserver refused something, in its words. What has its turn and of which no mover was seen to run has
/// failed after `limit`: others wait for its end.
pub fn refused<S, D>(
    status: &MoveStatus,
    said: Said<'_>,
    stage: Stage,
    limit: Duration,
    now: &Time,
    why: &str,
) -> Option<Update<S, D>> {
    let started = status.start_timestamp.as_ref().map(|start| elapsed(start, now));
    if stage == Stage::Started && status.mover_pod.is_none() && started.is_some_and(|started| started > limit) {
        return Some(Update::Failed { reason: FORBIDDEN.into(), message: why.to_owned() });
    }
    let (reason, message) = said.unwrap_or_default();
    (reason != FORBIDDEN || !same(message, why)).then(|| Update::Waiting { reason: FORBIDDEN, why: why.to_owned() })
}

/// What is to be said before something else is done: when a request is let go that came to its end, nothing keeps it any more.
pub fn settle<S, D>(seen: &Common, said: Said<'_>, act: &Act<Update<S, D>>) -> Option<Update<S, D>> {
    let ended = matches!(seen.stage, Stage::Ended { .. }) && !seen.deleted;
    let waits = said.is_some_and(|(reason, _)| matches!(reason, WAITING | FORBIDDEN));
    (ended && waits && matches!(act, Act::RemoveFinalizer)).then_some(Update::Settled)
}

/// How long ago the last thing happened that the object or its mover knows of.
pub fn quiet(meta: &ObjectMeta, status: &MoveStatus, mover: &Mover, now: &Time) -> Duration {
    let progress = status.progress.as_ref().and_then(|progress| progress.updated.as_ref());
    let recorded = [progress, status.start_timestamp.as_ref(), status.completion_timestamp.as_ref()];
    let jobs = mover.job.iter().map(|job| &job.metadata);
    let metas = jobs.chain(mover.pods.iter().map(|pod| &pod.metadata)).chain([meta]);
    let made = metas.flat_map(|meta| [meta.creation_timestamp.as_ref(), meta.deletion_timestamp.as_ref()]);
    let ended = mover.pods.iter().map(job::ended_at);
    recorded.into_iter().chain(made).chain(ended).flatten().max().map(|last| elapsed(last, now)).unwrap_or_default()
}

fn elapsed(since: &Time, now: &Time) -> Duration {
    now.0.duration_since(since.0).try_into().unwrap_or_default()
}

/// Whether a mover is at work.
fn runs(seen: &Common) -> bool {
    let state = seen.mover.job.as_ref().map(|job| job::observe(job, &seen.mover.pods));
    matches!(state, Some(job::State::Running { .. }))
}

/// Whether two messages say the same, but for words with figures in them: a scheduler counts nodes, and a driver its tries.
fn same(one: &str, other: &str) -> bool {
    let words = |text: &str| {
        let plain = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        plain.map(str::to_owned).collect::<Vec<_>>()
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::flow::Moving;
    use crate::controller::testing::{epoch, object};
    use k8s_openapi::jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    type Plain = Update<(), ()>;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(seconds: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds))
    }

    fn waiting(why: &str) -> Word<Plain> {
        Word::Say(Update::Waiting { reason: WAITING, why: why.into() })
    }

    #[test]
    fn a_wait_that_lasts_is_said_once() {
        let seen = Common { stage: Stage::Started, ..Common::default() };
        let why = "0/3 nodes are available: 3 Insufficient cpu";
        let preparing = Some(("Preparing", "the volume is being prepared"));
        assert_eq!(wait::<(), ()>(&seen, preparing, seconds(5), why), Word::Later(seconds(15)));
        assert_eq!(wait(&seen, preparing, seconds(20), why), waiting(why));
        assert_eq!(wait::<(), ()>(&seen, Some((WAITING, why)), seconds(90), why), Word::No);
        let other = "0/4 nodes are available: 4 Insufficient cpu";
        assert_eq!(wait::<(), ()>(&seen, Some((WAITING, why)), seconds(90), other), Word::No, "figures come and go");
        let memory = "0/4 nodes are available: 4 Insufficient memory";
        assert_eq!(wait(&seen, Some((WAITING, why)), seconds(90), memory), waiting(memory));
        // Nothing was said yet.
        assert_eq!(wait(&seen, None, seconds(90), why), waiting(why));
    }

    /// Its place in the queue was recorded when it was queued.
    #[test]
    fn a_queue_is_no_news() {
        let seen = Common { stage: Stage::Queued, ..Common::default() };
        let queued = Some(("Queued", "waiting for its turn"));
        assert_eq!(wait::<(), ()>(&seen, queued, seconds(9999), "waiting for its turn"), Word::No);
    }

    #[test]
    fn a_mover_at_work_is_no_wait_and_ends_one() {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j-1", "controller": true});
        let mover = Mover {
            job: Some(object(
                json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "j-1"}}),
            )),
            pods: vec![object(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "ownerReferences": [owner]}, "status": {"phase": "Running"},
            }))],
            ..Mover::default()
        };
        let moving = Moving { pod: "p".into(), ..Moving::default() };
        let seen = Common { stage: Stage::Started, mover, recorded: Some(moving.clone()), ..Common::default() };
        let runs = "the mover runs";
        assert_eq!(wait::<(), ()>(&seen, Some((MOVING, "the mover p runs")), seconds(9999), runs), Word::No);
        let resumed = Word::Say(Plain::Moving(moving));
        assert_eq!(wait(&seen, Some((FORBIDDEN, "pods is forbidden")), seconds(0), runs), resumed);
        // One that is to stop is waited for.
        for stopping in [
            Common { deleted: true, ..seen.clone() },
            Common { stage: Stage::Ended { completed: false }, ..seen.clone() },
        ] {
            let why = "waiting for the mover to stop";
            assert_eq!(wait(&stopping, Some(("WrongPassword", "no key opens")), seconds(60), why), waiting(why));
        }
    }

    #[test]
    fn what_the_apiserver_refuses_is_said_at_once_and_fails_when_nothing_ran_for_long() {
        let why = "jobs.batch is forbidden: User \"vsm\" cannot create resource \"jobs\"";
        let limit = seconds(1800);
        let started = MoveStatus { start_timestamp: Some(epoch()), ..MoveStatus::default() };
        let refused =
            |status: &MoveStatus, said, stage, now| refused::<(), ()>(status, said, stage, limit, &after(now), why);
        let say = Some(Plain::Waiting { reason: FORBIDDEN, why: why.into() });
        assert_eq!(refused(&started, Some(("Preparing", "…")), Stage::Started, 1), say);
        assert_eq!(refused(&started, Some((FORBIDDEN, why)), Stage::Started, 1800), None);
        let failed = Some(Plain::Failed { reason: FORBIDDEN.into(), message: why.into() });
        assert_eq!(refused(&started, Some((FORBIDDEN, why)), Stage::Started, 1801), failed);
        // A mover that ran may have done all of it.
        let ran = MoveStatus { mover_pod: Some("p".into()), ..started.clone() };
        assert_eq!(refused(&ran, Some((FORBIDDEN, why)), Stage::Started, 9999), None);
        assert_eq!(
            refused(&started, Some((FORBIDDEN, why)), Stage::Moved, 9999),
            None,
            "from here on it only ends well"
        );
        assert_eq!(refused(&MoveStatus::default(), None, Stage::New, 9999), say);
    }

    #[test]
    fn what_is_let_go_waits_for_nothing() {
        let mut seen = Common { stage: Stage::Ended { completed: false }, ..Common::default() };
        let waits = Some((WAITING, "waiting for the mover to stop"));
        assert_eq!(settle::<(), ()>(&seen, waits, &Act::RemoveFinalizer), Some(Update::Settled));
        assert_eq!(settle::<(), ()>(&seen, waits, &Act::Nothing), None);
        assert_eq!(settle::<(), ()>(&seen, Some(("WrongPassword", "…")), &Act::RemoveFinalizer), None);
        seen.deleted = true;
        assert_eq!(settle::<(), ()>(&seen, waits, &Act::RemoveFinalizer), None, "nobody will read it");
    }

    #[test]
    fn the_last_thing_that_happened_counts() {
        let mut meta = ObjectMeta { creation_timestamp: Some(epoch()), ..ObjectMeta::default() };
        let (mut status, mut mover) = (MoveStatus::default(), Mover::default());
        assert_eq!(quiet(&meta, &status, &mover, &after(100)), seconds(100));
        status.start_timestamp = Some(after(40));
        assert_eq!(quiet(&meta, &status, &mover, &after(100)), seconds(60));
        mover.pods = vec![object(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": after(50)},
            "status": {"containerStatuses": [{
                "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
                "state": {"terminated": {"exitCode": 0, "finishedAt": after(65)}},
            }]},
        }))];
        assert_eq!(quiet(&meta, &status, &mover, &after(100)), seconds(35));
        status.completion_timestamp = Some(after(70));
        assert_eq!(quiet(&meta, &status, &mover, &after(100)), seconds(30));
        meta.deletion_timestamp = Some(after(90));
        assert_eq!(quiet(&meta, &status, &mover, &after(100)), seconds(10));
        assert_eq!(quiet(&meta, &status, &mover, &after(80)), seconds(0), "clocks differ");
        let nothing = (ObjectMeta::default(), MoveStatus::default(), Mover::default());
        assert_eq!(quiet(&nothing.0, &nothing.1, &nothing.2, &after(80)), seconds(0));
    }
}
