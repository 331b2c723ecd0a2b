//! `vsm-controller`: the Deployment in the namespace of Velero.
//!
//! It is told everything by its environment, because the OADP operator starts it without arguments.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use vsm::api::{VolumeSnapshotBackup, VolumeSnapshotRestore};
use vsm::controller::cluster::Cluster;
use vsm::controller::flow::Config;
use vsm::controller::job;
use vsm::controller::run::{self, Context};

/// Where Kubernetes tells a pod its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// VolumeSnapshotMover's variables for how many backups and restores run at a time.
const BACKUPS: &str = "DATAMOVER_CONCURRENT_BACKUP";
const RESTORES: &str = "DATAMOVER_CONCURRENT_RESTORE";
/// What they are unless set.
const LIMIT: usize = 10;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("VSM_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the controller cannot start");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn start() -> anyhow::Result<()> {
    use anyhow::Context as _;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let namespace = match variable("POD_NAMESPACE") {
        Some(namespace) => namespace,
        None => std::fs::read_to_string(NAMESPACE)
            .with_context(|| format!("the namespace is neither in POD_NAMESPACE nor in {NAMESPACE}"))?,
    };
    let client = Client::try_default().await.context("no cluster can be reached")?;
    let cluster = Cluster { client: client.clone(), namespace: namespace.clone() };
    let id = match variable("VSM_CLUSTER_ID") {
        Some(id) => id,
        None => {
            cluster.id().await.context("the namespace kube-system, whose uid tells clusters apart, cannot be read")?
        }
    };
    let image = match variable("VSM_MOVER_IMAGE") {
        Some(image) => image,
        None => own_image(client, &namespace).await?,
    };
    let limit = |name: &str| match variable(name) {
        Some(text) => text.parse().with_context(|| format!("{name} is {text:?}, and not a number")),
        None => Ok(LIMIT),
    };
    let (backups, restores) = (limit(BACKUPS)?, limit(RESTORES)?);
    let mover = job::Settings {
        image,
        pull_policy: variable("VSM_MOVER_PULL_POLICY"),
        service_account: variable("VSM_MOVER_SERVICE_ACCOUNT"),
        retries: 3,
        ..job::Settings::default()
    };
    let config = Config {
        namespace,
        cluster: id,
        allowed_secrets: variable("VSM_ALLOWED_SECRETS")
            .map(|list| list.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default(),
        mover,
        prepare: Duration::from_secs(30 * 60),
        hand_over: Duration::from_secs(12 * 60 * 60),
        incomplete_fails: variable("VSM_INCOMPLETE_FAILS").is_some_and(|value| value == "true"),
    };
    tracing::info!(
        namespace = config.namespace,
        cluster = config.cluster,
        image = config.mover.image,
        backups,
        restores,
        "starts"
    );
    let config = Arc::new(config);
    let context = |limit| Context::new(cluster.clone(), config.clone(), limit);
    tokio::join!(
        run::requests::<VolumeSnapshotBackup>(context(backups)),
        run::requests::<VolumeSnapshotRestore>(context(restores)),
    );
    Ok(())
}

/// The image of this very pod: the mover is in it.
async fn own_image(client: Client, namespace: &str) -> anyhow::Result<String> {
    use anyhow::Context as _;
    let name = vsm::host::hostname();
    let pod = Api::<Pod>::namespaced(client, namespace).get(&name).await.with_context(|| {
        format!("VSM_MOVER_IMAGE is not set, and the pod {namespace}/{name}, whose image it would be, cannot be read")
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let image = containers.into_iter().next().and_then(|container| container.image);
    image.with_context(|| format!("the pod {namespace}/{name} names no image"))
}
