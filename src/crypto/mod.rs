//! The cryptography of a restic repository: [`Key`] seals and opens everything, [`kdf`] turns a password into one.
//!
//! Pure functions over bytes: nonces and salts are given by the caller.

mod ctr;
pub mod kdf;
mod poly1305;
mod seal;

pub use seal::{Key, NONCE, OVERHEAD, Pieces, SealError, TAG};
