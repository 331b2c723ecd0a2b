//! The kinds of objects that are worked on, each with its flow. All that runs, reads or writes is the same for all of them.

pub mod backup;
pub mod restore;

use crate::api::{BackupStatus, MoveStatus, RestoreStatus, VolumeSnapshotBackup, VolumeSnapshotRestore};
use crate::controller::cluster::{Cluster, Result};
use crate::controller::dialect::vsm::{self, Now};
use crate::controller::domain::flow::{Act, Common, Config, Update};
use crate::controller::domain::names::{Kind, Subject};
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A kind of object that asks for data to be moved.
pub trait Request:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: Kind;
    /// The labels that it is given with the finalizer.
    const LABELS: &'static [(&'static str, &'static str)];
    type Status: Serialize + Send + Sync;
    type Observed: Send + Sync;
    /// What is recorded at the start, and when the data has moved.
    type Known: Debug + Send + Sync;
    type Brought: Debug + Send + Sync;

    /// What all kinds have in their status.
    fn moved(&self) -> MoveStatus;
    /// The whole status, as far as its fields are known here.
    fn before(&self) -> Self::Status;
    fn after(&self, update: &Update<Self::Known, Self::Brought>, now: &Now) -> Self::Status;

    /// Everything that matters to it now, but for what all flows see.
    fn observe(
        &self,
        cluster: &Cluster,
        common: Common,
        config: &Config,
    ) -> impl Future<Output = Result<Self::Observed>> + Send;
    fn common(observed: &Self::Observed) -> &Common;
    fn decide(subject: &Subject, observed: &Self::Observed, config: &Config)
    -> Act<Update<Self::Known, Self::Brought>>;

    fn subject(&self) -> Subject {
        Subject {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            uid: self.uid().unwrap_or_default(),
        }
    }
}

impl Request for VolumeSnapshotBackup {
    const KIND: Kind = Kind::Backup;
    // Velero must have it in the backup: it is the record of where the data is.
    const LABELS: &'static [(&'static str, &'static str)] = &[];
    type Status = BackupStatus;
    type Observed = backup::Observed;
    type Known = backup::Volume;
    type Brought = backup::Brought;

    fn moved(&self) -> MoveStatus {
        self.status.clone().unwrap_or_default().moved
    }

    fn before(&self) -> BackupStatus {
        self.status.clone().unwrap_or_default()
    }

    fn after(&self, update: &backup::Update, now: &Now) -> BackupStatus {
        let mut status = self.before();
        vsm::apply_to_backup(&mut status, update, now);
        status
    }

    async fn observe(&self, cluster: &Cluster, common: Common, config: &Config) -> Result<backup::Observed> {
        cluster.observe_backup(self, common, config).await
    }

    fn common(observed: &backup::Observed) -> &Common {
        &observed.common
    }

    fn decide(subject: &Subject, observed: &backup::Observed, config: &Config) -> Act<backup::Update> {
        backup::decide(subject, observed, config)
    }
}

impl Request for VolumeSnapshotRestore {
    const KIND: Kind = Kind::Restore;
    // Brought back with its namespace it would be carried out again.
    const LABELS: &'static [(&'static str, &'static str)] = &[vsm::EXCLUDE_LABEL];
    type Status = RestoreStatus;
    type Observed = restore::Observed;
    type Known = restore::Known;
    type Brought = restore::Brought;

    fn moved(&self) -> MoveStatus {
        self.status.clone().unwrap_or_default().moved
    }

    fn before(&self) -> RestoreStatus {
        self.status.clone().unwrap_or_default()
    }

    fn after(&self, update: &restore::Update, now: &Now) -> RestoreStatus {
        let mut status = self.before();
        vsm::apply_to_restore(&mut status, update, now);
        status
    }

    async fn observe(&self, cluster: &Cluster, common: Common, _: &Config) -> Result<restore::Observed> {
        cluster.observe_restore(self, common).await
    }

    fn common(observed: &restore::Observed) -> &Common {
        &observed.common
    }

    fn decide(subject: &Subject, observed: &restore::Observed, config: &Config) -> Act<restore::Update> {
        restore::decide(subject, observed, config)
    }
}
