//! The one integration binary: what the program does, seen from outside, against the programs it must agree with.
//!
//! No test here uses the engine's library to say what is right. Expected values come from peers (`common::peers`), from
//! the file system, or from a comparer of our own that shares no code with the engine (`common::compare`).
//! The tests need root, loop devices, and the peers that `tests/peers/install` fetches; they say so when one is missing.

mod architecture;
mod common;
#[cfg(feature = "controller")]
mod controller;
mod documents;
mod engine;
mod store;
