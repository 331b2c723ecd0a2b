//! `vsm-controller`: the Deployment in the namespace of Velero.
//!
//! It is told everything by its [environment](vsm::controller::settings), because the OADP operator starts it without arguments.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::process::ExitCode;
use std::sync::Arc;
use vsm::api::{VolumeSnapshotBackup, VolumeSnapshotRestore};
use vsm::controller::cluster::Cluster;
use vsm::controller::flow::Config;
use vsm::controller::run::{self, Context};
use vsm::controller::settings::Settings;

/// Where Kubernetes tells a pod its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("VSM_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the controller ends");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let client = Client::try_default().await.context("no cluster can be reached")?;
    let (backups, restores) = (settings.backups, settings.restores);
    let (cluster, config) = complete(client, settings).await?;
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

/// What the settings leave open is asked of the cluster.
async fn complete(client: Client, settings: Settings) -> anyhow::Result<(Cluster, Config)> {
    let namespace = match &settings.namespace {
        Some(namespace) => namespace.clone(),
        None => std::fs::read_to_string(NAMESPACE)
            .with_context(|| format!("the namespace is neither in POD_NAMESPACE nor in {NAMESPACE}"))?,
    };
    let cluster = Cluster { client, namespace: namespace.clone() };
    let id = match &settings.cluster {
        Some(id) => id.clone(),
        None => cluster.id().await.context(
            "VSM_CLUSTER_ID is not set, and the namespace kube-system, whose uid it would be, cannot be read",
        )?,
    };
    let image = match &settings.image {
        Some(image) => image.clone(),
        None => own_image(&cluster, settings.pod.clone().unwrap_or_else(vsm::host::hostname)).await?,
    };
    Ok((cluster, settings.config(namespace, id, image)))
}

/// The image of this very pod: the mover is in it.
async fn own_image(cluster: &Cluster, name: String) -> anyhow::Result<String> {
    let namespace = &cluster.namespace;
    let pod = Api::<Pod>::namespaced(cluster.client.clone(), namespace).get(&name).await.with_context(|| {
        format!("VSM_MOVER_IMAGE is not set, and the pod {namespace}/{name}, whose image it would be, cannot be read")
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let image = containers.into_iter().next().and_then(|container| container.image);
    image.with_context(|| format!("the pod {namespace}/{name} names no image"))
}
