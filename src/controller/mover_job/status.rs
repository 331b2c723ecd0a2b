//! The phase, end and report of a mover, from the status of its Job and pods.

use super::mover::CONTAINER;
use crate::work::Report;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// Whether a pod has ended, which is final.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// When the container of a pod ended, if that is recorded.
pub fn ended_at(pod: &Pod) -> Option<&Time> {
    terminated(pod)?.finished_at.as_ref()
}

/// The phase of a pod; empty before it has one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a Job has ended and starts no more pods.
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

/// Whether a pod belongs to the Job of this uid.
pub fn is_of(pod: &Pod, job: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == job && owner.controller == Some(true))
}

/// Whether a Job has a condition of this type that is true.
pub fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The end of the mover's container in a pod.
pub fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()
}

/// The report of a pod, if the mover of this Job wrote it.
pub fn report(pod: &Pod, job: &str) -> Option<Report> {
    let message = terminated(pod)?.message.as_ref()?;
    Report::parse(message.as_bytes()).ok().filter(|report| report.job == job)
}
