//! Carries out the action that a reconcile decided on.

use super::context::Context;
use super::wait_status::{self, Report};
use crate::controller::action::{Action, Managed};
use crate::controller::cluster::{self, Result, events};
use crate::controller::dialect::Dialect;
use crate::controller::domain::direction::Update;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::Stage;
use crate::controller::mover_job::{cleanup, status};
use crate::controller::observed::Common;
use kube::ResourceExt;
use kube::runtime::controller;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How often a waiting request is reconciled without an event.
const RESYNC: Duration = Duration::from_secs(60);
/// How often the log of a running mover is read.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often an object that is not watched is read: a PersistentVolume, or a content of another request.
const POLL: Duration = Duration::from_secs(2);

/// Carries out an action. `Some`: the reconcile ends, until this time or an event.
pub async fn act<R: Dialect>(
    request: &R,
    context: &Context,
    common: &Common,
    action: &Action<R::Direction>,
) -> Result<Option<controller::Action>> {
    let cluster = &context.cluster;
    let owner = request.owner();
    let here = &cluster.namespace;
    let done = match action {
        Action::Wait(why) => return wait(request, context, common, why).await.map(Some),
        Action::Nothing => return Ok(Some(controller::Action::await_change())),
        Action::Record(update) => {
            record(request, context, update).await?;
            return Ok(None);
        }
        Action::AddFinalizer => {
            cluster.add_finalizer(request).await?;
            "added the finalizer".to_owned()
        }
        Action::RemoveFinalizer => {
            cluster.remove_finalizer(request).await?;
            "removed the finalizer".to_owned()
        }
        Action::Create(object) => {
            cluster.create(object).await?;
            format!("created {}", object.path())
        }
        Action::Rewrite(config_map) => {
            cluster.rewrite(config_map).await?;
            format!("rewrote ConfigMap {here}/{}", config_map.name_any())
        }
        Action::Release { name } => {
            let is_cleanup = *name == cleanup::name(&owner);
            cluster.release(if is_cleanup { &common.cleanup } else { &common.mover }).await?;
            format!("released Job {here}/{name} and its pods")
        }
        Action::Delete { managed, name } => {
            warn_of_leftovers::<R>(&owner, context, common, action);
            cluster.delete(&owner, *managed, name).await?;
            format!("deleted {managed} {name}")
        }
        Action::Volume { name, change } => {
            cluster.change_volume(name, change).await?;
            format!("changed PersistentVolume {name}: {change}")
        }
        Action::Content { name, change } => {
            cluster.change_content(name, &change.patch()).await?;
            format!("changed VolumeSnapshotContent {name}: {change}")
        }
    };
    log(request, &done);
    Ok(None)
}

/// Logs an action, as a sentence that names the request.
fn log<R: Dialect>(request: &R, done: &str) {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    info!(kind = R::KIND.short(), namespace, name, "{done} for {} {namespace}/{name}", R::kind(&()));
}

/// Warns before a mover's Job is deleted, which is the only source of this failure.
fn warn_of_leftovers<R: Dialect>(owner: &Owner, context: &Context, common: &Common, action: &Action<R::Direction>) {
    let is_job = *action == Action::Delete { managed: Managed::Job, name: owner.object_name() };
    if let Some(why) = cleanup::failure::<R::Direction>(owner, common, &context.config).filter(|_| is_job) {
        let (kind, namespace, name) = (owner.kind.short(), &owner.namespace, &owner.name);
        let advice = "remove it with `restic unlock` and `restic forget`";
        warn!(kind, namespace, name, why, advice, "a lock or a snapshot stays in the repository");
    }
}

/// Records a wait if it lasts, and returns when to reconcile again.
async fn wait<R: Dialect>(request: &R, context: &Context, common: &Common, why: &str) -> Result<controller::Action> {
    debug!(kind = R::KIND.short(), namespace = request.namespace(), name = request.name_any(), why, "wait");
    let again = interval(common);
    let idle = wait_status::idle(request.meta(), &common.record, &common.mover, &cluster::now());
    let again = match wait_status::wait(common, idle, why) {
        Report::No => again,
        Report::Later(left) => again.min(left),
        Report::Now(update) => {
            record(request, context, &update).await?;
            again
        }
    };
    Ok(controller::Action::requeue(again))
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
    let after = context.cluster.update(request, update).await?.record();
    log(request, &format!("recorded {update}"));
    context.metrics.recorded(kind, update, &after);
    for news in events::news(update, &request.record(), &after) {
        if let Err(error) = context.cluster.create_event(request, news).await {
            warn!(kind, namespace, name, %error, "cannot create an Event");
        }
    }
    Ok(())
}
