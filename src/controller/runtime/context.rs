//! The context of all reconciles of one kind.

use super::metrics::Metrics;
use crate::controller::cluster::Cluster;
use crate::controller::config::Config;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub struct Context {
    pub cluster: Cluster,
    pub config: Arc<Config>,
    pub metrics: Metrics,
    /// Cancelled when no new action may begin.
    pub stop: CancellationToken,
    /// The number of requests that may be admitted at the same time.
    pub limit: usize,
    /// Held from counting the admitted requests until one is admitted.
    pub admission: Mutex<()>,
}

impl Context {
    pub fn new(
        cluster: Cluster,
        config: Arc<Config>,
        metrics: Metrics,
        stop: CancellationToken,
        limit: usize,
    ) -> Context {
        Context { cluster, config, metrics, stop, limit, admission: Mutex::new(()) }
    }
}
