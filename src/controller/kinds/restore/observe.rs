//! Reads the observation of a restore from the cluster.

use super::examine;
use super::observed::Observed;
use crate::controller::cluster::{Result, find};
use crate::controller::dialect::Dialect;
use crate::controller::domain::record::Stage;
use crate::controller::domain::restore::Restore;
use crate::controller::kinds::observe::{self, Observer};
use crate::controller::mover_job::lifecycle;
use crate::controller::observed::{Admission, Common};
use crate::controller::tenancy::authorization::RunningRestore;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::{claim_to_snapshot, rebind};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::ListParams;

/// Reads everything that the next decision needs.
pub async fn observe<R>(observer: Observer<'_, R>, common: Common) -> Result<Observed>
where
    R: Dialect<Direction = Restore>,
{
    let mut seen = Observed { common, request: observer.request.request(), ..Observed::default() };
    if seen.common.is_open() {
        request(&observer, &mut seen).await?;
    }
    if seen.common.stage() >= Stage::Started {
        volume(&observer, &mut seen).await?;
    }
    Ok(seen)
}

/// The objects that the examination of the request needs.
async fn request<R>(observer: &Observer<'_, R>, seen: &mut Observed) -> Result<()>
where
    R: Dialect<Direction = Restore>,
{
    let Observer { cluster, request, .. } = observer;
    let namespace = request.namespace().unwrap_or_default();
    let restore = cluster.velero("Restore", seen.request.velero_restore.clone()).await?;
    seen.common.velero = observe::velero_state(restore.as_ref());
    seen.restore = restore.as_ref().and_then(observe::running_restore);
    seen.rivals = rivals(observer, seen.restore.as_ref()).await?;
    seen.common.options = cluster.options(Some(&*seen.request.claim.storage_class)).await?;
    if lifecycle::order(&seen.common.mover).is_some() {
        return Ok(());
    }
    observer.secret(&seen.request.secret, &mut seen.common).await?;
    seen.grants = cluster.grants(&namespace).await?;
    seen.missing_classes = missing_classes(observer, seen).await?;
    let runs = seen.common.admission == Admission::Admitted || seen.common.stage() >= Stage::Started;
    if seen.request.target.is_some() && runs {
        seen.missing_rights = cluster.missing_for_target(&namespace).await?;
    }
    Ok(())
}

/// The claim, its volume, and the objects that publish it.
async fn volume<R>(observer: &Observer<'_, R>, seen: &mut Observed) -> Result<()>
where
    R: Dialect<Direction = Restore>,
{
    let Observer { cluster, request, .. } = observer;
    let owner = request.owner();
    let claim: Option<PersistentVolumeClaim> = find(cluster.here(), &owner.object_name()).await?;
    let target: Option<PersistentVolumeClaim> = match &seen.request.target {
        Some(target) => find(cluster.of(&owner.namespace), &target.name).await?,
        None => None,
    };
    // While the mover fills the claim, nothing happens to its volume.
    let is_idle = !observe::is_running(&seen.common.mover) || !seen.common.is_open();
    let volume = match claim.as_ref().or(target.as_ref()).filter(|_| is_idle) {
        Some(claim) => cluster.volume_of(claim).await?,
        None => None,
    };
    seen.volume = rebind::Existing { claim, volume, target };
    if seen.request.target.is_none() && is_idle {
        let snapshot: Option<VolumeSnapshot> = find(cluster.here(), &owner.object_name()).await?;
        let bound = snapshot.as_ref().and_then(|it| it.status.as_ref()?.bound_volume_snapshot_content_name.clone());
        let content: Option<VolumeSnapshotContent> = match bound {
            Some(name) => find(cluster.all(), &name).await?,
            None => None,
        };
        seen.captured = claim_to_snapshot::Existing { snapshot, content };
    }
    Ok(())
}

/// Other restores that Velero's plugin finds by the same labels, failed ones included: it takes the
/// first of them for every claim. Any tenant can write these labels: a restore in a namespace that
/// the Velero Restore does not restore is denied, and is no rival.
async fn rivals<R>(observer: &Observer<'_, R>, running: Option<&RunningRestore>) -> Result<Vec<String>>
where
    R: Dialect<Direction = Restore>,
{
    let Observer { cluster, request, .. } = observer;
    let Some(same) = request.rivals() else { return Ok(vec![]) };
    let found = cluster.all::<R>().list(&ListParams::default().labels(&same)).await?;
    let others = found.iter().filter(|it| {
        let is_out = it.meta().deletion_timestamp.is_some()
            || running.is_some_and(|running| !running.reaches(&it.namespace().unwrap_or_default()));
        it.uid() != request.uid() && !is_out
    });
    Ok(others.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())).collect())
}

/// The classes that the request names and that do not exist.
async fn missing_classes<R>(observer: &Observer<'_, R>, seen: &Observed) -> Result<Vec<String>>
where
    R: Dialect<Direction = Restore>,
{
    let cluster = observer.cluster;
    let mut missing = Vec::new();
    if let Some(class) = examine::storage_class(seen)
        && find(cluster.all::<StorageClass>(), &class).await?.is_none()
    {
        missing.push(format!("StorageClass {class}"));
    }
    if let Some(class) = &seen.request.snapshot_class
        && seen.request.target.is_none()
        && cluster.snapshot_class(class).await?.is_none()
    {
        missing.push(format!("VolumeSnapshotClass {class}"));
    }
    Ok(missing)
}
