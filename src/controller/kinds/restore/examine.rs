//! Examination of a restore request: checks what the tenant may read, and derives the claim to
//! create and the mover's order.

use super::observed::Observed;
use super::publish;
use crate::controller::config::Config;
use crate::controller::domain::names::Owner;
use crate::controller::domain::restore::Request;
use crate::controller::mover_job::lifecycle::Order;
use crate::controller::mover_job::mover::MOUNT_PATH;
use crate::controller::tenancy::authorization::{self, Reader};
use crate::controller::tenancy::credentials::{self, Credentials};
use crate::controller::tenancy::{Rejected, border};
use crate::id::Id;
use crate::kubernetes::quantity;
use crate::kubernetes::volumes::rebind;
use crate::provenance::{Layout, Tag};
use crate::volume_mode::VolumeMode;
use crate::work::{self, Pick, Reason, Task, VERSION, Work};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Rejects a restore that Velero's plugin cannot distinguish from another one: the plugin finds a
/// restore by the names of Velero's Restore and of the claim. It would confuse two restores with
/// the same names, and give an application the data of another: neither may succeed.
pub fn ambiguity(observed: &Observed) -> Option<Rejected> {
    let rivals = observed.rivals.join(", ");
    (!rivals.is_empty()).then(|| Rejected {
        reason: Reason::Ambiguous,
        message: format!(
            "Velero's plugin cannot distinguish this restore from {rivals}: the claims have the same name and are in the same Restore"
        ),
    })
}

/// The claim to create and fill.
pub struct FreshClaim {
    storage_class: Option<String>,
    access_modes: Vec<String>,
    pub mode: VolumeMode,
    size: String,
}

impl FreshClaim {
    pub fn of(observed: &Observed) -> Result<FreshClaim, Rejected> {
        let Request { claim, target, .. } = &observed.request;
        let target = target.clone().unwrap_or_default();
        let size = target.size.unwrap_or_else(|| claim.size.clone());
        let Some(bytes) = quantity::bytes(&size) else {
            return Err(Rejected::invalid(format!("the volume's size is {size:?}, which is not a size")));
        };
        let access_mode = || observed.common.option("DestinationAccessMode").unwrap_or_else(|| "ReadWriteOnce".into());
        Ok(FreshClaim {
            storage_class: storage_class(observed),
            access_modes: if target.access_modes.is_empty() { vec![access_mode()] } else { target.access_modes },
            mode: target.mode.or(observed.common.record.volume_mode).unwrap_or_default(),
            size: quantity::canonical(bytes),
        })
    }

    pub fn claim(&self, metadata: ObjectMeta) -> PersistentVolumeClaim {
        let spec = PersistentVolumeClaimSpec {
            storage_class_name: self.storage_class.clone(),
            access_modes: Some(self.access_modes.clone()),
            volume_mode: Some(self.mode.name().to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(self.size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        };
        PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
    }
}

/// The storage class of the claim to create; `None`: the cluster's default.
pub fn storage_class(observed: &Observed) -> Option<String> {
    let Request { claim, target, .. } = &observed.request;
    let asked = target.as_ref().and_then(|target| target.storage_class.clone());
    let before = Some(claim.storage_class.clone()).filter(|class| !class.is_empty());
    asked.or_else(|| observed.common.option("DestinationStorageClassName")).or(before)
}

/// Examines the request and returns the mover's order.
pub fn order(owner: &Owner, observed: &Observed, config: &Config) -> Result<Order, Rejected> {
    let Request { protected_namespace, secret, repository, claim, .. } = &observed.request;
    for (field, value) in [("sourcePVCData.name", &claim.name), ("resticrepository", repository)] {
        if value.is_empty() {
            return Err(Rejected::invalid(format!("spec.volumeSnapshotMoverBackupRef.{field} is empty")));
        }
    }
    border::restore(&observed.request)?;
    if let Some(mode) = observed.common.option("DestinationAccessMode") {
        border::access_mode("DestinationAccessMode in the options of the storage class", &mode)?;
    }
    let named = credentials::Named { secret, protected_namespace };
    let common = &observed.common;
    let Credentials { base, secrets } = credentials::check(&named, common.secret.as_ref(), &common.prefix, config)?;
    authorization::part_of(observed.restore.as_ref(), &owner.namespace)?;
    let (repository, layout) = base.locate(repository)?;
    let grants: Vec<String> = observed.grants.iter().filter_map(|it| Some(base.locate(it).ok()?.0)).collect();
    let reader = Reader {
        cluster: &config.cluster,
        protected: &config.namespace,
        namespace: &owner.namespace,
        restore: observed.restore.as_ref(),
        grants: &grants,
    };
    reader.may_read(&repository, &layout)?;
    check_target(owner, observed, config)?;
    let task = work::Restore {
        target: MOUNT_PATH.into(),
        pick: pick(&observed.request, &layout)?,
        absent_is_empty: observed.request.absent_is_empty,
    };
    let work = Work { version: VERSION, repository, task: Task::Restore(task), gone: vec![] };
    Ok(Order { work, secrets })
}

/// Checks that the claim can be created and its volume published.
fn check_target(owner: &Owner, observed: &Observed, config: &Config) -> Result<(), Rejected> {
    if !observed.missing_classes.is_empty() {
        let options = "the ConfigMap of options for the storage class, or spec.target, can name another";
        let missing = observed.missing_classes.join(", and no ");
        return Err(Rejected::invalid(format!("there is no {missing}; {options}")));
    }
    if let Some(right) = observed.missing_rights.first() {
        let (namespace, file) = (&owner.namespace, right.granted_by());
        let message = format!(
            "the controller may not {right} in namespace {namespace}, and spec.target needs that: manifests/base/{file} grants it"
        );
        return Err(Rejected { reason: Reason::Forbidden, message });
    }
    let goal = publish::rebinding(owner, observed, config);
    match goal.and_then(|goal| rebind::occupied(&goal, &observed.volume)) {
        Some(why) => Err(Rejected::invalid(why)),
        None => Ok(()),
    }
}

/// The snapshot to restore. The newest snapshot is the right one only in an old repository, which
/// has one backup of one volume.
fn pick(request: &Request, layout: &Layout) -> Result<Pick, Rejected> {
    if let Some(id) = &request.snapshot {
        let invalid = |_| Rejected::invalid(format!("spec.snapshotID is {id:?}, which is not an id of a snapshot"));
        return id.parse::<Id>().map(Pick::Id).map_err(invalid);
    }
    if matches!(layout, Layout::Old { .. }) {
        return Ok(Pick::Newest);
    }
    let Some(made_by) = &request.made_by else {
        return Err(Rejected::invalid(
            "the request does not name a snapshot: set spec.snapshotID, or spec.volumeSnapshotBackupName to its VolumeSnapshotBackup",
        ));
    };
    let mut tags = vec![Tag::Backup.of(made_by)];
    tags.extend(request.velero_backup.as_ref().map(|backup| Tag::Velero.of(backup)));
    Ok(Pick::Tagged(tags))
}
