//! The reconcile loop of one request: observe, decide, act, until it has to wait.

use super::act;
use super::context::Context;
use super::queue::{self, Entry};
use super::wait_status;
use crate::controller::cluster::{self, Result, find};
use crate::controller::dialect::Dialect;
use crate::controller::domain::record::Stage;
use crate::controller::kinds::{self, Flow};
use crate::controller::observed::Admission;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::controller::Action as Requeue;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How often the admission of a queued request is checked in the watch's store: the event that
/// frees a slot may arrive before the store has the queued request.
const QUEUED: Duration = Duration::from_secs(5);
/// How often a denied action is retried: an administrator has to grant the right.
const FORBIDDEN: Duration = Duration::from_secs(30);
/// How soon a failed request to the apiserver is retried.
const ERROR: Duration = Duration::from_secs(5);
/// How soon a conflict is retried: the object was changed by another process.
const CONFLICT: Duration = Duration::from_millis(100);
/// The most actions of one reconcile: a request that never waits, which would be a bug, must not
/// block the others.
const STEPS: usize = 40;

/// Reconciles a request. `admission` is the request's admission by the watch's store.
pub async fn reconcile<R>(request: Arc<R>, context: Arc<Context>, admission: Admission) -> Result<Requeue>
where
    R: Dialect,
    R::Direction: Flow,
{
    // Hundreds of requests may be queued: do not read each of them from the apiserver.
    let is_queued = request.record().stage == Stage::Queued && request.meta().deletion_timestamp.is_none();
    if is_queued && admission == Admission::Queued {
        return Ok(Requeue::requeue(QUEUED));
    }
    let outcome = run(&*request, &context, admission).await;
    if let Err(error) = &outcome
        && let Some(why) = forbidden(error)
        && let Err(error) = record_forbidden(&*request, &context, why).await
    {
        warn!(name = request.name_any(), %error, "cannot record in the status that an action is forbidden");
    }
    outcome
}

/// The message of the apiserver if it denied an action.
fn forbidden(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(error) if error.code == 403 => Some(&error.message),
        _ => None,
    }
}

/// When to reconcile again after an error.
pub fn after_error<R: Dialect>(request: Arc<R>, error: &kube::Error, context: Arc<Context>) -> Requeue {
    if matches!(error, kube::Error::Api(error) if error.code == 409) {
        return Requeue::requeue(CONFLICT);
    }
    let kind = R::KIND.short();
    context.metrics.failed(kind);
    let (namespace, name) = (request.namespace(), request.name_any());
    warn!(kind, namespace, name, %error, "a request to the apiserver failed");
    Requeue::requeue(if forbidden(error).is_some() { FORBIDDEN } else { ERROR })
}

/// Records a missing right in the status of every object that needs it.
async fn record_forbidden<R: Dialect>(request: &R, context: &Context, why: &str) -> Result<()> {
    let Some(request) = current(request, context).await? else { return Ok(()) };
    match wait_status::forbidden(&request.record(), context.config.prepare, &cluster::now(), why) {
        Some(update) => act::record(&request, context, &update).await,
        None => Ok(()),
    }
}

/// The request as the apiserver has it: the watch's store may lag behind our own writes.
async fn current<R: Dialect>(request: &R, context: &Context) -> Result<Option<R>> {
    find(context.cluster.of(&request.namespace().unwrap_or_default()), &request.name_any()).await
}

/// Takes steps until the request has to wait.
async fn run<R>(request: &R, context: &Context, admission: Admission) -> Result<Requeue>
where
    R: Dialect,
    R::Direction: Flow,
{
    for _ in 0..STEPS {
        if context.stop.is_cancelled() {
            return Ok(Requeue::await_change());
        }
        let Some(request) = current(request, context).await? else { return Ok(Requeue::await_change()) };
        if let Some(again) = step(&request, context, admission).await? {
            return Ok(again);
        }
    }
    Ok(Requeue::requeue(Duration::from_secs(1)))
}

/// One observation, one decision, one action. `Some`: nothing more can be done until then.
async fn step<R>(request: &R, context: &Context, admission: Admission) -> Result<Option<Requeue>>
where
    R: Dialect,
    R::Direction: Flow,
{
    let stage = request.record().stage;
    if matches!(stage, Stage::Ended(_)) && request.finalizers().is_empty() {
        return Ok(Some(Requeue::await_change()));
    }
    let may_start = stage < Stage::Started && admission == Admission::Admitted;
    let _lock = if may_start { Some(context.admission.lock().await) } else { None };
    let admission = if may_start { count_admitted(request, context).await? } else { Admission::Queued };

    let observed = kinds::observe(&context.cluster, request, admission, &context.config).await?;
    let action = <R::Direction as Flow>::decide(&request.owner(), &observed, &context.config);
    let common = <R::Direction as Flow>::common(&observed);

    if let Some(update) = wait_status::settle(common, &action) {
        act::record(request, context, &update).await?;
        return Ok(None);
    }
    act::act(request, context, common, &action).await
}

/// The admission by the apiserver's list: the watch's store may be stale.
async fn count_admitted<R: Dialect>(request: &R, context: &Context) -> Result<Admission> {
    let all = context.cluster.all::<R>().list(&ListParams::default()).await?;
    let entries: Vec<Entry> = all.iter().map(Entry::of).collect();
    Ok(admission(request, &entries, context.limit))
}

/// Whether a request is admitted among these.
pub fn admission<R: Dialect>(request: &R, entries: &[Entry], limit: usize) -> Admission {
    let uid = request.uid().unwrap_or_default();
    if queue::next(entries, limit).contains(&uid.as_str()) { Admission::Admitted } else { Admission::Queued }
}
