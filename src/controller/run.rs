//! The controller at work: watches say that something changed, and what is to be done is decided from what is there then.

use crate::api::VolumeSnapshotBackup;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::backup::{self, Config, Stage};
use crate::controller::cluster::{self, Cluster};
use crate::controller::compat;
use crate::controller::flow::{Act, Helper};
use crate::controller::names::{MANAGED_BY, OWNER_ANNOTATION};
use crate::controller::queue::{self, Entry, Place};
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
use tracing::{error, info, warn};

/// How often something that waits is looked at although nothing was heard of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a mover that runs is asked how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// Backups that are worked on at the same time, by this process; they wait for the apiserver, not for a core.
const CONCURRENCY: u16 = 8;
/// Writes after which a look at one backup ends: others want their turn, and a loop that does not end is a fault.
const STEPS: usize = 40;

/// What every look needs.
pub struct Context {
    pub cluster: Cluster,
    pub config: Config,
    /// Backups at a time.
    pub limit: usize,
    /// Held from the counting of places until one is taken.
    places: Mutex<()>,
}

impl Context {
    pub fn new(cluster: Cluster, config: Config, limit: usize) -> Context {
        Context { cluster, config, limit, places: Mutex::new(()) }
    }
}

/// Works until the process is told to stop.
pub async fn backups(context: Arc<Context>) {
    let cluster = &context.cluster;
    let all = Controller::new(cluster.backups(), watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .shutdown_on_signal();
    let (store, limit) = (all.store(), context.limit);
    let ours = || watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let client = || cluster.client.clone();
    let here = &cluster.namespace;
    all.watches(cluster.backups(), watcher::Config::default(), move |_| waiting(&store, limit))
        .watches(Api::<VolumeSnapshotContent>::all(client()), ours(), |it| owner(&it))
        .watches(Api::<VolumeSnapshot>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<PersistentVolumeClaim>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<Job>::namespaced(client(), here), ours(), |it| owner(&it))
        .watches(Api::<Pod>::namespaced(client(), here), ours(), |it| owner(&it))
        .run(reconcile, after_error, context)
        .for_each(|outcome| async move {
            if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) = outcome {
                error!(%error, "watching failed");
            }
        })
        .await;
}

/// What a helper was made for.
fn owner<K: Resource<DynamicType = ()>>(helper: &K) -> Option<ObjectRef<VolumeSnapshotBackup>> {
    let (namespace, name) = helper.annotations().get(OWNER_ANNOTATION)?.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

/// The backups whose turn it may be now: one of others has changed.
fn waiting(store: &Store<VolumeSnapshotBackup>, limit: usize) -> Vec<ObjectRef<VolumeSnapshotBackup>> {
    let all = store.state();
    let entries: Vec<Entry> = all.iter().map(|backup| entry(backup)).collect();
    let next = queue::next(&entries, limit);
    let named = |uid: &&str| all.iter().find(|backup| backup.uid().as_deref() == Some(uid));
    next.iter().filter_map(named).map(|backup| ObjectRef::from_obj(&**backup)).collect()
}

fn entry(backup: &VolumeSnapshotBackup) -> Entry {
    let status = backup.status.clone().unwrap_or_default();
    let state = match compat::stage(&status) {
        _ if compat::has_turn(&status) => Place::Working,
        Stage::New | Stage::Queued if backup.meta().deletion_timestamp.is_none() => Place::Waiting,
        _ => Place::Out,
    };
    let created = backup.creation_timestamp().map_or(0, |created| created.0.as_second());
    Entry { created, uid: backup.uid().unwrap_or_default(), state }
}

fn after_error(backup: Arc<VolumeSnapshotBackup>, error: &kube::Error, _: Arc<Context>) -> Action {
    let conflict = matches!(error, kube::Error::Api(error) if error.code == 409);
    if conflict {
        return Action::requeue(Duration::from_millis(100));
    }
    warn!(namespace = backup.namespace(), name = backup.name_any(), %error, "the cluster could not be asked or told");
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(backup: Arc<VolumeSnapshotBackup>, context: Arc<Context>) -> cluster::Result<Action> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    for _ in 0..STEPS {
        // The watch may be behind what we wrote a moment ago.
        let Some(backup) = context.cluster.backup(&namespace, &name).await? else { return Ok(Action::await_change()) };
        if let Some(action) = step(&backup, &context).await? {
            return Ok(action);
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// One look and one write. `Some`: there is nothing more to do until then.
async fn step(backup: &VolumeSnapshotBackup, context: &Context) -> cluster::Result<Option<Action>> {
    let Context { cluster, config, limit, places } = context;
    let subject = cluster::subject(backup);
    let stage = compat::stage(&backup.status.clone().unwrap_or_default());
    let waiting = stage < Stage::Started;
    let _held = if waiting { Some(places.lock().await) } else { None };
    let turn = waiting && {
        let all = cluster.backups().list(&ListParams::default()).await?;
        let entries: Vec<Entry> = all.iter().map(entry).collect();
        queue::next(&entries, *limit).contains(&subject.uid.as_str())
    };
    let seen = cluster.observe(backup, turn, config).await?;
    let act = backup::decide(&subject, &seen, config);
    let (namespace, name) = (&subject.namespace, &subject.name);
    match &act {
        Act::Wait(why) => {
            tracing::debug!(namespace, name, why, "waits");
            let running = seen.mover.job.is_some() && stage == Stage::Started;
            return Ok(Some(Action::requeue(if running { PROGRESS } else { PATIENCE })));
        }
        Act::Nothing => return Ok(Some(Action::await_change())),
        Act::AddFinalizer => cluster.add_finalizer(backup).await?,
        Act::RemoveFinalizer => cluster.remove_finalizer(backup).await?,
        Act::Status(update) => {
            info!(namespace, name, ?update, "records");
            cluster.update(backup, update).await?;
        }
        Act::Create(object) => {
            info!(namespace, name, kind = object.kind(), "creates");
            cluster.create(object).await?;
        }
        Act::Describe(config_map) => cluster.describe(config_map).await?,
        Act::Release { name: mover } => {
            let tidy = *mover == backup::cleaner(&subject);
            cluster.release(if tidy { &seen.cleaner } else { &seen.mover }).await?;
        }
        Act::Delete { helper, name: helper_name } => {
            info!(namespace, name, ?helper, helper_name, "deletes");
            // With the mover's Job goes the knowledge of what it left.
            if *helper == Helper::Job
                && *helper_name == subject.object_name()
                && let Some(why) = backup::untidied(&subject, &seen, config)
            {
                warn!(
                    namespace,
                    name,
                    why,
                    "a lock or a snapshot stays in the repository: `restic unlock` and `restic forget` remove them"
                );
            }
            cluster.delete(*helper, helper_name).await?;
        }
    }
    Ok(None)
}
