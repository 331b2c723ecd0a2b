//! The open repository: its store, master key, config and settings.

use super::error::{Error, Result};
use super::key_files::{self, Password};
use super::lock::state::Holding;
use super::settings::Settings;
use crate::clock;
use crate::crypto::{Key, NONCE};
use crate::format::config::Config;
use crate::format::{FormatError, Version};
use crate::id::Id;
use crate::limits;
use crate::parallel::both;
use crate::store::{File, FileType, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// An open repository.
pub struct Repository {
    pub(super) store: Arc<dyn Store>,
    pub(super) key: Key,
    pub(super) key_id: Id,
    pub(super) config: Config,
    pub(super) settings: Settings,
    pub(super) holding: Holding,
}

impl Repository {
    /// Opens the repository with the first key that fits. Keys whose id begins with `hint` are
    /// tried first.
    pub fn open(
        store: Arc<dyn Store>,
        password: &Password,
        hint: Option<&str>,
        settings: Settings,
    ) -> Result<Repository> {
        let (keys, sealed) = both(|| store.list(FileType::Key), || read_config(&*store));
        let sealed = sealed?;
        let (key_id, key, config) = key_files::find(&*store, keys?, password, hint, |key| open_config(key, &sealed))?;
        Ok(Repository { store, key, key_id, config, settings, holding: Holding::default() })
    }

    /// [`Repository::open`] for a caller that acquires a lock next: makes the lock's first look for
    /// conflicts in the meantime.
    pub fn open_to_lock(
        store: Arc<dyn Store>,
        password: &Password,
        hint: Option<&str>,
        settings: Settings,
    ) -> Result<Repository> {
        let open = || Repository::open(store.clone(), password, hint, settings);
        let (locks, repo) = both(|| store.list(FileType::Lock), open);
        let repo = repo?;
        repo.holding.set_first_look(locks);
        Ok(repo)
    }

    /// The repository with its store wrapped by `wrap`.
    pub fn through(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Repository {
        Repository { store: wrap(self.store), ..self }
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Upgrades the repository to version 2. The new config replaces the old one at once and is
    /// read again; if it does not open, the old one is restored.
    pub fn upgrade(&self) -> Result<()> {
        let old = self.store.read(File::CONFIG, limits::SMALL_FILE)?;
        let config = Config { version: Version::V2, ..self.config.clone() };
        let mut sealed = Vec::new();
        self.key.seal(&self.nonce(), &config.encode(), &mut sealed);
        self.store.write(File::CONFIG, sealed.into())?;
        let written = self.store.read(File::CONFIG, limits::SMALL_FILE)?;
        if open_config(&self.key, &written).and_then(Result::ok).is_some_and(|written| written == config) {
            return Ok(());
        }
        self.store.write(File::CONFIG, old)?;
        Err(Error::VerifyFailed { what: "the new config".into() })
    }

    /// Whether a message is authentic and `take` accepts each piece of its plaintext.
    pub(super) fn opens(&self, sealed: &[u8], take: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.key.open_in_pieces(sealed, take) == Ok(true)
    }

    pub(super) fn nonce(&self) -> [u8; NONCE] {
        clock::random_bytes()
    }
}

/// The sealed config.
fn read_config(store: &dyn Store) -> Result<Bytes> {
    let location = || store.location().to_owned();
    match store.read(File::CONFIG, limits::SMALL_FILE) {
        Ok(sealed) if sealed.is_empty() => Err(Error::EmptyConfig { location: location() }),
        Ok(sealed) => Ok(sealed),
        Err(StoreError::NotFound { .. }) => Err(Error::NoRepository { location: location() }),
        Err(error) => Err(error.into()),
    }
}

/// Opens the config; `None` if the key does not fit.
pub(super) fn open_config(key: &Key, sealed: &[u8]) -> Option<Result<Config>> {
    let mut json = Vec::new();
    key.open(sealed, &mut json).ok()?;
    Some(Config::decode(&json).map_err(|source: FormatError| Error::Damaged { file: File::CONFIG, source }))
}
