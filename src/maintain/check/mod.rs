//! Checks that everything in a repository exists and is intact.
//!
//! Each step relies only on what the steps before have checked: [`Check::start`] reads the index,
//! [`Check::packs`] compares it with the files that exist, [`Check::trees`] walks every snapshot,
//! [`Check::data`] reads whole packs, and [`Check::hits`] reports the files that the damage
//! affects. A check trusts nothing and repairs nothing: each error is reported as a problem and
//! counted, and the check continues.

mod context;
mod data;
mod hits;
mod index;
mod lost;
mod pack_read;
mod packs;
mod subset;
#[cfg(test)]
mod tests;
mod trees;

pub use context::{Check, Report};
pub use hits::Hit;
pub use subset::Subset;
