//! Making a new repository, guarded so that none is ever made over another and none ever has two master keys.
//!
//! The order is key, look around, config, look again. Two processes that start at once both write a key before either looks; stores list
//! what was written, so at least one of them sees the other's key and gives way by removing its own. That needs no create-only writes. A
//! process that dies between key and config leaves a lone key; the next `init` with the same password goes on with it, and since
//! id and polynomial are drawn from the master key, even two that go on with it at once write the same config.

use super::{Error, Password, Repository, Result, Settings, keys, open_config};
use crate::chunk::Polynomial;
use crate::clock;
use crate::crypto::Key;
use crate::format::Version;
use crate::format::config::Config;
use crate::format::key_file::KeyOwner;
use crate::id::Id;
use crate::limits;
use crate::store::{File, FileType, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// What a new repository is like.
pub struct InitOptions {
    pub version: Version,
    /// Taken over from another repository, so that both cut files alike; drawn at random if `None`.
    pub polynomial: Option<Polynomial>,
    pub owner: KeyOwner,
}

/// Makes a repository and opens it.
pub fn init(
    store: Arc<dyn Store>,
    password: &Password,
    options: InitOptions,
    settings: Settings,
) -> Result<Repository> {
    let refuse = |reason: String| Error::NotInitialised { location: store.location().to_owned(), reason };
    match store.size(File::CONFIG) {
        Err(StoreError::NotFound { .. }) => {}
        Ok(_) => return Err(refuse("already has a repository".into())),
        // Not knowing is not the same as knowing that there is none.
        Err(error) => return Err(error.into()),
    }
    if !store.list(FileType::Snapshot)?.is_empty() {
        return Err(refuse("has snapshots but no config: a repository lost its config, restore it from a copy".into()));
    }
    store.prepare()?;
    let (key_id, key) = match &store.list(FileType::Key)?[..] {
        [] => {
            let key = Key::from_bytes(&clock::random_bytes());
            (keys::create(&*store, &key, password, options.owner)?, key)
        }
        [(id, _)] => match keys::open(&*store, *id, password)? {
            Some(key) => (*id, key),
            None => {
                return Err(refuse(format!("has key {id} of an unfinished init, and this password does not open it")));
            }
        },
        several => return Err(refuse(format!("has {} keys but no config: restore it from a copy", several.len()))),
    };
    if store.list(FileType::Key)?.iter().any(|&(id, _)| id != key_id) {
        store.remove(File::new(FileType::Key, key_id))?;
        return Err(Error::InitialisedTwice { location: store.location().to_owned() });
    }
    let config = draw_config(&key, options.version, options.polynomial);
    let mut sealed = Vec::new();
    key.seal(&clock::random_bytes(), &config.encode(), &mut sealed);
    match store.create(File::CONFIG, Bytes::from(sealed)) {
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let config = confirm(&*store, &key, key_id, password)?;
    Ok(Repository { store, key, key_id, config, settings })
}

/// Lists and reads what is there now: the config must be this master key's, and no key file may wrap another.
fn confirm(store: &dyn Store, key: &Key, key_id: Id, password: &Password) -> Result<Config> {
    let sealed = store.read(File::CONFIG, limits::SMALL_FILE)?;
    let Some(config) = open_config(key, &sealed) else {
        store.remove(File::new(FileType::Key, key_id))?;
        return Err(Error::InitialisedTwice { location: store.location().to_owned() });
    };
    for (id, _) in store.list(FileType::Key)? {
        let same = match keys::open(store, id, password) {
            Ok(other) => other.as_ref() == Some(key),
            // Its maker saw ours and gave way between our listing and our reading.
            Err(Error::Store(StoreError::NotFound { .. })) => true,
            Err(error) => return Err(error),
        };
        if !same {
            let reason = format!(
                "has key {id}, which is not of this repository's master key; remove it if no other init is running"
            );
            return Err(Error::NotInitialised { location: store.location().to_owned(), reason });
        }
    }
    config
}

/// The config that belongs to a master key: id and polynomial from a stream of hashes of it.
fn draw_config(key: &Key, version: Version, polynomial: Option<Polynomial>) -> Config {
    let mut counter = 0u64;
    let mut draw = || {
        let mut seed = b"vsm repository config".to_vec();
        seed.extend_from_slice(&key.encrypt);
        seed.extend_from_slice(&counter.to_le_bytes());
        counter += 1;
        Id::of(&seed)
    };
    let id = draw();
    let mut number = || u64::from_le_bytes(*draw().0.first_chunk().expect("32 bytes"));
    let random =
        || Polynomial::random(&mut number).expect("one candidate in 26 is irreducible, and a million are tried");
    let polynomial = polynomial.unwrap_or_else(random);
    Config { version, id, polynomial, extra: serde_json::Map::new() }
}
