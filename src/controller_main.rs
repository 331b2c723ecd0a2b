//! The program `vsm-controller`: runs the controller, in a Deployment in Velero's namespace.
//!
//! Most settings are in the [environment](vsm::controller::runtime::settings), because the OADP
//! operator starts the program without arguments.

use anyhow::Context as _;
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::client::ClientBuilder;
use kube::{Api, Client};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use vsm::api::{VolumeSnapshotBackup, VolumeSnapshotRestore};
use vsm::controller::cluster::Cluster;
use vsm::controller::cluster::guard::GuardLayer;
use vsm::controller::config::Config;
use vsm::controller::runtime::health::Health;
use vsm::controller::runtime::http_server::{self, Answer};
use vsm::controller::runtime::metrics::Metrics;
use vsm::controller::runtime::settings::Settings;
use vsm::controller::runtime::{Context, watch};
use vsm::kubernetes::leader_election::Candidate;

/// The file with the namespace of the pod, which Kubernetes mounts.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Deadline for running actions after a signal: less than a pod's termination grace period of 30 s.
const GRACE: Duration = Duration::from_secs(20);

/// Back up volume snapshots to restic repositories, and restore them. docs/operate/configuration.md
/// lists the environment variables.
#[derive(Parser)]
#[command(name = "vsm-controller", version)]
struct Options {
    /// Serve metrics at this address; 0 disables them
    #[arg(long, value_name = "[HOST]:PORT", default_value = ":8080")]
    metrics_bind_address: String,
    /// Serve /healthz and /readyz at this address; 0 disables them
    #[arg(long, value_name = "[HOST]:PORT", default_value = ":8081")]
    health_probe_bind_address: String,
    /// Work only while holding the lease, so that only one of several controllers works
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    vsm::host::forbid_core_dumps();
    let options = Options::parse();
    tracing_subscriber::fmt().json().with_env_filter(log_filter(std::env::var("VSM_LOG").ok().as_deref())).init();
    // A log entry in one line, like all others.
    std::panic::set_hook(Box::new(|panic| error!(%panic, "internal error (panic)")));
    match start(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the controller exits");
            ExitCode::FAILURE
        }
    }
}

/// The levels of the log. kube's client logs each answer that it cannot parse as a whole, which may
/// hold secrets: its warnings are never printed, whatever `VSM_LOG` says.
fn log_filter(levels: Option<&str>) -> EnvFilter {
    let filter = levels.and_then(|levels| EnvFilter::try_new(levels).ok()).unwrap_or_else(|| "info".into());
    filter.add_directive("kube_client::client=error".parse().expect("a directive"))
}

async fn start(options: Options) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let (metrics, health) = (Metrics::default(), Arc::new(Health::default()));
    let stop = stop_on_signals().context("cannot handle signals")?;
    let figures = metrics.clone();
    let answer = move |path: &str| (path == "/metrics").then(|| figures.answer());
    listen("metrics-bind-address", &options.metrics_bind_address, answer).await?;
    let probed = health.clone();
    listen("health-probe-bind-address", &options.health_probe_bind_address, move |path| probed.answer(path)).await?;

    let (backups, restores) = (settings.backups, settings.restores);
    let (cluster, config) = complete(client(&metrics).await?, settings).await?;
    let Config { namespace, cluster: id, mover, .. } = &config;
    info!(namespace, cluster = id, pod = cluster.pod, image = mover.image, backups, restores, "the controller starts");
    log_missing_rights(&cluster, &metrics).await;

    let config = Arc::new(config);
    let context = |limit| Context::new(cluster.clone(), config.clone(), metrics.clone(), stop.clone(), limit);
    let work = async {
        metrics.leads(true);
        health.expect(2);
        tokio::join!(
            watch::requests::<VolumeSnapshotBackup>(context(backups), &health),
            watch::requests::<VolumeSnapshotRestore>(context(restores), &health),
            watch::storage_snapshots(cluster.clone(), config.clone(), stop.clone()),
        );
    };
    let work = async {
        select! {
            () = work => {}
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
                warn!("an action has not ended after {} s: the next controller resumes it", GRACE.as_secs());
            }
        }
    };
    if options.leader_elect {
        let leases = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Candidate::new(leases, cluster.pod.clone()).lead(&stop, work).await?;
    } else {
        work.await;
    }
    anyhow::ensure!(stop.is_cancelled(), "the watches ended unexpectedly");
    info!("the controller has stopped");
    Ok(())
}

/// A token that SIGTERM and SIGINT cancel.
fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("the controller stops after its running actions have ended");
        cancelled.cancel();
    });
    Ok(stop)
}

async fn listen(
    option: &str,
    address: &str,
    answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let listener = http_server::listen(address).await.with_context(|| format!("--{option} {address}"))?;
    if let Some(listener) = listener {
        tokio::spawn(http_server::serve(listener, answer));
    }
    Ok(())
}

/// A client of the apiserver that counts every request, and gives each a deadline.
async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let reach = "cannot reach a cluster";
    let config = kube::Config::infer().await.context(reach)?;
    let metrics = metrics.clone();
    let counted = MapRequestLayer::new(move |request| {
        metrics.called(&request);
        request
    });
    Ok(ClientBuilder::try_from(config).context(reach)?.with_layer(&counted).with_layer(&GuardLayer).build())
}

/// Completes the settings with values from the cluster.
async fn complete(client: Client, settings: Settings) -> anyhow::Result<(Cluster, Config)> {
    let namespace = match &settings.namespace {
        Some(namespace) => namespace.clone(),
        None => std::fs::read_to_string(NAMESPACE)
            .with_context(|| format!("the namespace is neither in POD_NAMESPACE nor in {NAMESPACE}"))?,
    };
    let pod = settings.pod.clone().unwrap_or_else(vsm::host::hostname);
    let cluster = Cluster { client, namespace: namespace.clone(), pod };
    let id = match &settings.cluster {
        Some(id) => id.clone(),
        None => cluster.id().await.context(
            "VSM_CLUSTER_ID is not set, and the namespace kube-system, whose uid it would be, cannot be read",
        )?,
    };
    let image = match &settings.image {
        Some(image) => image.clone(),
        None => own_image(&cluster).await?,
    };
    Ok((cluster, settings.config(namespace, id, image)))
}

/// The image of the controller's own pod, which has the mover.
async fn own_image(Cluster { client, namespace, pod: name }: &Cluster) -> anyhow::Result<String> {
    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get(name).await.with_context(|| {
        format!("VSM_MOVER_IMAGE is not set, and the pod {namespace}/{name}, whose image it would be, cannot be read")
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let image = containers.into_iter().next().and_then(|container| container.image);
    image.with_context(|| format!("the pod {namespace}/{name} names no image"))
}

/// Logs missing rights. The controller starts nevertheless: some rights are needed seldom, and each
/// object that needs a missing right reports it.
async fn log_missing_rights(cluster: &Cluster, metrics: &Metrics) {
    match cluster.missing_rights().await {
        Ok(missing) => {
            metrics.missing_rights(missing.len());
            for right in missing {
                let namespace = right.namespace(&cluster.namespace).unwrap_or("all");
                let granted_by = format!("manifests/base/{}", right.granted_by());
                error!(right = %right, namespace, granted_by, "the controller lacks a right");
            }
        }
        Err(error) => warn!(%error, "cannot ask the apiserver for the controller's rights"),
    }
}
