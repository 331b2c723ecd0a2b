//! Volumes and storage snapshots: conversion of one into the other, rebinding, garbage collection.
//!
//! These modules do not know our CRDs.

pub mod claim_to_snapshot;
pub mod rebind;
pub mod snapshot_gc;
pub mod snapshot_to_claim;
