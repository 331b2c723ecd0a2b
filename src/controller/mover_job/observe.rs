//! The state of a mover, from its Job and pods.

use super::diagnose;
use super::mover::WORK_FILE;
use super::status::{has_condition, has_ended, is_of, phase, report};
use crate::work::{Outcome, Report, Work};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;

/// The state of a mover.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No pod runs yet, or none runs at this time. The reason is for people.
    Waiting {
        why: String,
    },
    Running {
        pod: String,
    },
    /// It reported its end, and is not retried.
    Reported {
        report: Box<Report>,
        pod: String,
    },
    /// It ended without a report.
    Lost {
        why: String,
    },
}

/// The state of a Job and its pods. A report counts only if its pod belongs to the Job.
pub fn state(job: &Job, pods: &[Pod]) -> State {
    let uid = job.uid().unwrap_or_default();
    let mut pods: Vec<&Pod> = pods.iter().filter(|pod| is_of(pod, &uid)).collect();
    pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    let ended = ["Complete", "Failed"].into_iter().find(|kind| has_condition(job, kind));
    let newest = pods.last().copied();
    if let Some(ended) = ended {
        let reports = pods.iter().rev().filter_map(|pod| Some((report(pod, &uid)?, pod.name_any())));
        // The report of a complete Job is that of the pod that completed it: its predecessors
        // failed.
        let last =
            reports.into_iter().find(|(report, _)| ended == "Failed" || !matches!(report.outcome, Outcome::Failed(_)));
        return match last {
            Some((report, pod)) => State::Reported { report: Box::new(report), pod },
            None => State::Lost { why: diagnose::why_lost(job, newest) },
        };
    }
    let Some(pod) = newest else { return State::Waiting { why: "the Job has no pod yet".into() } };
    let name = pod.name_any();
    match phase(pod) {
        "Running" => State::Running { pod: name },
        _ if has_ended(pod) => State::Waiting {
            why: match report(pod, &uid).map(|report| report.outcome) {
                Some(Outcome::Failed(failed)) => {
                    format!("the mover failed and is started again: {}: {}", failed.reason, failed.message)
                }
                _ => format!("the mover's pod {name} has ended: {}", diagnose::how_it_ended(pod)),
            },
        },
        _ => State::Waiting { why: format!("the mover's pod {name} does not run yet{}", diagnose::why_pending(pod)) },
    }
}

/// The host names of movers that have ended: no process will release their locks.
pub fn ended_hosts(job: &Job, pods: &[Pod]) -> Vec<String> {
    let uid = job.uid().unwrap_or_default();
    let ended = pods.iter().filter(|pod| is_of(pod, &uid) && has_ended(pod));
    let mut names: Vec<String> = ended.map(|pod| pod.name_any()).collect();
    names.sort();
    names
}

/// The work that a mover was given; an error if this controller cannot parse it.
pub fn work_of(config_map: &ConfigMap) -> Result<Work, String> {
    let work = config_map.data.as_ref().and_then(|data| data.get(WORK_FILE));
    Work::parse(work.map_or("", String::as_str).as_bytes())
}

/// What the ended movers of a Job left in the repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// A mover ended without a report: it may have left its lock, and a snapshot.
    pub unknown: bool,
    /// A mover saved a snapshot.
    pub snapshot: bool,
}

pub fn leftovers(job: &Job, pods: &[Pod]) -> Leftovers {
    let uid = job.uid().unwrap_or_default();
    let ran = pods.iter().filter(|pod| is_of(pod, &uid) && phase(pod) != "Pending");
    ran.fold(Leftovers::default(), |left, pod| match report(pod, &uid).map(|report| report.outcome) {
        None => Leftovers { unknown: true, ..left },
        Some(Outcome::Saved(_)) => Leftovers { snapshot: true, ..left },
        Some(_) => left,
    })
}

#[cfg(test)]
mod tests;
