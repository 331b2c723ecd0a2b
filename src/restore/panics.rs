//! Turns a panic in a thread of a restore into an error: the other threads end cleanly, and the run
//! neither hangs nor succeeds.

use super::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`, which `during` describes in the error of a panic. State that a panic left
/// inconsistent is only dropped, because the restore ends.
pub fn caught<T>(during: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(Error::Panicked { during, message: text(&*payload) }))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
