//! The cryptography of a restic repository: [`Key`] encrypts and authenticates everything that is
//! stored, and [`kdf`] derives a key from a password.
//!
//! Pure functions over bytes: the caller provides nonces and salts.

mod ctr;
pub mod kdf;
mod poly1305;
mod seal;

pub use seal::{Key, NONCE, OVERHEAD, Pieces, SealError, TAG};
