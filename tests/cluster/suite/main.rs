//! Tests the controller from outside on a real cluster: etcd, kube-apiserver, the controllers,
//! kubelet, containerd, a CSI driver with snapshots, an S3 server, and stock restic, which verifies
//! the repositories. `tests/cluster/test` deploys the controller and runs these tests in the
//! network of the cluster.
//!
//! The tests do not use the controller's own library. Expected values come from the sheet on
//! VolumeSnapshotMover's clients, from the Kubernetes API, from restic, or from the files of the
//! volumes.

mod app;
mod cluster;
#[allow(dead_code)]
#[path = "../../common/mod.rs"]
mod common;
mod contract;
mod disaster;
mod faults;
mod flows;
mod hostile;
mod kills;
mod local;
mod rights;
mod scale;
mod sequence;
mod trust;
mod velero;
