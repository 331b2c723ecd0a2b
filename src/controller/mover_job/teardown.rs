//! Deletion of a mover: stops its pods, releases its Job, then deletes its Secret and ConfigMap.

use super::mover::FINALIZER;
use super::status;
use crate::controller::action::{self, Action, Managed};
use crate::controller::domain::direction::Direction;
use crate::controller::domain::names::Owner;
use crate::controller::observed::MoverObjects;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Stops a mover and waits until its pods have ended. `None`: no pod of it runs.
pub fn stop<D: Direction>(mover: &MoverObjects, name: &str) -> Option<Action<D>> {
    let running = mover.job.as_ref().filter(|job| !status::is_finished(job));
    if running.is_some_and(|job| job.metadata.deletion_timestamp.is_none()) {
        return Some(Action::Delete { managed: Managed::Job, name: name.to_owned() });
    }
    let ended = |pod: &Pod| status::has_ended(pod) || never_ran(pod);
    (!mover.pods.iter().all(ended)).then(|| Action::Wait("waiting for the mover to stop".into()))
}

/// Deletes a Job and its pods: their finalizer is removed only after they have ended. `None`: none
/// of them is left.
pub fn remove_job<D: Direction>(mover: &MoverObjects, name: &str) -> Option<Action<D>> {
    let is_held =
        |meta: &ObjectMeta| meta.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == FINALIZER));
    if mover.job.as_ref().is_some_and(|job| job.metadata.deletion_timestamp.is_none()) {
        return Some(Action::Delete { managed: Managed::Job, name: name.to_owned() });
    }
    if let Some(action) = stop(mover, name) {
        return Some(action);
    }
    let job_held = mover.job.as_ref().is_some_and(|job| is_held(&job.metadata));
    if job_held || mover.pods.iter().any(|pod| is_held(&pod.metadata)) {
        return Some(Action::Release { name: name.to_owned() });
    }
    (mover.job.is_some() || !mover.pods.is_empty())
        .then(|| Action::Wait("waiting for the mover's Job to be deleted".into()))
}

/// Deletes all objects of a mover. `None`: none is left.
pub fn remove<D: Direction>(mover: &MoverObjects, owner: &Owner, name: &str) -> Option<Action<D>> {
    let (secret, config_map) = (mover.secret.as_ref(), mover.config_map.as_ref());
    remove_job(mover, name)
        .or_else(|| action::delete(secret.map(|it| &it.metadata), Managed::Secret, owner, name))
        .or_else(|| action::delete(config_map.map(|it| &it.metadata), Managed::ConfigMap, owner, name))
}

/// Whether a pod that is being deleted has no node: no kubelet will report its end.
fn never_ran(pod: &Pod) -> bool {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    pod.metadata.deletion_timestamp.is_some() && !assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::backup::Backup;
    use crate::controller::domain::names::Kind;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{Value, from_value, json};

    fn owner() -> Owner {
        Owner { kind: Kind::Backup, namespace: "a".into(), name: "b".into(), uid: "1".into() }
    }

    fn meta(finalizers: &[&str], deleted: bool) -> Value {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        json!({"name": "n", "finalizers": finalizers, "deletionTimestamp": deleted})
    }

    fn mover(job: Option<(&[&str], bool)>, pod: Option<(&str, &[&str])>) -> MoverObjects {
        let job = job.map(|(finalizers, deleted)| {
            from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta(finalizers, deleted)})).unwrap()
        });
        let pods = pod.into_iter().map(|(phase, finalizers)| {
            let spec = json!({"containers": [], "nodeName": "node"});
            let (metadata, status) = (meta(finalizers, true), json!({"phase": phase}));
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status});
            from_value(pod).unwrap()
        });
        MoverObjects { job, pods: pods.collect(), ..MoverObjects::default() }
    }

    fn next(mover: &MoverObjects) -> Option<Action<Backup>> {
        remove(mover, &owner(), "n")
    }

    #[test]
    fn a_mover_is_stopped_then_released_and_its_secret_deleted_last() {
        let held: &[&str] = &[FINALIZER];
        let release = Some(Action::Release { name: "n".into() });
        assert_eq!(
            next(&mover(Some((held, false)), Some(("Running", held)))),
            Some(Action::Delete { managed: Managed::Job, name: "n".into() })
        );
        assert!(matches!(next(&mover(Some((held, true)), Some(("Running", held)))), Some(Action::Wait(_))));
        assert_eq!(next(&mover(Some((held, true)), Some(("Failed", held)))), release);
        assert!(matches!(next(&mover(Some((&[], true)), Some(("Failed", &[])))), Some(Action::Wait(_))));
        // A Job that a user deleted leaves its pods.
        assert_eq!(next(&mover(None, Some(("Failed", held)))), release);
        let mut rest = mover(None, None);
        let metadata = owner().naming("n".into(), "adp").meta();
        rest.secret = Some(Secret { metadata, ..Secret::default() });
        assert_eq!(next(&rest), Some(Action::Delete { managed: Managed::Secret, name: "n".into() }));
        assert_eq!(next(&mover(None, None)), None);
    }

    #[test]
    fn a_pod_without_a_node_is_not_waited_for() {
        let mut mover = mover(Some((&[FINALIZER], true)), Some(("Pending", &[FINALIZER])));
        assert!(matches!(next(&mover), Some(Action::Wait(_))));
        mover.pods[0].spec.as_mut().unwrap().node_name = None;
        assert_eq!(next(&mover), Some(Action::Release { name: "n".into() }));
    }
}
