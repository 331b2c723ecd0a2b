//! The running controller: watches, reconcile loop, queue, health, metrics, settings.

mod act;
mod context;
pub mod health;
pub mod http_server;
pub mod metrics;
mod queue;
mod reconcile;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod wait_status;
pub mod watch;

pub use context::Context;
