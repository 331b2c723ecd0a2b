//! Examination of a backup request: checks what the tenant may ask for, and derives the source from
//! the objects that exist.

use super::observed::Observed;
use crate::controller::action::{Action, Instead};
use crate::controller::config::Config;
use crate::controller::domain::backup::{Backup, Request, Volume};
use crate::controller::domain::names::Owner;
use crate::controller::mover_job::lifecycle;
use crate::controller::tenancy::credentials::{self, Credentials};
use crate::controller::tenancy::{Rejected, authorization, border};
use crate::kubernetes::quantity;
use crate::kubernetes::volumes::snapshot_to_claim::{Claim, SourceSnapshot};
use crate::provenance::Tag;
use crate::volume_mode::VolumeMode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The source of a backup.
pub struct Source {
    pub volume: Volume,
    pub snapshot: SourceSnapshot,
    /// The claim to expose the snapshot as.
    pub claim: Claim,
    pub tags: Vec<String>,
    /// The tag that all backups of the volume share.
    pub lineage: String,
    pub secrets: BTreeMap<String, ByteString>,
}

fn credentials(observed: &Observed, config: &Config) -> Result<Credentials, Rejected> {
    let Request { secret, protected_namespace, .. } = &observed.request;
    let named = credentials::Named { secret, protected_namespace };
    credentials::check(&named, observed.common.secret.as_ref(), &observed.common.prefix, config)
}

/// The repository that the backup writes to, as far as it is known yet.
pub fn repository(owner: &Owner, observed: &Observed, config: &Config) -> Option<String> {
    if let Some(Ok(order)) = lifecycle::order(&observed.common.mover) {
        return Some(order.work.repository);
    }
    let base = credentials(observed, config).ok()?.base;
    Some(base.of_volume(&config.cluster, &owner.namespace, &observed.claim.as_ref()?.name_any()))
}

/// Examines the request: returns the source, or the action instead of the backup.
pub fn source(owner: &Owner, observed: &Observed, config: &Config) -> Result<Source, Instead<Backup>> {
    let Request { content: wanted, protected_namespace, velero_backup, .. } = &observed.request;
    let invalid = |message: String| Err(Rejected::invalid(message).into());
    if wanted.is_empty() {
        return invalid("spec.volumeSnapshotContent.name is empty: it must name the content to back up".into());
    }
    border::backup(&observed.request)?;
    authorization::protected_namespace(protected_namespace, &config.namespace).map_err(Rejected::from)?;
    let Some(content) = &observed.content else {
        return invalid(format!("there is no VolumeSnapshotContent {wanted}"));
    };
    authorization::content_is_of(content, observed.snapshot.as_ref(), &owner.namespace).map_err(Rejected::from)?;
    let Credentials { base, secrets } = credentials(observed, config)?;
    let status = content.status.clone().unwrap_or_default();
    let Some(handle) = status.snapshot_handle.filter(|_| status.ready_to_use != Some(false)) else {
        return Err(Box::new(Action::Wait(format!("waiting for the VolumeSnapshotContent {wanted} to be ready"))));
    };
    let Some(claim) = &observed.claim else {
        return invalid(format!("the claim that the VolumeSnapshotContent {wanted} was taken of is deleted"));
    };
    let size = requested_size(claim)?;
    let spec = claim.spec.clone().unwrap_or_default();
    let mode = spec.volume_mode.as_deref().and_then(VolumeMode::parse).unwrap_or_default();
    let storage_class = spec.storage_class_name.unwrap_or_default();
    let option = |key: &str| observed.common.option(key);
    let access_modes = spec.access_modes.unwrap_or_default();
    let mut tags = vec![Tag::Backup.of(&owner.name)];
    tags.extend(velero_backup.as_ref().map(|backup| Tag::Velero.of(backup)));
    // A restore without the cluster needs these to create the claim again.
    tags.push(Tag::Size.of(&quantity::canonical(size)));
    tags.extend(Some(&*storage_class).filter(|class| !class.is_empty()).map(|class| Tag::StorageClass.of(class)));
    tags.extend(access_modes.iter().map(|mode| Tag::AccessMode.of(mode)));
    let snapshot_class = content.spec.volume_snapshot_class_name.clone();
    if let Some(mode) = option("SourceAccessMode") {
        border::access_mode("SourceAccessMode in the options of the storage class", &mode)?;
    }
    let claimed_class = Some(storage_class.clone()).filter(|it| !it.is_empty());
    Ok(Source {
        volume: Volume {
            repository: base.of_volume(&config.cluster, &owner.namespace, &claim.name_any()),
            claim: claim.name_any(),
            size: quantity::canonical(size),
            storage_class,
            snapshot_class: snapshot_class.clone().unwrap_or_default(),
            mode,
        },
        snapshot: SourceSnapshot {
            driver: content.spec.driver.clone(),
            handle,
            class: snapshot_class,
            volume_mode: content.spec.source_volume_mode.clone(),
        },
        claim: Claim {
            storage_class: option("SourceStorageClassName").or(claimed_class),
            access_modes: option("SourceAccessMode").map_or(access_modes, |mode| vec![mode]),
            volume_mode: mode,
            size,
        },
        tags,
        lineage: Tag::Lineage.of(&claim.uid().unwrap_or_default()),
        secrets,
    })
}

/// The bytes that a claim requests.
fn requested_size(claim: &PersistentVolumeClaim) -> Result<u64, Rejected> {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let requested = requests.and_then(|it| it.get("storage")).map(|it| it.0.as_str()).unwrap_or_default();
    let name = claim.name_any();
    quantity::bytes(requested)
        .ok_or_else(|| Rejected::invalid(format!("the claim {name} requests {requested:?}, which is not a size")))
}
