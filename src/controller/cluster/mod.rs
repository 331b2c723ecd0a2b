//! The cluster: reads objects from the apiserver when they are needed, and writes them. Nothing is
//! cached between two reconciles.

pub mod events;
pub mod guard;
mod merge_patch;
pub mod rbac;
mod read;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::controller::action::{Managed, Object};
use crate::controller::dialect::{Dialect, Now};
use crate::controller::domain::direction::Update;
use crate::controller::domain::names::Owner;
use crate::controller::mover_job::mover::FINALIZER;
use crate::controller::observed::MoverObjects;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::rebind;
use events::News;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use rbac::Right;
pub use read::find;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;

pub type Result<T> = std::result::Result<T, kube::Error>;

/// A connection to the apiserver.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The protected namespace, which has all managed objects.
    pub namespace: String,
    /// The name of the controller's own pod.
    pub pod: String,
}

/// The result of [`Cluster::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    Existing,
}

/// Rights that are checked at the same time.
const ASKED: usize = 8;

impl Cluster {
    /// Objects in the protected namespace.
    pub fn here<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects in a namespace.
    pub fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects in all namespaces, or cluster-scoped ones.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// The rights that the controller lacks.
    pub async fn missing_rights(&self) -> Result<Vec<Right>> {
        self.missing(rbac::all(), |right| right.namespace(&self.namespace)).await
    }

    /// The rights that the controller lacks to restore into a claim in a namespace.
    pub async fn missing_for_target(&self, namespace: &str) -> Result<Vec<Right>> {
        self.missing(rbac::of_targets(), |_| Some(namespace)).await
    }

    async fn missing<'n>(
        &self,
        rights: impl Iterator<Item = Right>,
        namespace: impl Fn(&Right) -> Option<&'n str>,
    ) -> Result<Vec<Right>> {
        let reviews: Api<SelfSubjectAccessReview> = self.all();
        let ask = |right: Right| {
            let reviews = reviews.clone();
            let question = right.question(namespace(&right));
            async move {
                let answer = reviews.create(&PostParams::default(), &question).await?;
                Ok::<_, kube::Error>(rbac::is_denied(answer.status.as_ref()).then_some(right))
            }
        };
        let denied: Vec<Option<Right>> = stream::iter(rights).map(ask).buffered(ASKED).try_collect().await?;
        Ok(denied.into_iter().flatten().collect())
    }

    /// Creates an Event of a request.
    pub async fn create_event<R: Dialect>(&self, request: &R, news: News) -> Result<()> {
        let event = events::event(news, request.object_ref(&()), &self.pod, now());
        let events = self.of::<Event>(&request.namespace().unwrap_or_default());
        events.create(&PostParams::default(), &event).await.map(drop)
    }

    /// Creates an object, unless one of its name exists.
    pub async fn create(&self, object: &Object) -> Result<Created> {
        let created = match object {
            Object::Content(it) => {
                self.all::<VolumeSnapshotContent>().create(&PostParams::default(), it).await.map(drop)
            }
            Object::Snapshot(it) => self.create_here(&**it).await,
            // The target of a restore is in the tenant's namespace.
            Object::Claim(it) => {
                let claims = self.of::<PersistentVolumeClaim>(&it.namespace().unwrap_or_default());
                claims.create(&PostParams::default(), it).await.map(drop)
            }
            Object::Secret(it) => self.create_here(&**it).await,
            Object::ConfigMap(it) => self.create_here(&**it).await,
            Object::Job(it) => self.create_here(&**it).await,
        };
        match created {
            // The object was created meanwhile, perhaps by this controller: the next observation
            // finds its owner.
            Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => Ok(Created::Existing),
            created => created.map(|()| Created::New),
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

    /// Writes a ConfigMap again. If it has a resource version, only over that version (optimistic
    /// concurrency).
    pub async fn rewrite(&self, config_map: &ConfigMap) -> Result<()> {
        let mut patch = json!({"data": config_map.data, "metadata": {"annotations": config_map.metadata.annotations}});
        if let Some(version) = config_map.resource_version() {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let name = config_map.name_any();
        self.here::<ConfigMap>().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Deletes a managed object of a request. A missing object counts as deleted.
    pub async fn delete(&self, owner: &Owner, managed: Managed, name: &str) -> Result<()> {
        let default = DeleteParams::default();
        match managed {
            Managed::Content => self.delete_content(name).await,
            Managed::Snapshot => delete_in(&self.here::<VolumeSnapshot>(), name, &default).await,
            Managed::Claim => delete_in(&self.here::<PersistentVolumeClaim>(), name, &default).await,
            Managed::Secret => delete_in(&self.here::<Secret>(), name, &default).await,
            Managed::ConfigMap => delete_in(&self.here::<ConfigMap>(), name, &default).await,
            Managed::Target => delete_in(&self.of::<PersistentVolumeClaim>(&owner.namespace), name, &default).await,
            // In the foreground: its pods are stopped first, with their grace period.
            Managed::Job => {
                let jobs = self.here::<k8s_openapi::api::batch::v1::Job>();
                delete_in(&jobs, name, &DeleteParams::foreground()).await
            }
        }
    }

    /// Removes our finalizer from a mover's Job and pods.
    pub async fn release(&self, mover: &MoverObjects) -> Result<()> {
        if let Some(job) = &mover.job {
            without_finalizer(&self.here(), job, FINALIZER).await?;
        }
        for pod in &mover.pods {
            without_finalizer(&self.here::<Pod>(), pod, FINALIZER).await?;
        }
        Ok(())
    }

    pub async fn change_volume(&self, name: &str, change: &rebind::Change) -> Result<()> {
        let volumes: Api<PersistentVolume> = self.all();
        volumes.patch(name, &PatchParams::default(), &Patch::Merge(change.patch())).await.map(drop)
    }

    pub async fn change_content(&self, name: &str, patch: &Value) -> Result<()> {
        let contents: Api<VolumeSnapshotContent> = self.all();
        ignore_missing(contents.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
    }

    pub async fn delete_content(&self, name: &str) -> Result<()> {
        delete_in(&self.all::<VolumeSnapshotContent>(), name, &DeleteParams::default()).await
    }

    pub async fn add_finalizer<R: Dialect>(&self, request: &R) -> Result<()> {
        let mut finalizers = request.finalizers().to_vec();
        finalizers.push(R::FINALIZER.to_owned());
        let labels: BTreeMap<&str, &str> = R::LABELS.iter().copied().collect();
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        patch_meta(&api, request, json!({"finalizers": finalizers, "labels": labels})).await
    }

    pub async fn remove_finalizer<R: Dialect>(&self, request: &R) -> Result<()> {
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        without_finalizer(&api, request, R::FINALIZER).await
    }

    /// Writes the status over the version of the request that was read, and returns the request
    /// after it.
    pub async fn update<R: Dialect>(&self, request: &R, update: &Update<R::Direction>) -> Result<R> {
        let after = request.status_after(update, &Now { time: now(), generation: request.meta().generation });
        let as_json = |status: &R::Status| serde_json::to_value(status).expect("plain data");
        let status = merge_patch::between(&as_json(&request.status()), &as_json(&after));
        let patch = json!({"metadata": {"resourceVersion": request.resource_version()}, "status": status});
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        api.patch_status(&request.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
    }
}

/// The current time.
pub fn now() -> Time {
    let (seconds, nanos) = clock::now();
    let nanos = i32::try_from(nanos).expect("less than a second");
    Time(Timestamp::new(seconds, nanos).expect("a time that clocks show"))
}

/// An object that does not exist need not be changed or deleted.
fn ignore_missing(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => outcome,
    }
}

async fn delete_in<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str, how: &DeleteParams) -> Result<()> {
    ignore_missing(api.delete(name, how).await.map(drop))
}

async fn without_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let left: Vec<String> = object.finalizers().iter().filter(|one| *one != finalizer).cloned().collect();
    if left.len() == object.finalizers().len() {
        return Ok(());
    }
    ignore_missing(patch_meta(api, object, json!({"finalizers": left})).await)
}

/// Patches the metadata of the object that was read, by its uid and resource version: never that of
/// another object of the same name, and never over another process's change of a list.
async fn patch_meta<K>(api: &Api<K>, object: &K, mut meta: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    meta["uid"] = json!(object.uid());
    meta["resourceVersion"] = json!(object.resource_version());
    let patch = Patch::Merge(json!({ "metadata": meta }));
    api.patch(&object.name_any(), &PatchParams::default(), &patch).await.map(drop)
}
