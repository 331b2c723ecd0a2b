//! The configuration of a running controller, as its reconcilers use it.

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::time::Duration;

/// The configuration that all reconcilers share.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The protected namespace: that of the controller, of Velero and of all movers.
    pub namespace: String,
    /// The id of this cluster. It distinguishes the repositories of clusters that share a bucket.
    pub cluster: String,
    /// Secrets that may be used although they lack the label of the OADP operator.
    pub allowed_secrets: Vec<String>,
    pub mover: MoverSettings,
    /// Deadline for an admitted request's mover to start running.
    pub prepare: Duration,
    /// Deadline for a restored volume to be published, by a storage snapshot or a rebinding. Some
    /// storage systems upload a snapshot before it is ready.
    pub publish: Duration,
    /// How long a storage snapshot must have been orphaned before it is deleted.
    pub free_after: Duration,
    pub incomplete: Incomplete,
}

/// How a request ends whose data moved with problems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Incomplete {
    /// Completed, and degraded.
    #[default]
    Completes,
    Fails,
}

/// How movers run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MoverSettings {
    pub image: String,
    pub pull_policy: Option<String>,
    pub pull_secrets: Vec<String>,
    pub service_account: Option<String>,
    /// Retries of a failed pod by the Job controller.
    pub retries: i32,
    pub requests: BTreeMap<String, Quantity>,
    pub limits: BTreeMap<String, Quantity>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub priority_class: Option<String>,
    pub pod_labels: BTreeMap<String, String>,
    /// A ConfigMap with the certificates that movers trust instead of those in their image.
    pub ca_config_map: Option<String>,
    /// A ConfigMap with bandwidth limits, which a mover reads again while it runs.
    pub limits_config_map: Option<String>,
    /// The mover's environment: proxies, `VSM_MEMORY`, `VSM_THREADS`.
    pub environment: BTreeMap<String, String>,
    /// Run as the user that the image or the cluster chooses, without capabilities. Files that
    /// cannot be read or set then are counted as problems.
    pub unprivileged: bool,
}
