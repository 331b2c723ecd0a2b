//! One mover as a Job: its spec, its state, its report, its lifecycle.

pub mod job;
pub mod lifecycle;
