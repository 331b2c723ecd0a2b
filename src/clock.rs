//! The only place that reads the time and draws randomness, so that both can be seen at a glance and replaced.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as seconds and nanoseconds since 1970-01-01 UTC.
pub fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX), 0),
    }
}

/// Fills `bytes` from the kernel's random source.
///
/// # Panics
/// When the kernel has no randomness to give: nothing secret can be made then, and there is nothing to fall back to.
pub fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random source answers");
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random(&mut bytes);
    bytes
}
