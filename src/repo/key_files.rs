//! Key files in a store: finds the one that a password opens, writes new ones, and verifies them.
//!
//! Every key file wraps the same master key. A key file that cannot be read or decoded does not
//! prevent the use of another one; its error is reported only if no key file fits.

use super::error::{Error, Result};
use crate::clock;
use crate::crypto::Key;
use crate::crypto::kdf::Params;
use crate::format::key_file::{KeyFile, KeyOwner, decode_master, encode_master};
use crate::id::Id;
use crate::limits;
use crate::parallel::side_by_side;
use crate::store::{File, FileType, Store};
use bytes::Bytes;
use std::fmt;
use zeroize::Zeroizing;

/// A password; never printed, and cleared from memory when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(Zeroizing::new(bytes.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Password) -> bool {
        self.0 == other.0
    }
}

/// Finds the key file among those `listed` that `password` opens and that `accepts` approves.
/// Returns its id, the master key, and the value of `accepts`, which returns `None` for a master
/// key that is not this repository's.
///
/// The first key is read alone: it is the only one in most repositories, and the right one with a
/// hint. The others are read concurrently, if they are needed.
pub(super) fn find<T>(
    store: &dyn Store,
    listed: Vec<(Id, u64)>,
    password: &Password,
    hint: Option<&str>,
    accepts: impl Fn(&Key) -> Option<Result<T>>,
) -> Result<(Id, Key, T)> {
    let mut ids: Vec<Id> = listed.into_iter().map(|(id, _)| id).collect();
    if ids.is_empty() {
        return Err(Error::NoKeys { location: store.location().to_owned() });
    }
    ids.sort_by_key(|id| (!hint.is_some_and(|hint| id.to_string().starts_with(hint)), *id));
    ids.truncate(limits::KEYS_TRIED);
    let mut unusable = None;
    let (first, others) = ids.split_at(1);
    for part in [first, others] {
        let read = side_by_side(store.connections(), part, |&id| read(store, id));
        for (&id, key_file) in part.iter().zip(read) {
            match key_file.and_then(|key_file| unwrap(&key_file, id, password)) {
                Ok(Some(key)) => match accepts(&key) {
                    Some(outcome) => return outcome.map(|value| (id, key, value)),
                    None => unusable = Some(Error::Unauthentic { file: File::CONFIG }),
                },
                Ok(None) => {}
                Err(error) => unusable = Some(error),
            }
        }
    }
    let wrong = Error::WrongPassword { location: store.location().to_owned(), tried: ids.len() };
    Err(unusable.unwrap_or(wrong))
}

/// The master key in a key file, or `None` if the password does not fit.
pub(super) fn open(store: &dyn Store, id: Id, password: &Password) -> Result<Option<Key>> {
    unwrap(&read(store, id)?, id, password)
}

/// Reads a key file, and compares its hash with its name.
fn read(store: &dyn Store, id: Id) -> Result<KeyFile> {
    let file = File::new(FileType::Key, id);
    let json = store.read(file, limits::SMALL_FILE)?;
    let actual = Id::of(&json);
    if actual != id {
        return Err(Error::WrongHash { file, actual });
    }
    KeyFile::decode(&json).map_err(|source| Error::Damaged { file, source })
}

/// The master key that a key file wraps, or `None` if the password does not fit.
fn unwrap(key_file: &KeyFile, id: Id, password: &Password) -> Result<Option<Key>> {
    let file = File::new(FileType::Key, id);
    let damaged = |source| Error::Damaged { file, source };
    let wrapping = key_file.params().derive(&password.0).map_err(|source| Error::Key { file, source })?;
    let mut master = Zeroizing::new(Vec::new());
    match wrapping.open(&key_file.data, &mut master) {
        Ok(()) => decode_master(&master).map(Some).map_err(damaged),
        Err(_) => Ok(None),
    }
}

/// Writes a key file that wraps `master` with `password`, and verifies that it opens.
pub(super) fn create(store: &dyn Store, master: &Key, password: &Password, owner: KeyOwner) -> Result<Id> {
    let id = write(store, master, password, owner)?;
    prove(store, id, master, password)?;
    Ok(id)
}

/// Writes a key file that must not be relied on before [`prove`].
pub(super) fn write(store: &dyn Store, master: &Key, password: &Password, owner: KeyOwner) -> Result<Id> {
    let params = Params::for_new_key(clock::random_bytes());
    let wrapping = params.derive(&password.0).expect("our own parameters are valid");
    let mut data = Vec::new();
    wrapping.seal(&clock::random_bytes(), &encode_master(master), &mut data);
    let json = KeyFile::new(owner, &params, data).encode();
    let id = Id::of(&json);
    // Its name is the hash of random content: no other file can be overwritten.
    store.write(File::new(FileType::Key, id), Bytes::from(json))?;
    Ok(id)
}

/// Verifies that a written key file opens to the master key.
pub(super) fn prove(store: &dyn Store, id: Id, master: &Key, password: &Password) -> Result<()> {
    match open(store, id, password)? {
        Some(again) if again == *master => Ok(()),
        _ => Err(Error::VerifyFailed { what: format!("key {id}") }),
    }
}
