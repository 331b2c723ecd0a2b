//! Whether everything exists, and is what it claims to be.
//!
//! In steps, each of which assumes no more than the one before has shown: [`Check::start`] reads
//! the index, [`Check::packs`] compares it with the files that exist, [`Check::trees`] walks every
//! snapshot, [`Check::data`] reads packs whole, and [`Check::hits`] reports what all this damage
//! hits. Nothing is believed and nothing is repaired: each error is reported as a problem and
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
