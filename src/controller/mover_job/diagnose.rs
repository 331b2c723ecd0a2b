//! Diagnosis from the status of a mover's Job and pods: why the mover ended without a report, or
//! does not run yet. The reasons in reports are those of [`work`](crate::work::Reason).

use super::status::terminated;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// How the container of a pod ended.
pub fn how_it_ended(pod: &Pod) -> String {
    match terminated(pod) {
        Some(end) => {
            let reason = end.reason.as_deref().unwrap_or("without a reason");
            format!("{reason}, exit code {}", end.exit_code)
        }
        None => {
            let status = pod.status.clone().unwrap_or_default();
            let text = [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            if text.is_empty() { "the end of its container is not recorded".into() } else { text }
        }
    }
}

/// Why a Job that ended has no report. `newest` is its newest pod.
pub fn why_lost(job: &Job, newest: Option<&Pod>) -> String {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed");
    let why = failed.and_then(|condition| condition.message.clone()).unwrap_or_default();
    match newest {
        Some(pod) => format!("the mover's pod {} left no report ({}); {why}", pod.name_any(), how_it_ended(pod)),
        None => format!("the mover's pod was deleted; {why}"),
    }
}

/// Why a pod does not run yet, in the words of kubelet or the scheduler.
pub fn why_pending(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.unwrap_or_default().into_iter().find_map(|container| {
        let waiting = container.state?.waiting?;
        let reason = waiting.reason.filter(|reason| reason != "ContainerCreating")?;
        Some(format!("{reason}: {}", waiting.message.unwrap_or_default()))
    });
    let unscheduled = status.conditions.unwrap_or_default().into_iter().find_map(|condition| {
        let unscheduled = condition.type_ == "PodScheduled" && condition.status == "False";
        unscheduled.then(|| condition.message.unwrap_or_default())
    });
    waiting.or(unscheduled).map_or_else(String::new, |why| format!(": {why}"))
}
