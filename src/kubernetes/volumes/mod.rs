//! Volumes and storage snapshots: conversion of one into the other, rebinding, garbage collection.
//!
//! These modules do not know our custom resources. The three that create objects have one form: a
//! `Goal`, the `Existing` objects, and `decide`, which returns the next `Step` towards the goal.

pub mod claim_to_snapshot;
pub mod rebind;
pub mod snapshot_gc;
pub mod snapshot_to_claim;
