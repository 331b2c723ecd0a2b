//! What is in the cluster, read when it is needed, and the writes. Nothing is kept from one look to the next.

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{Progress, VolumeSnapshotBackup};
use crate::clock;
use crate::controller::backup::{self, Config, Observed, Stage, Velero};
use crate::controller::flow::{Helper, Mover, Object};
use crate::controller::names::{Kind, Subject};
use crate::controller::{compat, expose, job, repository};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use tracing::warn;

pub type Result<T> = std::result::Result<T, kube::Error>;

/// The label of a secret that says which backup location it belongs to.
const LOCATION_LABEL: &str = "openshift.io/oadp-bsl-name";
/// What comes after a storage class's name in the name of its options.
const OPTIONS_SUFFIX: &str = "-config";

/// The cluster as this controller reaches it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The protected namespace, in which all helpers are.
    pub namespace: String,
}

/// Who a backup is.
pub fn subject(backup: &VolumeSnapshotBackup) -> Subject {
    Subject {
        kind: Kind::Backup,
        namespace: backup.namespace().unwrap_or_default(),
        name: backup.name_any(),
        uid: backup.uid().unwrap_or_default(),
    }
}

impl Cluster {
    fn here<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.client.clone())
    }

    pub fn backups(&self) -> Api<VolumeSnapshotBackup> {
        Api::all(self.client.clone())
    }

    /// What tells this cluster from all others: the uid of `kube-system`, by custom.
    pub async fn id(&self) -> Result<String> {
        let namespace = Api::<Namespace>::all(self.client.clone()).get("kube-system").await?;
        Ok(namespace.uid().unwrap_or_default())
    }

    /// The backup as it is now.
    pub async fn backup(&self, namespace: &str, name: &str) -> Result<Option<VolumeSnapshotBackup>> {
        self.of(namespace).get_opt(name).await
    }

    /// Everything that matters to a backup now.
    pub async fn observe(&self, backup: &VolumeSnapshotBackup, turn: bool, config: &Config) -> Result<Observed> {
        let subject = subject(backup);
        let status = backup.status.clone().unwrap_or_default();
        let mut seen = Observed {
            finalizer: backup.finalizers().iter().any(|one| one == compat::FINALIZER),
            deleted: backup.meta().deletion_timestamp.is_some(),
            stage: compat::stage(&status),
            recorded: compat::recorded(&status),
            request: compat::request(backup),
            turn,
            ..Observed::default()
        };
        let got_on = status.moved.progress.and_then(|progress| progress.updated);
        let last = status.moved.start_timestamp.into_iter().chain(got_on).max();
        seen.quiet_for = last.and_then(|last| last.0.duration_until(now().0).try_into().ok());
        if seen.stage < Stage::Moved && !seen.deleted {
            self.observe_source(&subject, &mut seen).await?;
            if let Some(repository) = backup::repository(&subject, &seen, config) {
                let record = repository::record(&repository, &self.namespace).name_any();
                seen.repository_made = self.here::<ConfigMap>().get_opt(&record).await?.is_some();
            }
        }
        let name = subject.object_name();
        seen.exposed = expose::Seen {
            content: self.contents().get_opt(&name).await?,
            snapshot: self.here().get_opt(&name).await?,
            claim: self.here().get_opt(&name).await?,
        };
        seen.mover = self.mover(&subject, &name).await?;
        seen.cleaner = self.mover(&subject, &backup::cleaner(&subject)).await?;
        if let Some(job) = &seen.mover.job
            && let job::State::Running { pod } = job::observe(job, &seen.mover.pods)
        {
            seen.progress = self.progress(&pod).await;
        }
        Ok(seen)
    }

    async fn observe_source(&self, subject: &Subject, seen: &mut Observed) -> Result<()> {
        let request = seen.request.clone();
        if let Some(backup) = &request.backup {
            let phase = self.velero("Backup", backup).await?.and_then(|it| text(&it, "/status/phase"));
            if matches!(phase.as_deref(), Some("Failed" | "PartiallyFailed")) {
                seen.velero = Velero::Failed;
            }
        }
        if !request.content.is_empty() {
            seen.content = self.contents().get_opt(&request.content).await?;
        }
        let back = seen.content.as_ref().and_then(|content| content.spec.volume_snapshot_ref.name.clone());
        if let Some(name) = back {
            seen.snapshot = self.of::<VolumeSnapshot>(&subject.namespace).get_opt(&name).await?;
        }
        let claim = seen.snapshot.as_ref().and_then(|it| it.spec.source.persistent_volume_claim_name.clone());
        if let Some(name) = claim {
            seen.claim = self.of::<PersistentVolumeClaim>(&subject.namespace).get_opt(&name).await?;
        }
        if !request.secret.is_empty() {
            seen.secret = self.here::<Secret>().get_opt(&request.secret).await?;
        }
        let location = seen.secret.as_ref().and_then(|secret| secret.labels().get(LOCATION_LABEL).cloned());
        if let Some(location) = location {
            let location = self.velero("BackupStorageLocation", &location).await?;
            seen.prefix = location.and_then(|it| text(&it, "/spec/objectStorage/prefix")).unwrap_or_default();
        }
        let class = seen.claim.as_ref().and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
        if let Some(class) = class {
            let options = self.here::<ConfigMap>().get_opt(&format!("{class}{OPTIONS_SUFFIX}")).await?;
            seen.options = options.and_then(|options| options.data).unwrap_or_default();
        }
        Ok(())
    }

    /// An object of Velero's in the protected namespace; `None` also where there is no Velero.
    async fn velero(&self, kind: &str, name: &str) -> Result<Option<DynamicObject>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        api.get_opt(name).await
    }

    async fn mover(&self, subject: &Subject, name: &str) -> Result<Mover> {
        let job: Option<Job> = self.here().get_opt(name).await?;
        // By the name that the Job controller gives them: a Job that somebody deleted leaves its pods, and they count.
        let pods = ListParams::default().labels(&format!("{},batch.kubernetes.io/job-name={name}", subject.selector()));
        Ok(Mover {
            secret: self.here().get_opt(name).await?,
            config_map: self.here().get_opt(name).await?,
            pods: self.here::<Pod>().list(&pods).await?.items,
            job,
        })
    }

    /// What a running mover's log says last. No log is no reason to stop, but to say so: perhaps the right is missing.
    async fn progress(&self, pod: &str) -> Option<Progress> {
        let last = LogParams { tail_lines: Some(5), ..LogParams::default() };
        match self.here::<Pod>().logs(pod, &last).await {
            Ok(log) => log.lines().rev().find_map(job::progress),
            Err(error) => {
                warn!(pod, %error, "the mover's log, and with it its progress, cannot be read");
                None
            }
        }
    }

    pub async fn create(&self, object: &Object) -> Result<()> {
        let made = match object {
            Object::Content(it) => self.contents().create(&PostParams::default(), it).await.map(drop),
            Object::Snapshot(it) => self.create_here(&**it).await,
            Object::Claim(it) => self.create_here(&**it).await,
            Object::Secret(it) => self.create_here(&**it).await,
            Object::ConfigMap(it) => self.create_here(&**it).await,
            Object::Job(it) => self.create_here(&**it).await,
        };
        match made {
            // Somebody was quicker, perhaps we ourselves: the next look finds out whose it is.
            Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => Ok(()),
            made => made,
        }
    }

    async fn create_here<K>(&self, object: &K) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        self.here::<K>().create(&PostParams::default(), object).await.map(drop)
    }

    /// Writes a mover's description anew.
    pub async fn describe(&self, config_map: &ConfigMap) -> Result<()> {
        let patch = json!({"data": config_map.data, "metadata": {"annotations": config_map.metadata.annotations}});
        let name = config_map.name_any();
        self.here::<ConfigMap>().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    pub async fn delete(&self, helper: Helper, name: &str) -> Result<()> {
        match helper {
            Helper::Content => gone(self.contents().delete(name, &DeleteParams::default()).await.map(drop)),
            Helper::Snapshot => self.delete_here::<VolumeSnapshot>(name).await,
            Helper::Claim => self.delete_here::<PersistentVolumeClaim>(name).await,
            Helper::Secret => self.delete_here::<Secret>(name).await,
            Helper::ConfigMap => self.delete_here::<ConfigMap>(name).await,
            // With its pods, which stop in good order.
            Helper::Job => gone(self.here::<Job>().delete(name, &DeleteParams::foreground()).await.map(drop)),
        }
    }

    async fn delete_here<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        gone(self.here::<K>().delete(name, &DeleteParams::default()).await.map(drop))
    }

    /// Lets go of a mover's Job and pods.
    pub async fn release(&self, mover: &Mover) -> Result<()> {
        if let Some(job) = &mover.job {
            without_finalizer(&self.here::<Job>(), job, job::FINALIZER).await?;
        }
        for pod in &mover.pods {
            without_finalizer(&self.here::<Pod>(), pod, job::FINALIZER).await?;
        }
        Ok(())
    }

    pub async fn add_finalizer(&self, backup: &VolumeSnapshotBackup) -> Result<()> {
        let mut finalizers = backup.finalizers().to_vec();
        finalizers.push(compat::FINALIZER.to_owned());
        let api = self.of::<VolumeSnapshotBackup>(&backup.namespace().unwrap_or_default());
        set_finalizers(&api, backup, finalizers).await
    }

    pub async fn remove_finalizer(&self, backup: &VolumeSnapshotBackup) -> Result<()> {
        let api = self.of::<VolumeSnapshotBackup>(&backup.namespace().unwrap_or_default());
        without_finalizer(&api, backup, compat::FINALIZER).await
    }

    /// Writes the status, unless it was written by somebody else since it was read.
    pub async fn update(&self, backup: &VolumeSnapshotBackup, update: &backup::Update) -> Result<()> {
        let before = backup.status.clone().unwrap_or_default();
        let status = compat::apply(&before, update, backup.metadata.generation, &now());
        let patch = json!({"metadata": {"resourceVersion": backup.resource_version()}, "status": status});
        let api = self.of::<VolumeSnapshotBackup>(&backup.namespace().unwrap_or_default());
        api.patch_status(&backup.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}

fn now() -> Time {
    let (seconds, nanos) = clock::now();
    let nanos = i32::try_from(nanos).expect("less than a second");
    Time(Timestamp::new(seconds, nanos).expect("a time that clocks show"))
}

fn text(object: &DynamicObject, pointer: &str) -> Option<String> {
    object.data.pointer(pointer)?.as_str().map(str::to_owned)
}

/// What is gone already is as good as deleted.
fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => outcome,
    }
}

async fn without_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let left: Vec<String> = object.finalizers().iter().filter(|one| *one != finalizer).cloned().collect();
    if left.len() == object.finalizers().len() {
        return Ok(());
    }
    gone(set_finalizers(api, object, left).await)
}

async fn set_finalizers<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    // Of the very object that was read: another one of its name, or a list that somebody changed, is not ours to write.
    let meta = json!({"uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers});
    let patch = Patch::Merge(json!({ "metadata": meta }));
    api.patch(&object.name_any(), &PatchParams::default(), &patch).await.map(drop)
}
