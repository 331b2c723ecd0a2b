//! What is in the cluster, read when it is needed, and the writes. Nothing is kept from one look to the next.

mod merge_patch;
mod observe;
#[cfg(test)]
mod tests;

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::clock;
use crate::controller::dialect::vsm::{self, Now};
use crate::controller::domain::flow::{Helper, Mover, Object, Update};
use crate::controller::domain::names::Subject;
use crate::controller::kinds::Request;
use crate::controller::mover_job::job;
use crate::controller::runtime::events::{self, News};
use crate::controller::runtime::rbac::{self, Right};
use crate::controller::volumes::rebind;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;

pub type Result<T> = std::result::Result<T, kube::Error>;

/// The cluster as this controller reaches it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The protected namespace, in which all helpers are.
    pub namespace: String,
    /// The name of its own pod.
    pub pod: String,
}

/// How many rights are asked for at a time.
const ASKED: usize = 8;

impl Cluster {
    fn here<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.client.clone())
    }

    /// Objects of one kind in all namespaces.
    pub fn all<R: Request>(&self) -> Api<R> {
        Api::all(self.client.clone())
    }

    /// What tells this cluster from all others: the uid of `kube-system`, by custom.
    pub async fn id(&self) -> Result<String> {
        let namespace = Api::<Namespace>::all(self.client.clone()).get("kube-system").await?;
        Ok(namespace.uid().unwrap_or_default())
    }

    /// The rights that it lacks of all that it needs.
    pub async fn missing_rights(&self) -> Result<Vec<Right>> {
        self.missing(rbac::all(), |right| right.namespace(&self.namespace)).await
    }

    /// The rights that it lacks to fill a claim in a namespace.
    pub async fn missing_for_target(&self, namespace: &str) -> Result<Vec<Right>> {
        self.missing(rbac::of_targets(), |_| Some(namespace)).await
    }

    async fn missing<'n>(
        &self,
        rights: impl Iterator<Item = Right>,
        namespace: impl Fn(&Right) -> Option<&'n str>,
    ) -> Result<Vec<Right>> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
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

    /// Tells people something of a request.
    pub async fn tell<R: Request>(&self, request: &R, news: News) -> Result<()> {
        let event = events::event(news, request.object_ref(&()), &self.pod, now());
        let events = self.of::<Event>(&request.namespace().unwrap_or_default());
        events.create(&PostParams::default(), &event).await.map(drop)
    }

    /// The request as it is now.
    pub async fn current<R: Request>(&self, namespace: &str, name: &str) -> Result<Option<R>> {
        self.of(namespace).get_opt(name).await
    }

    pub async fn create(&self, object: &Object) -> Result<()> {
        let made = match object {
            Object::Content(it) => self.contents().create(&PostParams::default(), it).await.map(drop),
            Object::Snapshot(it) => self.create_here(&**it).await,
            // A restore's target is in the namespace of whoever asked for it.
            Object::Claim(it) => {
                let claims = self.of::<PersistentVolumeClaim>(&it.namespace().unwrap_or_default());
                claims.create(&PostParams::default(), it).await.map(drop)
            }
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

    /// Writes a ConfigMap anew; one that says which version it was read at, only if nobody else has written it since.
    pub async fn rewrite(&self, config_map: &ConfigMap) -> Result<()> {
        let mut patch = json!({"data": config_map.data, "metadata": {"annotations": config_map.metadata.annotations}});
        if let Some(version) = config_map.resource_version() {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let name = config_map.name_any();
        self.here::<ConfigMap>().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Deletes a helper of somebody.
    pub async fn delete(&self, subject: &Subject, helper: Helper, name: &str) -> Result<()> {
        match helper {
            Helper::Content => self.delete_content(name).await,
            Helper::Snapshot => self.delete_here::<VolumeSnapshot>(name).await,
            Helper::Claim => self.delete_here::<PersistentVolumeClaim>(name).await,
            Helper::Secret => self.delete_here::<Secret>(name).await,
            Helper::ConfigMap => self.delete_here::<ConfigMap>(name).await,
            Helper::Target => {
                let claims = self.of::<PersistentVolumeClaim>(&subject.namespace);
                gone(claims.delete(name, &DeleteParams::default()).await.map(drop))
            }
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

    pub async fn change_volume(&self, name: &str, change: &rebind::Change) -> Result<()> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        volumes.patch(name, &PatchParams::default(), &Patch::Merge(change.patch())).await.map(drop)
    }

    pub async fn change_content(&self, name: &str, patch: &Value) -> Result<()> {
        gone(self.contents().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
    }

    pub async fn delete_content(&self, name: &str) -> Result<()> {
        gone(self.contents().delete(name, &DeleteParams::default()).await.map(drop))
    }

    pub async fn add_finalizer<R: Request>(&self, request: &R) -> Result<()> {
        let mut finalizers = request.finalizers().to_vec();
        finalizers.push(vsm::FINALIZER.to_owned());
        let labels: BTreeMap<&str, &str> = R::LABELS.iter().copied().collect();
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        set_meta(&api, request, json!({"finalizers": finalizers, "labels": labels})).await
    }

    pub async fn remove_finalizer<R: Request>(&self, request: &R) -> Result<()> {
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        without_finalizer(&api, request, vsm::FINALIZER).await
    }

    /// Writes the status, unless it was written by somebody else since it was read, and returns the request as it is then.
    pub async fn update<R: Request>(&self, request: &R, update: &Update<R::Known, R::Brought>) -> Result<R> {
        let after = request.after(update, &Now { time: now(), generation: request.meta().generation });
        let as_json = |status: &R::Status| serde_json::to_value(status).expect("plain data");
        let status = merge_patch::between(&as_json(&request.before()), &as_json(&after));
        let patch = json!({"metadata": {"resourceVersion": request.resource_version()}, "status": status});
        let api = self.of::<R>(&request.namespace().unwrap_or_default());
        api.patch_status(&request.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
    }
}

/// The time, as Kubernetes writes it.
pub fn now() -> Time {
    let (seconds, nanos) = clock::now();
    let nanos = i32::try_from(nanos).expect("less than a second");
    Time(Timestamp::new(seconds, nanos).expect("a time that clocks show"))
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
    gone(set_meta(api, object, json!({"finalizers": left})).await)
}

/// Of the very object that was read: another one of its name, or a list that somebody changed, is not ours to write.
async fn set_meta<K>(api: &Api<K>, object: &K, mut meta: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    meta["uid"] = json!(object.uid());
    meta["resourceVersion"] = json!(object.resource_version());
    let patch = Patch::Merge(json!({ "metadata": meta }));
    api.patch(&object.name_any(), &PatchParams::default(), &patch).await.map(drop)
}
