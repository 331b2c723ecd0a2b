//! The watches: an event of a request, or of an object that is managed for it, reconciles the
//! request.

use super::context::Context;
use super::health::Health;
use super::metrics::CensusEntry;
use super::queue::{self, Entry};
use super::reconcile;
use crate::controller::cluster::{self, Cluster};
use crate::controller::config::Config;
use crate::controller::dialect::Dialect;
use crate::controller::domain::record::{End, Stage};
use crate::controller::kinds::Flow;
use crate::kubernetes::naming::{KIND_LABEL, MANAGED_BY, OWNER_ANNOTATION};
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::snapshot_gc::{self, Collect};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::runtime::controller::{self, Action as Requeue, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Requests of a kind that are reconciled at the same time: a reconcile waits for the apiserver,
/// not for a core.
const CONCURRENCY: u16 = 8;
/// How soon a failed garbage collection is retried.
const COLLECT_AGAIN: Duration = Duration::from_secs(30);

/// Reconciles all requests of a kind until the context is stopped; actions that have begun are
/// finished.
pub async fn requests<R>(context: Context, health: &Health)
where
    R: Dialect,
    R::Direction: Flow,
{
    let context = Arc::new(context);
    let cluster = &context.cluster;
    let all = Controller::new(cluster.all::<R>(), watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(context.stop.clone().cancelled_owned());
    let (store, limit) = (all.store(), context.limit);
    let counted = store.clone();
    let census = move || counted.state().iter().map(|request| census_entry(&**request)).collect();
    context.metrics.watch(R::KIND.short(), limit, census);
    let listed = store.clone();
    let known = store.clone();
    let managed = || {
        let selector = format!("{}={},{KIND_LABEL}={}", MANAGED_BY.0, MANAGED_BY.1, R::KIND.short());
        watcher::Config::default().labels(&selector)
    };
    let watching = all
        .watches(cluster.all::<R>(), watcher::Config::default(), move |_| admitted(&store, limit))
        .watches(cluster.all::<VolumeSnapshotContent>(), managed(), |it| owner(&it))
        .watches(cluster.here::<VolumeSnapshot>(), managed(), |it| owner(&it))
        .watches(cluster.here::<PersistentVolumeClaim>(), managed(), |it| owner(&it))
        .watches(cluster.here::<Job>(), managed(), |it| owner(&it))
        .watches(cluster.here::<Pod>(), managed(), |it| owner(&it))
        .run(
            move |request, context| {
                let admission = reconcile::admission(&*request, &entries(&known), limit);
                reconcile::reconcile(request, context, admission)
            },
            reconcile::after_error,
            context.clone(),
        )
        .for_each(|outcome| async move {
            if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) = outcome {
                error!(%error, "a watch failed");
            }
        });
    let ready = async {
        if listed.wait_until_ready().await.is_ok() {
            health.listed();
        }
    };
    tokio::join!(watching, ready);
}

/// The request that an object is managed for.
fn owner<K: Resource<DynamicType = ()>, R: Dialect>(managed: &K) -> Option<ObjectRef<R>> {
    let (namespace, name) = managed.annotations().get(OWNER_ANNOTATION)?.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

fn entries<R: Dialect>(store: &Store<R>) -> Vec<Entry> {
    store.state().iter().map(|request| Entry::of(&**request)).collect()
}

/// The queued requests that may be admitted after an event of another one.
fn admitted<R: Dialect>(store: &Store<R>, limit: usize) -> Vec<ObjectRef<R>> {
    let all = store.state();
    let entries = entries(store);
    let next = queue::next(&entries, limit);
    let of_uid = |uid: &&str| all.iter().find(|request| request.uid().as_deref() == Some(uid));
    next.iter().filter_map(of_uid).map(|request| ObjectRef::from_obj(&**request)).collect()
}

fn census_entry<R: Dialect>(request: &R) -> CensusEntry {
    let record = request.record();
    let has_completed = record.stage == Stage::Ended(End::Completed);
    CensusEntry {
        phase: record.phase,
        is_degraded: record.is_degraded,
        state: Entry::of(request).state,
        completed: record.finished.filter(|_| has_completed).map(|time| time.0.as_second()),
    }
}

/// Collects orphaned storage snapshots until `stop` is cancelled.
pub async fn storage_snapshots(cluster: Cluster, config: Arc<Config>, stop: CancellationToken) {
    let kept = watcher::Config::default().labels(&snapshot_gc::selector());
    let contents = || cluster.all::<VolumeSnapshotContent>();
    let all = Controller::new(contents(), kept).graceful_shutdown_on(stop.cancelled_owned());
    let store = all.store();
    all.watches(contents(), watcher::Config::default(), move |other| {
        let same = store.state().into_iter().filter(|kept| snapshot_gc::share_snapshot(kept, &other));
        same.map(|kept| ObjectRef::from_obj(&*kept)).collect::<Vec<_>>()
    })
    .run(collect, |_, _, _| Requeue::requeue(COLLECT_AGAIN), Arc::new((cluster.clone(), config)))
    .for_each(|outcome| async move {
        if let Err(error) = outcome {
            warn!(%error, "the garbage collection of a storage snapshot failed");
        }
    })
    .await;
}

async fn collect(
    content: Arc<VolumeSnapshotContent>,
    context: Arc<(Cluster, Arc<Config>)>,
) -> cluster::Result<Requeue> {
    let (cluster, config) = &*context;
    let name = content.name_any();
    let all = cluster.all::<VolumeSnapshotContent>().list(&ListParams::default()).await?.items;
    let Some(content) = all.iter().find(|it| it.uid() == content.uid()) else { return Ok(Requeue::await_change()) };
    match snapshot_gc::decide(content, &all, &cluster::now(), config.free_after) {
        Collect::Patch(patch) => {
            cluster.change_content(&name, &patch).await?;
            info!(%patch, "changed the kept VolumeSnapshotContent {name}");
        }
        Collect::Delete => {
            cluster.delete_content(&name).await?;
            info!(
                policy = content.spec.deletion_policy,
                "requested the deletion of the kept VolumeSnapshotContent {name}"
            );
        }
        Collect::Later(left) => return Ok(Requeue::requeue(left)),
        Collect::Nothing => {}
    }
    // The event of the write reconciles the content again.
    Ok(Requeue::await_change())
}
