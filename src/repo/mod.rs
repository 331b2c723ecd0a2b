//! An open repository: a store, the master key, and what is read and written through both.
//!
//! Writing law, kept by [`writer`]: nothing that names a blob is written before the blob is durable, so packs come before
//! the index that lists them, and the index before the snapshot.
//! Reading law, kept here and in [`reader`]: nothing is believed before its MAC and its hash are checked.

mod error;
pub mod index;
mod init;
mod keys;
mod lock;
mod reader;
mod snapshots;
pub mod writer;

pub use error::{Error, Result};
pub use index::Index;
pub use init::{InitOptions, init};
pub use keys::{KeyInfo, Password};
pub use lock::{Lock, LockMode, unlock};
pub use reader::TreeReader;
pub use snapshots::{SnapshotFilter, StoredSnapshot};

use crate::clock;
use crate::crypto::{Key, NONCE};
use crate::format::compression::{self, Compression};
use crate::format::config::Config;
use crate::format::{BlobType, FormatError, Version, unpacked};
use crate::id::Id;
use crate::limits;
use crate::store::{File, FileType, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// Choices of the caller that are not part of the repository.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub compression: Compression,
    /// Bytes after which a pack is closed.
    pub pack_size: u64,
    /// Open every sealed blob again and compare it with its plaintext before it is uploaded.
    pub extra_verify: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { compression: Compression::default(), pack_size: limits::PACK_SIZE, extra_verify: true }
    }
}

/// An open repository.
pub struct Repository {
    store: Arc<dyn Store>,
    key: Key,
    key_id: Id,
    config: Config,
    settings: Settings,
}

/// A blob ready to be put into a pack.
pub struct SealedBlob {
    pub bytes: Vec<u8>,
    /// Bytes of plaintext if it is compressed, else 0.
    pub uncompressed: u32,
}

impl Repository {
    /// Opens the repository with the first key that fits, `hint` (the beginning of a key's id) tried before the others.
    pub fn open(
        store: Arc<dyn Store>,
        password: &Password,
        hint: Option<&str>,
        settings: Settings,
    ) -> Result<Repository> {
        let sealed = match store.read(File::CONFIG, limits::SMALL_FILE) {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound { location, .. }) => return Err(Error::NoRepository { location }),
            Err(error) => return Err(error.into()),
        };
        if sealed.is_empty() {
            return Err(Error::EmptyConfig { location: store.location().to_owned() });
        }
        let (key_id, key, config) = keys::find(&*store, password, hint, |key| open_config(key, &sealed))?;
        Ok(Repository { store, key, key_id, config, settings })
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The JSON of an index, snapshot or lock file. A file that does not have its own hash is read once more: the network may be at fault.
    pub fn load_file(&self, file: File) -> Result<Vec<u8>> {
        let max = match file.ty {
            FileType::Index => limits::INDEX_FILE,
            FileType::Snapshot => limits::SNAPSHOT_FILE,
            _ => limits::SMALL_FILE,
        };
        let mut sealed = self.store.read(file, max)?;
        if Id::of(&sealed) != file.id {
            sealed = self.store.read(file, max)?;
            let actual = Id::of(&sealed);
            if actual != file.id {
                return Err(Error::WrongHash { file, actual });
            }
        }
        let mut plaintext = Vec::new();
        self.key.open(&sealed, &mut plaintext).map_err(|_| Error::Unauthentic { file })?;
        unpacked::decode("its plaintext", plaintext, max).map_err(|source| Error::Damaged { file, source })
    }

    /// Seals a JSON document and stores it under the hash of its bytes.
    pub fn save_file(&self, ty: FileType, json: Vec<u8>) -> Result<Id> {
        let plaintext = unpacked::encode(self.config.version, Compression::Auto.level(), json);
        let mut sealed = Vec::new();
        self.key.seal(&self.nonce(), &plaintext, &mut sealed);
        if self.settings.extra_verify {
            let mut opened = Vec::with_capacity(plaintext.len());
            if self.key.open(&sealed, &mut opened).is_err() || opened != plaintext {
                return Err(Error::VerifyFailed { what: format!("a new {ty}") });
            }
        }
        let id = Id::of(&sealed);
        self.store.write(File::new(ty, id), Bytes::from(sealed))?;
        Ok(id)
    }

    /// Compresses (where the format and the settings ask for it) and seals a blob, and proves that it opens to the same bytes again.
    pub fn seal_blob(&self, ty: BlobType, id: Id, plaintext: &[u8]) -> Result<SealedBlob> {
        let compress = self.config.version == Version::V2
            && (ty == BlobType::Tree || self.settings.compression != Compression::Off);
        let mut compressed = Vec::new();
        if compress {
            compression::compress(self.settings.compression.level(), plaintext, &mut compressed);
        }
        // What does not get smaller is stored as it is, as restic stores it with compression off.
        let smaller = compress && compressed.len() < plaintext.len();
        let payload = if smaller { &compressed[..] } else { plaintext };
        let mut bytes = Vec::new();
        self.key.seal(&self.nonce(), payload, &mut bytes);
        let uncompressed = if smaller { u32::try_from(plaintext.len()).expect("a blob is below 4 GiB") } else { 0 };
        let blob = SealedBlob { bytes, uncompressed };
        if self.settings.extra_verify {
            self.verify_sealed(ty, id, &blob, plaintext)?;
        }
        Ok(blob)
    }

    /// Authenticates, decrypts and decompresses a sealed blob and compares the result with the plaintext it was made from.
    fn verify_sealed(&self, ty: BlobType, id: Id, blob: &SealedBlob, plaintext: &[u8]) -> Result<()> {
        let failed = || Error::VerifyFailed { what: format!("{ty} blob {id}") };
        let mut opened = Vec::new();
        self.key.open(&blob.bytes, &mut opened).map_err(|_| failed())?;
        if blob.uncompressed != 0 {
            let mut expanded = Vec::new();
            let length = Some(u64::from(blob.uncompressed));
            compression::decompress(&opened, length, u64::from(u32::MAX), &mut expanded).map_err(|_| failed())?;
            opened = expanded;
        }
        if opened == plaintext { Ok(()) } else { Err(failed()) }
    }

    fn nonce(&self) -> [u8; NONCE] {
        clock::random_bytes()
    }
}

/// `None`: the key is not this config's.
fn open_config(key: &Key, sealed: &[u8]) -> Option<Result<Config>> {
    let mut json = Vec::new();
    key.open(sealed, &mut json).ok()?;
    Some(Config::decode(&json).map_err(|source: FormatError| Error::Damaged { file: File::CONFIG, source }))
}
