//! What is read of the cluster for a look at a request. Only what can matter at its stage is asked for: a request that waits for its
//! turn has no helpers yet, what a mover was told needs no source any more, and while it runs nothing becomes of what it works on.

use super::{Cluster, Result, now};
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{Progress, VolumeSnapshotBackup, VolumeSnapshotRestore};
use crate::controller::dialect::vsm;
use crate::controller::domain::flow::{Common, Config, Mover, Stage, Velero};
use crate::controller::domain::names::Subject;
use crate::controller::kinds::Request;
use crate::controller::kinds::backup;
use crate::controller::kinds::restore;
use crate::controller::mover_job::job;
use crate::controller::mover_job::lifecycle;
use crate::controller::tenancy::authorization::RunningRestore;
use crate::controller::tenancy::repository::{self, Standing};
use crate::controller::volumes::claim_to_snapshot;
use crate::controller::volumes::rebind;
use crate::controller::volumes::snapshot_gc;
use crate::controller::volumes::snapshot_to_claim;
use crate::manifest::GRANT_LABEL;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use tracing::warn;

/// The label of a secret that says which backup location it belongs to.
const LOCATION_LABEL: &str = "openshift.io/oadp-bsl-name";
/// What comes after a storage class's name in the name of its options.
const OPTIONS_SUFFIX: &str = "-config";

/// Phases of a Velero Restore in which it is being carried out.
const UNDER_WAY: [&str; 5] = [
    "InProgress",
    "WaitingForPluginOperations",
    "WaitingForPluginOperationsPartiallyFailed",
    "Finalizing",
    "FinalizingPartiallyFailed",
];

impl Cluster {
    /// What every flow sees, but for what depends on what is asked for.
    pub async fn observe<R: Request>(&self, request: &R, turn: bool, config: &Config) -> Result<R::Observed> {
        let subject = request.subject();
        let status = request.moved();
        let got_on = status.progress.as_ref().and_then(|progress| progress.updated.clone());
        let last = status.start_timestamp.clone().into_iter().chain(got_on).max();
        let mut seen = Common {
            finalizer: request.finalizers().iter().any(|one| one == vsm::FINALIZER),
            deleted: request.meta().deletion_timestamp.is_some(),
            stage: vsm::stage(&status),
            recorded: vsm::recorded(&status),
            quiet_for: last.and_then(|last| now().0.duration_since(last.0).try_into().ok()),
            turn,
            ..Common::default()
        };
        if seen.stage >= Stage::Started {
            seen.mover = self.mover(&subject, &subject.object_name()).await?;
        }
        if seen.deleted || matches!(seen.stage, Stage::Ended { .. }) {
            seen.cleaner = self.mover(&subject, &lifecycle::cleaner(&subject)).await?;
        }
        if let Some(job) = &seen.mover.job
            && let job::State::Running { pod } = job::observe(job, &seen.mover.pods)
        {
            seen.progress = self.progress(&pod).await;
        }
        request.observe(self, seen, config).await
    }

    pub async fn observe_backup(
        &self,
        backup: &VolumeSnapshotBackup,
        common: Common,
        config: &Config,
    ) -> Result<backup::Observed> {
        let subject = backup.subject();
        let mut seen = backup::Observed { common, request: vsm::backup_request(backup), ..Default::default() };
        let (started, told) = (seen.common.stage >= Stage::Started, lifecycle::order(&seen.common.mover).is_some());
        if open(&seen.common) {
            seen.common.velero = verdict(self.velero("Backup", vsm::velero_backup(backup)).await?.as_ref());
            if !told {
                self.observe_source(&subject, &mut seen).await?;
            }
            if started && !(told && runs(&seen.common.mover)) {
                self.observe_record(&subject, &mut seen, config).await?;
            }
        }
        if started && !(told && open(&seen.common)) {
            let name = subject.object_name();
            let claim = self.here().get_opt(&name).await?;
            seen.exposed = snapshot_to_claim::Seen {
                content: self.contents().get_opt(&name).await?,
                snapshot: self.here().get_opt(&name).await?,
                volume: match &claim {
                    Some(claim) => self.volume_of(claim).await?,
                    None => None,
                },
                claim,
            };
        }
        // What could not be read whole may be all there is.
        if seen.common.stage == Stage::Cleaning && backup.moved().problems.is_none() {
            let class = seen.exposed.content.as_ref().and_then(|it| it.spec.volume_snapshot_class_name.clone());
            if let Some(class) = class {
                seen.frees = self.snapshot_class(&class).await?.as_ref().is_some_and(snapshot_gc::is_allowed);
            }
        }
        Ok(seen)
    }

    async fn observe_record(&self, subject: &Subject, seen: &mut backup::Observed, config: &Config) -> Result<()> {
        let Some(repository) = backup::repository(subject, seen, config) else { return Ok(()) };
        seen.record = self.here().get_opt(&repository::record_name(&repository)).await?;
        if let Standing::Begun(maker) = repository::standing(seen.record.as_ref())
            && maker.uid != subject.uid
        {
            let maker_now: Option<VolumeSnapshotBackup> = self.of(&subject.namespace).get_opt(&maker.name).await?;
            seen.being_made =
                maker_now.is_some_and(|now| now.uid() == Some(maker.uid) && vsm::may_make_repository(&now));
        }
        Ok(())
    }

    async fn observe_source(&self, subject: &Subject, seen: &mut backup::Observed) -> Result<()> {
        let request = seen.request.clone();
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
        self.observe_secret(&request.secret, &mut seen.common).await?;
        let class = seen.claim.as_ref().and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
        seen.common.options = self.options(class.as_deref()).await?;
        Ok(())
    }

    pub async fn observe_restore(&self, request: &VolumeSnapshotRestore, common: Common) -> Result<restore::Observed> {
        let subject = request.subject();
        let mut seen = restore::Observed {
            common,
            request: vsm::restore_request(request),
            mode: request.moved().volume_mode,
            ..Default::default()
        };
        if open(&seen.common) {
            let restore = self.velero("Restore", vsm::velero_restore(request)).await?;
            seen.common.velero = verdict(restore.as_ref());
            seen.restore = restore.as_ref().and_then(running);
            seen.rivals = self.rivals(request, seen.restore.as_ref()).await?;
            let class = seen.request.claim.storage_class_name.clone();
            seen.common.options = self.options(Some(&*class)).await?;
            if lifecycle::order(&seen.common.mover).is_none() {
                self.observe_secret(&seen.request.secret.clone(), &mut seen.common).await?;
                seen.grants = self.grants(&subject.namespace).await?;
                seen.missing = self.missing_classes(&seen).await?;
                if seen.request.target.is_some() && (seen.common.turn || seen.common.stage >= Stage::Started) {
                    seen.missing_rights = self.missing_for_target(&subject.namespace).await?;
                }
            }
        }
        if seen.common.stage < Stage::Started {
            return Ok(seen);
        }
        let claim: Option<PersistentVolumeClaim> = self.here().get_opt(&subject.object_name()).await?;
        let target: Option<PersistentVolumeClaim> = match &seen.request.target {
            Some(target) => self.of(&subject.namespace).get_opt(&target.name).await?,
            None => None,
        };
        // While a mover fills it, nothing becomes of it.
        let idle = !runs(&seen.common.mover) || !open(&seen.common);
        let volume = match claim.as_ref().or(target.as_ref()).filter(|_| idle) {
            Some(claim) => self.volume_of(claim).await?,
            None => None,
        };
        seen.volume = rebind::Seen { claim, volume, target };
        if seen.request.target.is_none() && idle {
            let snapshot: Option<VolumeSnapshot> = self.here().get_opt(&subject.object_name()).await?;
            let bound = snapshot.as_ref().and_then(|it| it.status.as_ref()?.bound_volume_snapshot_content_name.clone());
            let content: Option<VolumeSnapshotContent> = match bound {
                Some(name) => self.contents().get_opt(&name).await?,
                None => None,
            };
            seen.captured = claim_to_snapshot::Seen { snapshot, content };
        }
        Ok(seen)
    }

    async fn observe_secret(&self, name: &str, seen: &mut Common) -> Result<()> {
        if !name.is_empty() {
            seen.secret = self.here::<Secret>().get_opt(name).await?;
        }
        let location = seen.secret.as_ref().and_then(|secret| secret.labels().get(LOCATION_LABEL).cloned());
        let location = self.velero("BackupStorageLocation", location).await?;
        let prefix = location.as_ref().and_then(|it| text(it, "/spec/objectStorage/prefix"));
        seen.prefix = prefix.unwrap_or_default();
        Ok(())
    }

    /// The options of a storage class.
    async fn options(&self, class: Option<&str>) -> Result<BTreeMap<String, String>> {
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(BTreeMap::new()) };
        let options = self.here::<ConfigMap>().get_opt(&format!("{class}{OPTIONS_SUFFIX}")).await?;
        Ok(options.and_then(|options| options.data).unwrap_or_default())
    }

    async fn volume_of(&self, claim: &PersistentVolumeClaim) -> Result<Option<PersistentVolume>> {
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Api::all(self.client.clone()).get_opt(name).await,
            None => Ok(None),
        }
    }

    /// Other restores that Velero's plugin finds by the same labels: also those that have failed, because it takes the first of them for
    /// every claim. Anybody can write these labels: what the Velero Restore does not reach is refused, and is in nobody's way.
    async fn rivals(&self, restore: &VolumeSnapshotRestore, running: Option<&RunningRestore>) -> Result<Vec<String>> {
        let value = |key: &str| restore.labels().get(key).filter(|value| !value.is_empty());
        let (Some(run), Some(claim)) = (value(vsm::RESTORE_LABEL), value(vsm::CLAIM_LABEL)) else {
            return Ok(vec![]);
        };
        if restore.spec.target.is_some() {
            return Ok(vec![]);
        }
        let same = format!("{}={run},{}={claim}", vsm::RESTORE_LABEL, vsm::CLAIM_LABEL);
        let found = Api::<VolumeSnapshotRestore>::all(self.client.clone());
        let found = found.list(&ListParams::default().labels(&same)).await?;
        let others = found.iter().filter(|it| {
            let out = it.metadata.deletion_timestamp.is_some()
                || running.is_some_and(|running| !running.reaches(&it.namespace().unwrap_or_default()));
            it.uid() != restore.uid() && !out
        });
        Ok(others.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())).collect())
    }

    /// The repositories that administrators let a namespace read.
    async fn grants(&self, namespace: &str) -> Result<Vec<String>> {
        let to = ListParams::default().labels(&format!("{GRANT_LABEL}={namespace}"));
        let maps = self.here::<ConfigMap>().list(&to).await?;
        Ok(maps.into_iter().flat_map(|map| map.data.unwrap_or_default().into_values()).collect())
    }

    async fn missing_classes(&self, seen: &restore::Observed) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        if let Some(class) = restore::storage_class(seen)
            && Api::<StorageClass>::all(self.client.clone()).get_opt(&class).await?.is_none()
        {
            missing.push(format!("StorageClass {class}"));
        }
        if let Some(class) = &seen.request.snapshot_class
            && seen.request.target.is_none()
            && self.snapshot_class(class).await?.is_none()
        {
            missing.push(format!("VolumeSnapshotClass {class}"));
        }
        Ok(missing)
    }

    async fn snapshot_class(&self, name: &str) -> Result<Option<DynamicObject>> {
        let resource = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
        let mut resource = ApiResource::from_gvk(&resource);
        resource.plural = "volumesnapshotclasses".into();
        Api::all_with(self.client.clone(), &resource).get_opt(name).await
    }

    /// An object of Velero's in the protected namespace; `None` also where there is no Velero.
    async fn velero(&self, kind: &str, name: Option<String>) -> Result<Option<DynamicObject>> {
        let Some(name) = name else { return Ok(None) };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        match api.get_opt(&name).await {
            // A kind that is not known has no answer that says what is not found.
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(None),
            found => found,
        }
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
}

/// Whether it is not decided yet what comes of it.
fn open(seen: &Common) -> bool {
    seen.stage < Stage::Moved && !seen.deleted
}

/// Whether there is a mover that has not come to its end.
fn runs(mover: &Mover) -> bool {
    mover.job.as_ref().is_some_and(|job| !job::is_finished(job))
}

/// What became of the Backup or Restore of Velero's that something is a part of.
fn verdict(velero: Option<&DynamicObject>) -> Velero {
    let phase = velero.and_then(|it| text(it, "/status/phase"));
    if matches!(phase.as_deref(), Some("Failed" | "PartiallyFailed")) { Velero::Failed } else { Velero::Fine }
}

/// A Velero Restore, if it is under way.
fn running(restore: &DynamicObject) -> Option<RunningRestore> {
    let phase = text(restore, "/status/phase")?;
    if !UNDER_WAY.contains(&&*phase) {
        return None;
    }
    let names = |pointer: &str| {
        let list = restore.data.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let mapping = restore.data.pointer("/spec/namespaceMapping").and_then(Value::as_object);
    Some(RunningRestore {
        backup: text(restore, "/spec/backupName").unwrap_or_default(),
        mapping: mapping
            .into_iter()
            .flatten()
            .filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned())))
            .collect(),
        included: names("/spec/includedNamespaces"),
        excluded: names("/spec/excludedNamespaces"),
    })
}

fn text(object: &DynamicObject, pointer: &str) -> Option<String> {
    object.data.pointer(pointer)?.as_str().map(str::to_owned)
}
