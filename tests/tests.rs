//! The integration tests, in one binary: they run the program from outside and compare it with
//! other programs.
//!
//! No test here derives an expected value from the engine's library. Expected values come from
//! peers (`common::peers`), from the file system, or from our own comparer, which shares no code
//! with the engine (`common::compare`). The tests need root, loop devices, and the peers that
//! `tests/peers/install` installs; they fail with a message if one is missing.

mod architecture;
mod common;
#[cfg(feature = "controller")]
mod controller;
mod documents;
mod engine;
mod prose;
mod store;
