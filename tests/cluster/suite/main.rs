//! The controller on a real cluster, seen from outside: etcd, kube-apiserver, the controllers, kubelet, containerd, a CSI driver with
//! snapshots, an S3 server, and stock restic as the judge of what is in it. `tests/cluster/test` brings the cluster up to it and runs
//! these tests where they reach it.
//!
//! Nothing here uses the controller's own library. What is expected comes from the sheet on VolumeSnapshotMover's clients, from the
//! Kubernetes API, from restic, or from the volumes' own files.

mod app;
mod cluster;
#[allow(dead_code)]
#[path = "../../common/mod.rs"]
mod common;
mod contract;
mod disaster;
mod faults;
mod flows;
mod kills;
mod local;
mod rights;
mod scale;
mod sequence;
mod trust;
mod velero;
