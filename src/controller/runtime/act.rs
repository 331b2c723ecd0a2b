//! Carries out the action that a reconcile decided on.

use super::context::Context;
use super::wait_status::{self, WaitReport};
use crate::controller::action::{Action, Managed};
use crate::controller::cluster::{self, Created, Result, events};
use crate::controller::dialect::Dialect;
use crate::controller::domain::direction::Update;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::Stage;
use crate::controller::mover_job::{cleanup, status};
use crate::controller::observed::Common;
use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How often a waiting request is reconciled without an event.
const RESYNC: Duration = Duration::from_secs(60);
/// How often the log of a running mover is read.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often an object that is not watched is read: a PersistentVolume, or the content that the
/// snapshot controller creates.
const POLL: Duration = Duration::from_secs(2);

/// Carries out an action. `Some`: the reconcile ends, until this time or an event.
pub async fn act<R: Dialect>(
    request: &R,
    context: &Context,
    common: &Common,
    action: &Action<R::Direction>,
) -> Result<Option<Requeue>> {
    let (cluster, owner) = (&context.cluster, request.owner());
    let here = &cluster.namespace;
    let (done, outcome) = match action {
        Action::Wait(why) => return wait(request, context, common, why).await.map(Some),
        Action::Nothing => return Ok(Some(Requeue::await_change())),
        Action::Record(update) => return record(request, context, update).await.map(|()| None),
        Action::AddFinalizer => ("added the finalizer".into(), cluster.add_finalizer(request).await),
        Action::RemoveFinalizer => ("removed the finalizer".into(), cluster.remove_finalizer(request).await),
        Action::Create(object) => {
            let created = cluster.create(object).await;
            let verb = if matches!(created, Ok(Created::Existing)) { "found" } else { "created" };
            (format!("{verb} {}", object.path()), created.map(drop))
        }
        Action::Rewrite(config_map) => {
            (format!("rewrote ConfigMap {here}/{}", config_map.name_any()), cluster.rewrite(config_map).await)
        }
        Action::Release { name } => {
            let is_cleanup = *name == cleanup::name(&owner);
            let mover = if is_cleanup { &common.cleanup } else { &common.mover };
            (format!("released Job {here}/{name} and its pods"), cluster.release(mover).await)
        }
        Action::Delete { managed, name } => {
            if *managed == Managed::Job && *name == owner.object_name() {
                warn_of_leftovers::<R>(&owner, context, common);
            }
            let path = match managed {
                Managed::Content => name.clone(),
                Managed::Target => format!("{}/{name}", owner.namespace),
                _ => format!("{here}/{name}"),
            };
            (format!("deleted {managed} {path}"), cluster.delete(&owner, *managed, name).await)
        }
        Action::Volume { name, change } => {
            (format!("changed PersistentVolume {name}: {change}"), cluster.change_volume(name, change).await)
        }
        Action::Content { name, change } => {
            let outcome = cluster.change_content(name, &change.patch()).await;
            (format!("changed VolumeSnapshotContent {name}: {change}"), outcome)
        }
    };
    log(request, &done, outcome.as_ref().err());
    outcome.map(|()| None)
}

/// Logs an action, as a sentence that names the request. A conflict is not a failure: the reconcile
/// is repeated with the newer object.
fn log<R: Dialect>(request: &R, done: &str, error: Option<&kube::Error>) {
    let (kind, namespace, name) = (R::KIND.short(), request.namespace().unwrap_or_default(), request.name_any());
    let of = format!("{} {namespace}/{name}", R::kind(&()));
    match error {
        None => info!(kind, namespace, name, "{done} for {of}"),
        Some(kube::Error::Api(status)) if status.code == 409 => {
            debug!(kind, namespace, name, status.message, "conflict: not {done} for {of}");
        }
        Some(error) => warn!(kind, namespace, name, %error, "failed action: {done} for {of}"),
    }
}

/// Warns of a lock or snapshot that stays in the repository. The caller deletes the mover's Job
/// afterwards, which is the only source of this fact.
fn warn_of_leftovers<R: Dialect>(owner: &Owner, context: &Context, common: &Common) {
    if let Some(why) = cleanup::failure::<R::Direction>(owner, common, &context.config) {
        let (kind, namespace, name) = (owner.kind.short(), &owner.namespace, &owner.name);
        let advice = "remove it with `restic unlock` and `restic forget`";
        warn!(kind, namespace, name, why, advice, "a lock or a snapshot stays in the repository");
    }
}

/// Records a wait if it lasts, and returns when to reconcile again.
async fn wait<R: Dialect>(request: &R, context: &Context, common: &Common, why: &str) -> Result<Requeue> {
    debug!(
        kind = R::KIND.short(),
        namespace = request.namespace(),
        name = request.name_any(),
        why,
        "the request waits"
    );
    let again = interval(common);
    let idle = wait_status::idle(request.meta(), &common.record, &common.mover, &cluster::now());
    let again = match wait_status::wait(common, idle, why) {
        WaitReport::No => again,
        WaitReport::Later(left) => again.min(left),
        WaitReport::Now(update) => {
            record(request, context, &update).await?;
            again
        }
    };
    Ok(Requeue::requeue(again))
}

/// The time after which a waiting request is reconciled without an event.
fn interval(common: &Common) -> Duration {
    let job = common.mover.job.as_ref();
    match common.stage() {
        Stage::Started if job.is_some_and(status::is_finished) => POLL,
        Stage::Started if job.is_some() => PROGRESS,
        Stage::Moved | Stage::Cleaning => POLL,
        Stage::New | Stage::Queued | Stage::Started | Stage::Ended(_) => RESYNC,
    }
}

/// Writes an update to the status, then counts it and creates its Events.
pub async fn record<R: Dialect>(request: &R, context: &Context, update: &Update<R::Direction>) -> Result<()> {
    let (kind, namespace, name) = (R::KIND.short(), request.namespace(), request.name_any());
    let outcome = context.cluster.update(request, update).await;
    log(request, &format!("recorded {update}"), outcome.as_ref().err());
    debug!(kind, namespace, name, ?update, "the whole update");
    let after = outcome?.record();
    context.metrics.recorded(kind, update, &after);
    for news in events::news(update, &request.record(), &after) {
        if let Err(error) = context.cluster.create_event(request, news).await {
            warn!(kind, namespace, name, %error, "cannot create an Event");
        }
    }
    Ok(())
}
