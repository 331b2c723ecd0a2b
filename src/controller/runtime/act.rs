//! Carries out the action that a reconcile decided on.

use super::context::Context;
use super::wait_status::{self, WaitReport};
use crate::controller::action::{Action, Managed};
use crate::controller::cluster::{self, Cluster, Result, events};
use crate::controller::dialect::Dialect;
use crate::controller::domain::direction::{Direction, Update};
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
    match action {
        Action::Wait(why) => return wait(request, context, common, why).await.map(Some),
        Action::Nothing => return Ok(Some(Requeue::await_change())),
        Action::Record(update) => record(request, context, update).await?,
        action => {
            warn_of_leftovers(request, context, common, action);
            let outcome = change(request, &context.cluster, common, action).await;
            log(request, &description(&context.cluster, &request.owner(), action), &outcome);
            outcome?;
        }
    }
    Ok(None)
}

/// Carries out an action that changes an object other than the status.
async fn change<R: Dialect>(
    request: &R,
    cluster: &Cluster,
    common: &Common,
    action: &Action<R::Direction>,
) -> Result<()> {
    let owner = request.owner();
    match action {
        Action::AddFinalizer => cluster.add_finalizer(request).await,
        Action::RemoveFinalizer => cluster.remove_finalizer(request).await,
        Action::Create(object) => cluster.create(object).await,
        Action::Rewrite(config_map) => cluster.rewrite(config_map).await,
        Action::Release { name } => {
            let is_cleanup = *name == cleanup::name(&owner);
            cluster.release(if is_cleanup { &common.cleanup } else { &common.mover }).await
        }
        Action::Delete { managed, name } => cluster.delete(&owner, *managed, name).await,
        Action::Volume { name, change } => cluster.change_volume(name, change).await,
        Action::Content { name, change } => cluster.change_content(name, &change.patch()).await,
        Action::Record(_) | Action::Wait(_) | Action::Nothing => Ok(()),
    }
}

/// An action for people: a verb in the past tense and its object.
fn description<D: Direction>(cluster: &Cluster, owner: &Owner, action: &Action<D>) -> String {
    let here = &cluster.namespace;
    match action {
        Action::AddFinalizer => "added the finalizer".into(),
        Action::RemoveFinalizer => "removed the finalizer".into(),
        Action::Create(object) => format!("created {}", object.path()),
        Action::Rewrite(config_map) => format!("rewrote ConfigMap {here}/{}", config_map.name_any()),
        Action::Release { name } => format!("released Job {here}/{name} and its pods"),
        Action::Delete { managed: Managed::Content, name } => format!("deleted {} {name}", Managed::Content),
        Action::Delete { managed, name } => {
            let namespace = if *managed == Managed::Target { &owner.namespace } else { here };
            format!("deleted {managed} {namespace}/{name}")
        }
        Action::Volume { name, change } => format!("changed PersistentVolume {name}: {change}"),
        Action::Content { name, change } => format!("changed VolumeSnapshotContent {name}: {change}"),
        Action::Record(update) => format!("recorded {update}"),
        Action::Wait(why) => why.clone(),
        Action::Nothing => String::new(),
    }
}

/// Logs an action, as a sentence that names the request.
fn log<R: Dialect>(request: &R, done: &str, outcome: &Result<()>) {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    let of = format!("{} {namespace}/{name}", R::kind(&()));
    match outcome {
        Ok(()) => info!(kind = R::KIND.short(), namespace, name, "{done} for {of}"),
        Err(error) => warn!(kind = R::KIND.short(), namespace, name, %error, "failed action: {done} for {of}"),
    }
}

/// Warns before a mover's Job is deleted, which is the only source of this failure.
fn warn_of_leftovers<R: Dialect>(request: &R, context: &Context, common: &Common, action: &Action<R::Direction>) {
    let owner = request.owner();
    let is_job = *action == Action::Delete { managed: Managed::Job, name: owner.object_name() };
    if let Some(why) = cleanup::failure::<R::Direction>(&owner, common, &context.config).filter(|_| is_job) {
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
    let recorded = format!("recorded {update}");
    let after = match outcome {
        Ok(after) => after.record(),
        Err(error) => {
            debug!(kind, namespace, name, %error, "failed action: {recorded}");
            return Err(error);
        }
    };
    debug!(kind, namespace, name, ?update, "the whole update");
    log(request, &recorded, &Ok(()));
    context.metrics.recorded(kind, update, &after);
    for news in events::news(update, &request.record(), &after) {
        if let Err(error) = context.cluster.create_event(request, news).await {
            warn!(kind, namespace, name, %error, "cannot create an Event");
        }
    }
    Ok(())
}
