//! One mover as a Job: its spec, its state, its report, its lifecycle and its removal.

pub mod cleanup;
mod diagnose;
pub mod lifecycle;
pub mod mover;
pub mod observe;
mod pod;
pub mod progress;
mod spec;
pub mod status;
pub mod teardown;
