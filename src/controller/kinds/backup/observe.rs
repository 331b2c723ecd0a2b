//! Reads the observation of a backup from the cluster.

use super::examine;
use super::observed::{Creation, Observed, SnapshotFate};
use crate::controller::cluster::{Result, find};
use crate::controller::dialect::Dialect;
use crate::controller::domain::backup::Backup;
use crate::controller::domain::record::Stage;
use crate::controller::kinds::observe::{self, Observer};
use crate::controller::mover_job::lifecycle;
use crate::controller::observed::Common;
use crate::controller::tenancy::repository::{self, Standing};
use crate::kubernetes::snapshot_api::VolumeSnapshot;
use crate::kubernetes::volumes::{snapshot_gc, snapshot_to_claim};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

/// Reads everything that the next decision needs.
pub async fn observe<R>(observer: Observer<'_, R>, common: Common) -> Result<Observed>
where
    R: Dialect<Direction = Backup>,
{
    let Observer { cluster, request, .. } = observer;
    let mut seen = Observed { common, request: request.request(), ..Observed::default() };
    let is_started = seen.common.stage() >= Stage::Started;
    let has_order = lifecycle::order(&seen.common.mover).is_some();
    if seen.common.is_open() {
        let velero = cluster.velero("Backup", seen.request.velero_backup.clone()).await?;
        seen.common.velero = observe::velero_state(velero.as_ref());
        if !has_order {
            source(&observer, &mut seen).await?;
        }
        if is_started && !(has_order && observe::is_running(&seen.common.mover)) {
            record(&observer, &mut seen).await?;
        }
    }
    // An open request that has its order only follows its mover.
    if is_started && !(has_order && seen.common.is_open()) {
        let name = request.owner().object_name();
        let claim = find(cluster.here(), &name).await?;
        seen.exposed = snapshot_to_claim::Existing {
            content: find(cluster.all(), &name).await?,
            snapshot: find(cluster.here(), &name).await?,
            volume: match &claim {
                Some(claim) => cluster.volume_of(claim).await?,
                None => None,
            },
            claim,
        };
    }
    // If the backup has problems, the storage snapshot may be the only complete copy.
    if seen.common.stage() == Stage::Cleaning && seen.common.record.problems.is_none() {
        let class = seen.exposed.content.as_ref().and_then(|it| it.spec.volume_snapshot_class_name.clone());
        if let Some(class) = class
            && cluster.snapshot_class(&class).await?.as_ref().is_some_and(snapshot_gc::is_allowed)
        {
            seen.snapshot_fate = SnapshotFate::IsCollected;
        }
    }
    Ok(seen)
}

/// The record of the repository, and the state of the backup that it names.
async fn record<R>(observer: &Observer<'_, R>, seen: &mut Observed) -> Result<()>
where
    R: Dialect<Direction = Backup>,
{
    let Observer { cluster, request, config } = observer;
    let owner = request.owner();
    let Some(repository) = examine::repository(&owner, seen, config) else { return Ok(()) };
    seen.record = find(cluster.here(), &repository::record_name(&repository)).await?;
    if let Standing::Begun(maker) = repository::standing(seen.record.as_ref())
        && maker.uid != owner.uid
    {
        let current: Option<R> = find(cluster.of(&owner.namespace), &maker.name).await?;
        let runs = current.is_some_and(|it| it.uid() == Some(maker.uid) && it.may_create_repository());
        seen.creation = if runs { Creation::Running } else { Creation::Idle };
    }
    Ok(())
}

/// The content, its snapshot, the claim, and the secret.
async fn source<R>(observer: &Observer<'_, R>, seen: &mut Observed) -> Result<()>
where
    R: Dialect<Direction = Backup>,
{
    let Observer { cluster, request, .. } = observer;
    let namespace = request.namespace().unwrap_or_default();
    if !seen.request.content.is_empty() {
        seen.content = find(cluster.all(), &seen.request.content).await?;
    }
    let back = seen.content.as_ref().and_then(|content| content.spec.volume_snapshot_ref.name.clone());
    if let Some(name) = back {
        seen.snapshot = find(cluster.of::<VolumeSnapshot>(&namespace), &name).await?;
    }
    let claim = seen.snapshot.as_ref().and_then(|it| it.spec.source.persistent_volume_claim_name.clone());
    if let Some(name) = claim {
        seen.claim = find(cluster.of::<PersistentVolumeClaim>(&namespace), &name).await?;
    }
    observer.secret(&seen.request.secret, &mut seen.common).await?;
    let class = seen.claim.as_ref().and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
    seen.common.options = cluster.options(class.as_deref()).await?;
    Ok(())
}
