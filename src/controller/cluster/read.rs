//! Reads single objects for an observation.

use super::{Cluster, Result};
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::Progress;
use crate::controller::mover_job::progress;
use crate::controller::observed::MoverObjects;
use crate::kubernetes::naming::is_object_name;
use crate::manifest::GRANT_LABEL;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use tracing::warn;

/// The suffix of a storage class's name in the name of the ConfigMap with its options.
const OPTIONS_SUFFIX: &str = "-config";

/// Log lines that are searched for the last progress.
const LOG_LINES: i64 = 5;

/// Bytes of these lines: a line of progress has some 200.
const LOG_BYTES: i64 = 64 << 10;

/// The object of a name. `None` also for a text that can be no object's name, which is not put into
/// a URL: a tenant may have written it.
pub async fn find<K: Clone + DeserializeOwned + Debug>(api: Api<K>, name: &str) -> Result<Option<K>> {
    if is_object_name(name) { api.get_opt(name).await } else { Ok(None) }
}

impl Cluster {
    /// The id of the cluster: by convention the uid of `kube-system`.
    pub async fn id(&self) -> Result<String> {
        let namespace = self.all::<Namespace>().get("kube-system").await?;
        Ok(namespace.uid().unwrap_or_default())
    }

    /// The options of a storage class.
    pub async fn options(&self, class: Option<&str>) -> Result<BTreeMap<String, String>> {
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(BTreeMap::new()) };
        let options = find(self.here::<ConfigMap>(), &format!("{class}{OPTIONS_SUFFIX}")).await?;
        Ok(options.and_then(|options| options.data).unwrap_or_default())
    }

    /// The volume that a claim names.
    pub async fn volume_of(&self, claim: &PersistentVolumeClaim) -> Result<Option<PersistentVolume>> {
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        match name.filter(|name| !name.is_empty()) {
            Some(name) => find(self.all(), name).await,
            None => Ok(None),
        }
    }

    /// The repositories that administrators let a namespace read.
    pub async fn grants(&self, namespace: &str) -> Result<Vec<String>> {
        let to = ListParams::default().labels(&format!("{GRANT_LABEL}={namespace}"));
        let maps = self.here::<ConfigMap>().list(&to).await?;
        Ok(maps.into_iter().flat_map(|map| map.data.unwrap_or_default().into_values()).collect())
    }

    pub async fn snapshot_class(&self, name: &str) -> Result<Option<DynamicObject>> {
        let resource = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
        let mut resource = ApiResource::from_gvk(&resource);
        resource.plural = "volumesnapshotclasses".into();
        find(Api::all_with(self.client.clone(), &resource), name).await
    }

    /// An object of Velero in the protected namespace; `None` also without Velero.
    pub async fn velero(&self, kind: &str, name: Option<String>) -> Result<Option<DynamicObject>> {
        let Some(name) = name else { return Ok(None) };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        match find(api, &name).await {
            // For a kind that does not exist the apiserver's 404 is plain text, not a Status.
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(None),
            found => found,
        }
    }

    /// The objects of a mover.
    pub async fn mover(&self, owner: &Owner, name: &str) -> Result<MoverObjects> {
        let job = find(self.here(), name).await?;
        // The label of the Job controller finds the pods of a Job that a user deleted without them.
        let pods = ListParams::default().labels(&format!("{},batch.kubernetes.io/job-name={name}", owner.selector()));
        Ok(MoverObjects {
            secret: find(self.here(), name).await?,
            config_map: find(self.here(), name).await?,
            pods: self.here::<Pod>().list(&pods).await?.items,
            job,
        })
    }

    /// The last progress in the log of a running mover. If the log cannot be read, this only logs a
    /// warning, because the right may be missing: the mover runs without it.
    pub async fn progress(&self, pod: &str) -> Option<Progress> {
        let last = LogParams { tail_lines: Some(LOG_LINES), limit_bytes: Some(LOG_BYTES), ..LogParams::default() };
        match self.here::<Pod>().logs(pod, &last).await {
            Ok(log) => log.lines().rev().find_map(progress::parse),
            Err(error) => {
                warn!(pod, %error, "cannot read the progress in the mover's log");
                None
            }
        }
    }
}
