//! How helpers are brought to life and taken down again. Each function says the one thing to be done next.

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::domain::flow::{
    Act, Common, Config, ContentChange, Helper, Instead, Mover, Moving, Object, Stage, Update, failed, status,
};
use crate::controller::domain::names::Subject;
use crate::controller::mover_job::job::{self, Direction, State, Wanted};
use crate::controller::volumes::rebind;
use crate::controller::volumes::snapshot_to_claim;
use crate::work::{Discard, Outcome, Report, Task, Work};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a mover is to do, and with what.
pub struct Order {
    pub work: Work,
    pub secrets: BTreeMap<String, ByteString>,
}

/// What a mover was told that is there already: from then on nothing else is asked what it is to do. Whoever made the request may
/// take its parts away meanwhile.
pub fn order(mover: &Mover) -> Option<Result<Order, String>> {
    let (secret, described) = (mover.secret.as_ref()?, mover.config_map.as_ref()?);
    let secrets = secret.data.clone().unwrap_or_default();
    Some(job::described(described).map(|work| Order { work, secrets }))
}

/// How often a mover is run anew that ended without a word. It finds what its predecessors did.
const RERUNS: u32 = 2;

/// On a mover's description and its Job: which run of it this is.
const RUN_ANNOTATION: &str = "datamover.oadp.openshift.io/run";

fn number_of_run(meta: &ObjectMeta) -> u32 {
    let number = meta.annotations.as_ref().and_then(|all| all.get(RUN_ANNOTATION));
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Brings a mover to life and tells how far it is. `Err` is what is to be done before that can be told. A mover that ended
/// without a word is run again: [`State::Lost`] is the end only after the last run.
pub fn run<S>(mut wanted: Wanted<'_>, there: &Mover) -> Result<State, Box<Act<S>>> {
    let create = |object| Err(Box::new(Act::Create(object)));
    let state = there.job.as_ref().map(|job| job::observe(job, &there.pods));
    let before = there.config_map.as_ref();
    let mut number = before.map_or(0, |before| number_of_run(&before.metadata));
    let current = |number| there.job.as_ref().is_some_and(|job| number_of_run(&job.metadata) == number);
    let again = matches!(state, Some(State::Lost { .. })) && current(number) && number < RERUNS;
    number += u32::from(again);
    wanted.naming.annotations.insert(RUN_ANNOTATION.to_owned(), number.to_string());
    // A pod that is to come must know which of its predecessors are gone.
    wanted
        .work
        .gone
        .extend(before.and_then(|before| job::described(before).ok()).map(|work| work.gone).unwrap_or_default());
    wanted.work.gone.extend(there.job.as_ref().map(|job| job::gone(job, &there.pods)).unwrap_or_default());
    wanted.work.gone.sort();
    wanted.work.gone.dedup();
    if there.secret.is_none() {
        return create(Object::Secret(Box::new(wanted.secret())));
    }
    let described = wanted.config_map();
    // Nobody will read what is written after the last pod.
    let readers = again || !there.job.as_ref().is_some_and(job::is_finished);
    match before {
        None => return create(Object::ConfigMap(Box::new(described))),
        Some(before) if !readers && number_of_run(&before.metadata) == number => {}
        Some(before) if before.data != described.data || number_of_run(&before.metadata) != number => {
            return Err(Box::new(Act::Rewrite(Box::new(described))));
        }
        Some(_) => {}
    }
    match state {
        None if there.pods.is_empty() => create(Object::Job(Box::new(wanted.job()))),
        Some(state) if current(number) => Ok(state),
        _ => Err(Box::new(
            remove_job(there, &wanted.naming.name).unwrap_or(Act::Wait("waiting for a pod to be gone".into())),
        )),
    }
}

/// Asks a mover to stop, and waits until it has. `None`: nothing of it runs.
pub fn stop_running<S>(mover: &Mover, name: &str) -> Option<Act<S>> {
    let running = mover.job.as_ref().filter(|job| !job::is_finished(job));
    if running.is_some_and(|job| job.metadata.deletion_timestamp.is_none()) {
        return Some(Act::Delete { helper: Helper::Job, name: name.to_owned() });
    }
    let ended = |pod: &Pod| job::has_ended(pod) || never_ran(pod);
    (!mover.pods.iter().all(ended)).then(|| Act::Wait("waiting for the mover to stop".into()))
}

/// Takes down a Job and its pods: they are stopped, and only then let go. `None`: nothing is left of them.
fn remove_job<S>(mover: &Mover, name: &str) -> Option<Act<S>> {
    let kept =
        |meta: &ObjectMeta| meta.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == job::FINALIZER));
    if mover.job.as_ref().is_some_and(|job| job.metadata.deletion_timestamp.is_none()) {
        return Some(Act::Delete { helper: Helper::Job, name: name.to_owned() });
    }
    if let Some(act) = stop_running(mover, name) {
        return Some(act);
    }
    if mover.job.as_ref().is_some_and(|job| kept(&job.metadata)) || mover.pods.iter().any(|pod| kept(&pod.metadata)) {
        return Some(Act::Release { name: name.to_owned() });
    }
    (mover.job.is_some() || !mover.pods.is_empty()).then(|| Act::Wait("waiting for the mover's Job to be gone".into()))
}

/// Takes down a mover: its Job and pods, and then what they used. `None`: nothing is left.
pub fn stop<S>(mover: &Mover, subject: &Subject, name: &str) -> Option<Act<S>> {
    remove_job(mover, name)
        .or_else(|| delete_one(mover.secret.as_ref().map(|it| &it.metadata), Helper::Secret, subject, name))
        .or_else(|| delete_one(mover.config_map.as_ref().map(|it| &it.metadata), Helper::ConfigMap, subject, name))
}

/// Whether a pod that is to go has no container that ran: no kubelet may have been given it, and nobody will report its end.
fn never_ran(pod: &Pod) -> bool {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    pod.metadata.deletion_timestamp.is_some() && !assigned
}

/// Takes down what [`snapshot_to_claim`] made, backwards. `None`: nothing is left.
pub fn withdraw<S>(seen: &snapshot_to_claim::Seen, subject: &Subject) -> Option<Act<S>> {
    remove_claim(seen.claim.as_ref(), seen.volume.as_ref(), subject)
        .or_else(|| remove_snapshot(seen.snapshot.as_ref(), subject))
        .or_else(|| remove_content(seen.content.as_ref(), subject))
}

/// Takes down a claim, and its volume with it.
pub fn remove_claim<S>(
    claim: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
    subject: &Subject,
) -> Option<Act<S>> {
    let act = delete_one(claim.map(|it| &it.metadata), Helper::Claim, subject, &subject.object_name())?;
    // A class may say that volumes outlive their claims: this one would be nobody's for ever.
    let kept =
        volume.filter(|volume| claim.is_some_and(|claim| rebind::is_of(volume, claim)) && rebind::is_kept(volume));
    Some(match kept {
        Some(volume) => Act::Volume { name: volume.name_any(), change: rebind::Change::Free },
        None => act,
    })
}

pub fn remove_snapshot<S>(snapshot: Option<&VolumeSnapshot>, subject: &Subject) -> Option<Act<S>> {
    delete_one(snapshot.map(|it| &it.metadata), Helper::Snapshot, subject, &subject.object_name())
}

/// Takes down a content whose snapshot is gone.
fn remove_content<S>(content: Option<&VolumeSnapshotContent>, subject: &Subject) -> Option<Act<S>> {
    let name = subject.object_name();
    let act = delete_one(content.map(|it| &it.metadata), Helper::Content, subject, &name)?;
    let forgotten = content.is_some_and(snapshot_to_claim::is_forgotten);
    Some(if forgotten { Act::Content { name, change: ContentChange::LetGo } } else { act })
}

fn delete_one<S>(meta: Option<&ObjectMeta>, helper: Helper, subject: &Subject, name: &str) -> Option<Act<S>> {
    // What has the name and is not ours stays.
    let meta = meta.filter(|meta| meta.labels.as_ref().is_some_and(|labels| subject.owns(labels)))?;
    Some(match meta.deletion_timestamp {
        None => Act::Delete { helper, name: name.to_owned() },
        Some(_) => Act::Wait(format!("waiting for the {helper:?} {name} to be gone")),
    })
}

/// Whether the repository is rid of what a mover left that did not come to its end.
enum Tidied<S> {
    /// There is nothing, or nothing any more.
    Yes,
    /// This is to be done before.
    Not(Box<Act<S>>),
    /// It cannot be; why.
    Failed(String),
}

/// Why a lock or a snapshot of what ended early stays in its repository, if it does: nobody will remove it.
pub fn untidied<S>(subject: &Subject, seen: &Common, config: &Config) -> Option<String> {
    match tidy::<S>(subject, seen, config) {
        Tidied::Failed(why) => Some(why),
        Tidied::Yes | Tidied::Not(_) => None,
    }
}

/// Locks of movers that ended without a word go. A snapshot goes only if the backup was called off: one of a backup that failed may
/// be all there is.
fn tidy<S>(subject: &Subject, seen: &Common, config: &Config) -> Tidied<S> {
    let (Some(job), Some(order)) = (&seen.mover.job, order(&seen.mover)) else { return Tidied::Yes };
    let called_off = seen.deleted && seen.stage < Stage::Moved;
    let identity = subject.identity().filter(|_| called_off);
    let left = job::left(job, &seen.mover.pods);
    if seen.stage == (Stage::Ended { completed: true }) || !(left.unknown || identity.is_some() && left.snapshot) {
        return Tidied::Yes;
    }
    let Order { mut work, secrets } = match order {
        Ok(order) => order,
        Err(why) => return Tidied::Failed(why),
    };
    work.task = Task::Discard(Discard { identity });
    work.gone.extend(job::gone(job, &seen.mover.pods));
    let wanted = Wanted {
        naming: subject.naming(cleaner(subject), &config.namespace),
        direction: Direction::None,
        claim: None,
        block: false,
        work,
        secrets,
        settings: &config.mover,
    };
    let wait = |why: String| Tidied::Not(Box::new(Act::Wait(why)));
    match run(wanted, &seen.cleaner) {
        Err(act) => Tidied::Not(act),
        Ok(State::Waiting { why }) => wait(why),
        Ok(State::Running { .. }) => wait("waiting for the repository to be tidied".into()),
        Ok(State::Lost { why }) => Tidied::Failed(why),
        Ok(State::Reported { report, .. }) => match report.outcome {
            Outcome::Discarded { .. } => Tidied::Yes,
            other => Tidied::Failed(format!("{other:?}")),
        },
    }
}

/// The name of the mover that tidies up.
pub fn cleaner(subject: &Subject) -> String {
    format!("{}-tidy", subject.object_name())
}

/// Takes down both movers, the cleaner last: as long as there is the one, the other is seen to have done its work.
pub fn stop_all<S>(seen: &Common, subject: &Subject) -> Option<Act<S>> {
    stop(&seen.mover, subject, &subject.object_name()).or_else(|| stop(&seen.cleaner, subject, &cleaner(subject)))
}

/// The end of every flow: the mover is stopped, its repository tidied, all helpers removed, and the object let go.
pub fn end<S>(subject: &Subject, seen: &Common, config: &Config, take_down: impl FnOnce() -> Option<Act<S>>) -> Act<S> {
    if let Some(act) = stop_running(&seen.mover, &subject.object_name()) {
        return act;
    }
    match tidy(subject, seen, config) {
        Tidied::Not(act) => return *act,
        Tidied::Yes | Tidied::Failed(_) => {}
    }
    match take_down() {
        Some(act) => act,
        None if seen.finalizer => Act::RemoveFinalizer,
        None => Act::Nothing,
    }
}

/// A mover that is followed: what is to be done as long as it has not reported, or what it reported and its pod.
pub fn follow<S, D>(wanted: Wanted<'_>, seen: &Common, config: &Config) -> Result<(Report, String), Instead<S, D>> {
    match run(wanted, &seen.mover)? {
        State::Waiting { why } => Err(Box::new(wait(seen, config.prepare, why))),
        State::Running { pod } => {
            let moving = Moving { pod, progress: seen.progress.clone().unwrap_or_default() };
            if seen.recorded.as_ref().is_some_and(|recorded| recorded.says(&moving)) {
                return Err(Box::new(Act::Wait("the mover runs".into())));
            }
            Err(Box::new(status(Update::Moving(moving))))
        }
        State::Lost { why } => Err(Box::new(failed("MoverLost", why))),
        State::Reported { report, pod } => Ok((*report, pod)),
    }
}

/// Waits for somebody else, but not for ever.
pub fn wait<S, D>(seen: &Common, limit: Duration, why: String) -> Act<Update<S, D>> {
    if seen.quiet_for.is_some_and(|quiet| quiet > limit) {
        return failed("NotPrepared", format!("{why}; that took longer than {} s", limit.as_secs()));
    }
    Act::Wait(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{from_value, json};

    fn subject() -> Subject {
        let kind = crate::controller::domain::names::Kind::Backup;
        Subject { kind, namespace: "a".into(), name: "b".into(), uid: "1".into() }
    }

    fn owned() -> ObjectMeta {
        subject().naming("n".into(), "adp").meta()
    }

    fn meta(finalizers: &[&str], deleted: bool) -> serde_json::Value {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        json!({"name": "n", "finalizers": finalizers, "deletionTimestamp": deleted})
    }

    fn mover(job: Option<(&[&str], bool)>, pod: Option<(&str, &[&str])>) -> Mover {
        let job = job.map(|(finalizers, deleted)| {
            from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta(finalizers, deleted)})).unwrap()
        });
        let pods = pod.into_iter().map(|(phase, finalizers)| {
            let spec = json!({"containers": [], "nodeName": "node"});
            let status = json!({"phase": phase});
            from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(finalizers, true), "spec": spec, "status": status})).unwrap()
        });
        Mover { job, pods: pods.collect(), ..Mover::default() }
    }

    #[test]
    fn a_mover_is_asked_waited_for_released_and_only_then_its_secret_goes() {
        let step = |mover: &Mover| stop::<()>(mover, &subject(), "n");
        let kept: &[&str] = &[job::FINALIZER];
        assert_eq!(
            step(&mover(Some((kept, false)), Some(("Running", kept)))),
            Some(Act::Delete { helper: Helper::Job, name: "n".into() })
        );
        assert!(matches!(step(&mover(Some((kept, true)), Some(("Running", kept)))), Some(Act::Wait(_))));
        assert_eq!(step(&mover(Some((kept, true)), Some(("Failed", kept)))), Some(Act::Release { name: "n".into() }));
        assert!(matches!(step(&mover(Some((&[], true)), Some(("Failed", &[])))), Some(Act::Wait(_))));
        // A Job that somebody else deleted leaves its pods.
        assert_eq!(step(&mover(None, Some(("Failed", kept)))), Some(Act::Release { name: "n".into() }));
        let mut rest = mover(None, None);
        rest.secret = Some(Secret { metadata: owned(), ..Secret::default() });
        assert_eq!(step(&rest), Some(Act::Delete { helper: Helper::Secret, name: "n".into() }));
        assert_eq!(step(&mover(None, None)), None);
    }

    #[test]
    fn a_pod_that_no_node_has_is_not_waited_for() {
        let mut mover = mover(Some((&[job::FINALIZER], true)), Some(("Pending", &[job::FINALIZER])));
        assert!(matches!(stop::<()>(&mover, &subject(), "n"), Some(Act::Wait(_))));
        mover.pods[0].spec.as_mut().unwrap().node_name = None;
        assert_eq!(stop::<()>(&mover, &subject(), "n"), Some(Act::Release { name: "n".into() }));
    }

    #[test]
    fn what_was_exposed_goes_backwards() {
        let mut seen = snapshot_to_claim::Seen {
            content: Some(VolumeSnapshotContent { metadata: owned(), ..VolumeSnapshotContent::default() }),
            snapshot: Some(VolumeSnapshot { metadata: owned(), ..VolumeSnapshot::default() }),
            claim: Some(PersistentVolumeClaim { metadata: owned(), ..PersistentVolumeClaim::default() }),
            volume: None,
        };
        let deleted = |seen: &snapshot_to_claim::Seen| match withdraw::<()>(seen, &subject()) {
            Some(Act::Delete { helper, .. }) => Some(helper),
            _ => None,
        };
        assert_eq!(deleted(&seen), Some(Helper::Claim));
        seen.claim = None;
        assert_eq!(deleted(&seen), Some(Helper::Snapshot));
        seen.snapshot = None;
        assert_eq!(deleted(&seen), Some(Helper::Content));
        seen.content = None;
        // What has the name and not the labels is somebody else's.
        seen.content = Some(VolumeSnapshotContent::default());
        assert_eq!(withdraw::<()>(&seen, &subject()), None);
    }
    #[test]
    fn a_content_that_is_bound_and_was_told_nothing_is_let_go() {
        let step = |uid: Option<&str>, told: Option<&str>| {
            let mut meta = meta(&["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"], true);
            meta["annotations"] = json!({"snapshot.storage.kubernetes.io/volumesnapshot-being-deleted": told});
            meta["annotations"].as_object_mut().unwrap().retain(|_, told| !told.is_null());
            let mut content: VolumeSnapshotContent = from_value(json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": meta, "spec": {"volumeSnapshotRef": {"uid": uid}},
            }))
            .unwrap();
            content.metadata.labels = owned().labels;
            withdraw::<()>(
                &snapshot_to_claim::Seen { content: Some(content), ..snapshot_to_claim::Seen::default() },
                &subject(),
            )
        };
        let let_go = Act::Content { name: subject().object_name(), change: ContentChange::LetGo };
        assert_eq!(step(Some("u"), None), Some(let_go));
        assert!(matches!(step(Some("u"), Some("yes")), Some(Act::Wait(_))));
        assert!(matches!(step(None, None), Some(Act::Wait(_))));
    }
}
