//! The controller at work: watches say that something changed, and what is to be done is decided from what is there then.

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::cluster::{self, Cluster};
use crate::controller::dialect::vsm;
use crate::controller::domain::flow::{Act, Config, Helper, Stage, Update};
use crate::controller::domain::names::{KIND_LABEL, MANAGED_BY, OWNER_ANNOTATION};
use crate::controller::kinds::Request;
use crate::controller::mover_job::job;
use crate::controller::mover_job::lifecycle;
use crate::controller::runtime::events;
use crate::controller::runtime::health::Health;
use crate::controller::runtime::metrics::{Metrics, Standing};
use crate::controller::runtime::queue::{self, Entry, Place};
use crate::controller::runtime::waiting::{self, Word};
use crate::controller::volumes::snapshot_gc;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How often something that waits is looked at although nothing was heard of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a mover that runs is asked how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often somebody is asked who tells nothing: a volume or a content on its way is not watched.
const ASK: Duration = Duration::from_secs(2);
/// How often what waits for its turn looks whether that has come, by what the watch knows: the change that would have told it may have been
/// heard of before it was known.
const QUEUED: Duration = Duration::from_secs(5);
/// How often what is forbidden is tried again: somebody has to allow it.
const REFUSED: Duration = Duration::from_secs(30);
/// Requests of a kind that are worked on at the same time, by this process; they wait for the apiserver, not for a core.
const CONCURRENCY: u16 = 8;
/// Writes after which a look at one request ends: others want their turn, and a loop that does not end is a fault.
const STEPS: usize = 40;

/// What every look at requests of one kind needs.
pub struct Context {
    cluster: Cluster,
    config: Arc<Config>,
    metrics: Metrics,
    /// Says that nothing new is to be begun.
    stop: CancellationToken,
    /// Requests at a time.
    limit: usize,
    /// Held from the counting of places until one is taken.
    places: Mutex<()>,
}

impl Context {
    pub fn new(
        cluster: Cluster,
        config: Arc<Config>,
        metrics: Metrics,
        stop: CancellationToken,
        limit: usize,
    ) -> Context {
        Context { cluster, config, metrics, stop, limit, places: Mutex::new(()) }
    }
}

/// Works on all requests of a kind until it is told to stop, and then finishes what it is writing.
pub async fn requests<R: Request>(context: Context, health: &Health) {
    let context = Arc::new(context);
    let cluster = &context.cluster;
    let all = Controller::new(cluster.all::<R>(), watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(context.stop.clone().cancelled_owned());
    let (store, limit) = (all.store(), context.limit);
    let counted = store.clone();
    let standings = move || counted.state().iter().map(|request| standing(&**request)).collect();
    context.metrics.watch(R::KIND.short(), limit, standings);
    let listed = all.store();
    let ours = || {
        let kind = R::KIND.short();
        watcher::Config::default().labels(&format!("{}={},{KIND_LABEL}={kind}", MANAGED_BY.0, MANAGED_BY.1))
    };
    let client = || cluster.client.clone();
    let here = &cluster.namespace;
    let known = store.clone();
    let watching = all
        .watches(cluster.all::<R>(), watcher::Config::default(), move |_| waiting(&store, limit))
        .watches(Api::<VolumeSnapshotContent>::all(client()), ours(), |it| owner(&it))
        .watches(Api::<VolumeSnapshot>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<PersistentVolumeClaim>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<Job>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<Pod>::namespaced(client(), here), ours(), |it| owner(&it))
        .run(
            move |request, context| {
                let first = is_first(&*request, &known, limit);
                reconcile(request, context, first)
            },
            after_error,
            context.clone(),
        )
        .for_each(|outcome| async move {
            if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) = outcome {
                error!(%error, "watching failed");
            }
        });
    let ready = async {
        if listed.wait_until_ready().await.is_ok() {
            health.listed();
        }
    };
    tokio::join!(watching, ready);
}

/// Frees storage snapshots that are nobody's any more, until it is told to stop.
pub async fn storage_snapshots(cluster: Cluster, config: Arc<Config>, stop: CancellationToken) {
    let kept = watcher::Config::default().labels(&snapshot_gc::selector());
    let all = Controller::new(cluster.contents(), kept).graceful_shutdown_on(stop.cancelled_owned());
    let store = all.store();
    all.watches(cluster.contents(), watcher::Config::default(), move |other| {
        let same = store.state().into_iter().filter(|kept| snapshot_gc::name_the_same(kept, &other));
        same.map(|kept| ObjectRef::from_obj(&*kept)).collect::<Vec<_>>()
    })
    .run(free_one, |_, _, _| Action::requeue(REFUSED), Arc::new((cluster, config)))
    .for_each(|outcome| async move {
        if let Err(error) = outcome {
            warn!(%error, "a storage snapshot could not be looked after");
        }
    })
    .await;
}

async fn free_one(
    content: Arc<VolumeSnapshotContent>,
    context: Arc<(Cluster, Arc<Config>)>,
) -> cluster::Result<Action> {
    let (cluster, config) = &*context;
    let name = content.name_any();
    let all = cluster.contents().list(&ListParams::default()).await?.items;
    let Some(content) = all.iter().find(|it| it.uid() == content.uid()) else { return Ok(Action::await_change()) };
    match snapshot_gc::decide(content, &all, &cluster::now(), config.free_after) {
        snapshot_gc::Step::Patch(patch) => {
            info!(content = name, %patch, "changes");
            cluster.change_content(&name, &patch).await?;
        }
        snapshot_gc::Step::Delete => {
            info!(content = name, policy = content.spec.deletion_policy, "deletes");
            cluster.delete_content(&name).await?;
        }
        snapshot_gc::Step::Later(left) => return Ok(Action::requeue(left)),
        snapshot_gc::Step::Nothing => {}
    }
    // What was written is heard of.
    Ok(Action::await_change())
}

/// What a helper was made for.
fn owner<K: Resource<DynamicType = ()>, R: Request>(helper: &K) -> Option<ObjectRef<R>> {
    let (namespace, name) = helper.annotations().get(OWNER_ANNOTATION)?.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

fn standing<R: Request>(request: &R) -> Standing {
    let status = request.moved();
    let completed = matches!(vsm::stage(&status), Stage::Ended { completed: true });
    Standing {
        phase: vsm::phase(&status).to_owned(),
        degraded: vsm::is_degraded(&status),
        place: entry(request).state,
        completed: status.completion_timestamp.filter(|_| completed).map(|time| time.0.as_second()),
    }
}

/// The requests whose turn it may be now: one of others has changed.
fn waiting<R: Request>(store: &Store<R>, limit: usize) -> Vec<ObjectRef<R>> {
    let all = store.state();
    let entries: Vec<Entry> = all.iter().map(|request| entry(&**request)).collect();
    let next = queue::next(&entries, limit);
    let named = |uid: &&str| all.iter().find(|request| request.uid().as_deref() == Some(uid));
    next.iter().filter_map(named).map(|request| ObjectRef::from_obj(&**request)).collect()
}

/// Whether it may be its turn, by what the watch knows.
fn is_first<R: Request>(request: &R, store: &Store<R>, limit: usize) -> bool {
    let entries: Vec<Entry> = store.state().iter().map(|request| entry(&**request)).collect();
    queue::next(&entries, limit).iter().any(|uid| request.uid().as_deref() == Some(uid))
}

fn entry<R: Request>(request: &R) -> Entry {
    let status = request.moved();
    let state = match vsm::stage(&status) {
        _ if vsm::has_turn(&status) => Place::Working,
        Stage::New | Stage::Queued if request.meta().deletion_timestamp.is_none() => Place::Waiting,
        _ => Place::Out,
    };
    let created = request.creation_timestamp().map_or(0, |created| created.0.as_second());
    Entry { created, uid: request.uid().unwrap_or_default(), state }
}

fn after_error<R: Request>(request: Arc<R>, error: &kube::Error, context: Arc<Context>) -> Action {
    if matches!(error, kube::Error::Api(error) if error.code == 409) {
        return Action::requeue(Duration::from_millis(100));
    }
    let kind = R::KIND.short();
    context.metrics.failed(kind);
    let (namespace, name) = (request.namespace(), request.name_any());
    warn!(kind, namespace, name, %error, "the cluster could not be asked or told");
    Action::requeue(if refused(error).is_some() { REFUSED } else { Duration::from_secs(5) })
}

/// What the apiserver says that it does not allow.
fn refused(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(error) if error.code == 403 => Some(&error.message),
        _ => None,
    }
}

async fn reconcile<R: Request>(request: Arc<R>, context: Arc<Context>, first: bool) -> cluster::Result<Action> {
    // Nothing is asked of hundreds that wait.
    if vsm::stage(&request.moved()) == Stage::Queued && request.meta().deletion_timestamp.is_none() && !first {
        return Ok(Action::requeue(QUEUED));
    }
    let looked = look(&*request, &context, first).await;
    if let Err(error) = &looked
        && let Some(why) = refused(error)
        && let Err(error) = say_refused(&*request, &context, why).await
    {
        warn!(name = request.name_any(), %error, "it could not be written to the object that something is forbidden");
    }
    looked
}

/// A right that is missing can be seen in every object that needs it.
async fn say_refused<R: Request>(request: &R, context: &Context, why: &str) -> cluster::Result<()> {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    let Some(request) = context.cluster.current::<R>(&namespace, &name).await? else { return Ok(()) };
    let status = request.moved();
    let (said, stage, limit) = (vsm::said(&status), vsm::stage(&status), context.config.prepare);
    match waiting::refused(&status, said, stage, limit, &cluster::now(), why) {
        Some(update) => record(&request, context, &update).await,
        None => Ok(()),
    }
}

async fn look<R: Request>(request: &R, context: &Context, first: bool) -> cluster::Result<Action> {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    for _ in 0..STEPS {
        if context.stop.is_cancelled() {
            return Ok(Action::await_change());
        }
        // The watch may be behind what we wrote a moment ago.
        let Some(request) = context.cluster.current::<R>(&namespace, &name).await? else {
            return Ok(Action::await_change());
        };
        if let Some(action) = step(&request, context, first).await? {
            return Ok(action);
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Writes something to the status, and tells whom it concerns.
async fn record<R: Request>(
    request: &R,
    context: &Context,
    update: &Update<R::Known, R::Brought>,
) -> cluster::Result<()> {
    let (kind, namespace, name) = (R::KIND.short(), request.namespace(), request.name_any());
    info!(kind, namespace, name, ?update, "records");
    let after = context.cluster.update(request, update).await?.moved();
    context.metrics.recorded(kind, update, &after);
    for news in events::news(update, &request.moved(), &after) {
        if let Err(error) = context.cluster.tell(request, news).await {
            warn!(kind, namespace, name, %error, "an event could not be made");
        }
    }
    Ok(())
}

/// One look and one write. `Some`: there is nothing more to do until then.
async fn step<R: Request>(request: &R, context: &Context, first: bool) -> cluster::Result<Option<Action>> {
    let Context { cluster, config, limit, places, .. } = context;
    let subject = request.subject();
    let status = request.moved();
    let (stage, said) = (vsm::stage(&status), vsm::said(&status));
    if matches!(stage, Stage::Ended { .. }) && request.finalizers().is_empty() {
        return Ok(Some(Action::await_change()));
    }
    // What the watch knows may be old: who is first by it is counted once more.
    let queued = stage < Stage::Started && first;
    let _held = if queued { Some(places.lock().await) } else { None };
    let turn = queued && {
        let all = cluster.all::<R>().list(&ListParams::default()).await?;
        let entries: Vec<Entry> = all.iter().map(entry).collect();
        queue::next(&entries, *limit).contains(&subject.uid.as_str())
    };
    let seen = cluster.observe(request, turn, config).await?;
    let act = R::decide(&subject, &seen, config);
    let common = R::common(&seen);
    let (kind, namespace, name) = (subject.kind.short(), &subject.namespace, &subject.name);
    if let Some(update) = waiting::settle(common, said, &act) {
        record(request, context, &update).await?;
        return Ok(None);
    }
    match &act {
        Act::Wait(why) => {
            tracing::debug!(kind, namespace, name, why, "waits");
            let reported = common.mover.job.as_ref().is_some_and(job::is_finished);
            let again = match stage {
                Stage::Started if reported => ASK,
                Stage::Started if common.mover.job.is_some() => PROGRESS,
                Stage::Moved | Stage::Cleaning => ASK,
                _ => PATIENCE,
            };
            let quiet = waiting::quiet(request.meta(), &status, &common.mover, &cluster::now());
            let again = match waiting::wait(common, said, quiet, why) {
                Word::No => again,
                Word::Later(left) => again.min(left),
                Word::Say(update) => {
                    record(request, context, &update).await?;
                    again
                }
            };
            return Ok(Some(Action::requeue(again)));
        }
        Act::Nothing => return Ok(Some(Action::await_change())),
        Act::AddFinalizer => cluster.add_finalizer(request).await?,
        Act::RemoveFinalizer => cluster.remove_finalizer(request).await?,
        Act::Status(update) => record(request, context, update).await?,
        Act::Create(object) => {
            info!(kind, namespace, name, object = object.kind(), "creates");
            cluster.create(object).await?;
        }
        Act::Rewrite(config_map) => cluster.rewrite(config_map).await?,
        Act::Release { name: mover } => {
            let tidy = *mover == lifecycle::cleaner(&subject);
            cluster.release(if tidy { &common.cleaner } else { &common.mover }).await?;
        }
        Act::Delete { helper, name: helper_name } => {
            info!(kind, namespace, name, ?helper, helper_name, "deletes");
            // With the mover's Job goes the knowledge of what it left.
            if *helper == Helper::Job
                && *helper_name == subject.object_name()
                && let Some(why) = lifecycle::untidied::<()>(&subject, common, config)
            {
                warn!(
                    kind,
                    namespace,
                    name,
                    why,
                    "a lock or a snapshot stays in the repository: `restic unlock` and `restic forget` remove them"
                );
            }
            cluster.delete(&subject, *helper, helper_name).await?;
        }
        Act::Volume { name: volume, change } => {
            info!(kind, namespace, name, volume, ?change, "changes");
            cluster.change_volume(volume, change).await?;
        }
        Act::Content { name: content, change } => {
            info!(kind, namespace, name, content, ?change, "changes");
            cluster.change_content(content, &change.patch()).await?;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
