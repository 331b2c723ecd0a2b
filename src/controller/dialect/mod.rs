//! Statuses, labels and finalizers as the API of a kind of request writes them.

pub mod vsm;
