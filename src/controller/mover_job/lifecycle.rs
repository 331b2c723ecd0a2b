//! The lifecycle of a mover: creates its objects one after the other, runs it again if it ended
//! without a report, and returns its report.

use super::mover::MoverSpec;
use super::observe::{self, State};
use super::{status, teardown};
use crate::controller::action::{Action, Instead, Object};
use crate::controller::config::Config;
use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::record::MoverProgress;
use crate::controller::observed::{Common, MoverObjects};
use crate::work::{Reason, Report, Work};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::time::Duration;

/// The work of a mover and its secrets.
pub struct Order {
    pub work: Work,
    pub secrets: BTreeMap<String, ByteString>,
}

/// The order that an existing mover was given. It is authoritative from then on: the objects that
/// the request refers to may be deleted meanwhile.
pub fn order(mover: &MoverObjects) -> Option<Result<Order, String>> {
    let (secret, config_map) = (mover.secret.as_ref()?, mover.config_map.as_ref()?);
    let secrets = secret.data.clone().unwrap_or_default();
    Some(observe::work_of(config_map).map(|work| Order { work, secrets }))
}

/// Retries of a mover that ended without a report. Each resumes from the uploads of its
/// predecessors.
const RETRIES: u32 = 2;

/// Annotation of a mover's ConfigMap and Job: the number of the attempt, from 0.
const ATTEMPT_ANNOTATION: &str = "datamover.oadp.openshift.io/run";

fn attempt_of(meta: &ObjectMeta) -> u32 {
    let number = meta.annotations.as_ref().and_then(|all| all.get(ATTEMPT_ANNOTATION));
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Runs a mover and returns its state; `Err` is the next action before the state is known. A mover
/// that ended without a report is run again: [`State::Lost`] is final only after the last attempt.
pub fn run<D: Direction>(mut spec: MoverSpec<'_>, existing: &MoverObjects) -> Result<State, Instead<D>> {
    let create = |object| Err(Box::new(Action::Create(object)));
    let state = existing.job.as_ref().map(|job| observe::state(job, &existing.pods));
    let before = existing.config_map.as_ref();
    let mut attempt = before.map_or(0, |before| attempt_of(&before.metadata));
    let is_current = |attempt| existing.job.as_ref().is_some_and(|job| attempt_of(&job.metadata) == attempt);
    let again = matches!(state, Some(State::Lost { .. })) && is_current(attempt) && attempt < RETRIES;
    attempt += u32::from(again);
    spec.naming.annotations.insert(ATTEMPT_ANNOTATION.to_owned(), attempt.to_string());
    // A new pod must know which of its predecessors have ended.
    let earlier = before.and_then(|before| observe::work_of(before).ok()).map(|work| work.gone).unwrap_or_default();
    let ended = existing.job.as_ref().map(|job| observe::ended_hosts(job, &existing.pods)).unwrap_or_default();
    spec.work.gone.extend(earlier.into_iter().chain(ended));
    spec.work.gone.sort();
    spec.work.gone.dedup();
    if existing.secret.is_none() {
        return create(Object::Secret(Box::new(spec.secret())));
    }
    let config_map = spec.config_map();
    // After its last pod no process reads the work description.
    let has_readers = again || !existing.job.as_ref().is_some_and(status::is_finished);
    match before {
        None => return create(Object::ConfigMap(Box::new(config_map))),
        Some(before) if !has_readers && attempt_of(&before.metadata) == attempt => {}
        Some(before) if before.data != config_map.data || attempt_of(&before.metadata) != attempt => {
            return Err(Box::new(Action::Rewrite(Box::new(config_map))));
        }
        Some(_) => {}
    }
    match state {
        None if existing.pods.is_empty() => create(Object::Job(Box::new(spec.job()))),
        Some(state) if is_current(attempt) => Ok(state),
        _ => Err(Box::new(
            teardown::remove_job(existing, &spec.naming.name)
                .unwrap_or(Action::Wait("waiting for a pod to be deleted".into())),
        )),
    }
}

/// Runs a mover until it reports: returns its report and pod, or the next action before that.
pub fn follow<D: Direction>(
    spec: MoverSpec<'_>,
    common: &Common,
    config: &Config,
) -> Result<(Report, String), Instead<D>> {
    match run(spec, &common.mover)? {
        State::Waiting { why } => Err(Box::new(wait(common, config.prepare, why))),
        State::Running { pod } => {
            let moving = MoverProgress { pod, progress: common.progress.clone().unwrap_or_default() };
            if common.record.mover.as_ref() == Some(&moving) {
                return Err(Box::new(Action::Wait("the mover runs".into())));
            }
            Err(Box::new(Action::record(Update::Moving(moving))))
        }
        State::Lost { why } => Err(Box::new(Action::fail(Reason::MoverLost, why))),
        State::Reported { report, pod } => Ok((*report, pod)),
    }
}

/// Waits for another controller until a deadline.
pub fn wait<D: Direction>(common: &Common, limit: Duration, why: String) -> Action<D> {
    if common.stalled_for.is_some_and(|stalled| stalled > limit) {
        return Action::fail(Reason::NotPrepared, format!("{why}; that took longer than {} s", limit.as_secs()));
    }
    Action::Wait(why)
}
