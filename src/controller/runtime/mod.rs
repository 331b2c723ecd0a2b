//! The running controller: reconcile loop, queue, leader election, health, metrics, settings.

pub mod events;
pub mod health;
pub mod http_server;
pub mod leader_election;
pub mod metrics;
pub mod queue;
pub mod rbac;
pub mod reconcile;
pub mod settings;
pub mod waiting;
