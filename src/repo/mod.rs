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
mod packs;
mod reader;
mod snapshots;
#[cfg(test)]
mod testing;
mod trees;
pub mod writer;

pub use error::{Error, Result};
pub use index::Index;
pub use init::{InitOptions, init, key_owner};
pub use keys::{KeyInfo, Password};
pub use lock::{Lock, LockMode, remove_locks_of, unlock};
pub(crate) use reader::{ReadBuffers, Reading, adjoin, check_size, reading_pool, room, together};
pub use snapshots::{SnapshotFilter, StoredSnapshot};
pub use trees::{LargeTree, Tree, TreeReader, is_large};

use crate::clock::{self, Clock};
use crate::crypto::{Key, NONCE, OVERHEAD};
use crate::format::compression::{self, Compression};
use crate::format::config::Config;
use crate::format::{BlobType, FormatError, Version, unpacked};
use crate::id::Id;
use crate::limits;
use crate::memory::Budget;
use crate::parallel::both;
use crate::store::{File, FileType, Store, StoreError};
use bytes::Bytes;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Choices of the caller that are not part of the repository.
#[derive(Clone, Debug)]
pub struct Settings {
    pub compression: Compression,
    /// Bytes after which a pack is closed.
    pub pack_size: u64,
    /// Open every sealed blob again and compare it with its plaintext before it is uploaded.
    pub extra_verify: bool,
    pub budget: Budget,
    /// A directory for temporary files: of an index that the budget does not hold, and of large
    /// trees; `None`: there are to be none.
    pub aside: Option<PathBuf>,
    /// What locks, `init` and the age of an index file go by.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            compression: Compression::default(),
            pack_size: limits::PACK_SIZE,
            extra_verify: true,
            budget: Budget::default(),
            aside: None,
            clock: Clock::default(),
        }
    }
}

/// An open repository.
pub struct Repository {
    store: Arc<dyn Store>,
    key: Key,
    key_id: Id,
    config: Config,
    settings: Settings,
    holding: lock::Holding,
}

/// What became of a blob that was sealed.
pub struct SealedBlob {
    /// Bytes of its sealed form.
    pub length: u32,
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
        let (keys, sealed) = both(|| store.list(FileType::Key), || read_config(&*store));
        let sealed = sealed?;
        let (key_id, key, config) = keys::find(&*store, keys?, password, hint, |key| open_config(key, &sealed))?;
        Ok(Repository { store, key, key_id, config, settings, holding: lock::Holding::default() })
    }

    /// [`Repository::open`] for a caller that acquires a lock next: meanwhile the lock's first look
    /// for conflicts is made.
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

    /// The same, its files reached through what `wrap` makes of its store.
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

    /// Makes the repository one of version 2. The new config takes the place of the old one at once, and is read again; if it does not open,
    /// the old one comes back.
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

    /// An error if this process had a lock and somebody has removed it. Before something is removed that others may begin to need meanwhile.
    pub fn confirm_lock(&self) -> Result<()> {
        self.holding.confirm(&*self.store, &self.settings.clock)
    }

    /// Seals a JSON document and stores it under the hash of its bytes. Where there is a lock, it is there before and after a snapshot is made, or there is
    /// no snapshot: no prune that began meanwhile can have missed it.
    pub fn save_file(&self, ty: FileType, json: Vec<u8>) -> Result<Id> {
        self.save_written(ty, |out| out.write_all(&json))
    }

    /// [`Repository::save_file`] for a document that is too large to be in memory as a whole: `json` writes it.
    pub fn save_written(&self, ty: FileType, json: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Id> {
        let (file, sealed) = self.seal_written(ty, json)?;
        if ty == FileType::Snapshot {
            self.confirm_lock()?;
        }
        self.store.write(file, sealed)?;
        if ty == FileType::Snapshot
            && let Err(error) = self.confirm_lock()
        {
            if matches!(error, Error::LockLost { .. }) {
                self.store.remove(file)?;
            }
            return Err(error);
        }
        Ok(file.id)
    }

    /// A sealed document and the name that it is to be written under.
    fn seal_written(&self, ty: FileType, json: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(File, Bytes)> {
        let version = self.config.version;
        let (mut sealed, digest) = unpacked::encode(version, self.nonce().to_vec(), json);
        self.key.seal_in_place(&mut sealed, 0);
        #[cfg(test)]
        tests::tamper(&mut sealed);
        if self.settings.extra_verify && !unpacked::holds(version, digest, |take| self.opens(&sealed, take)) {
            return Err(Error::VerifyFailed { what: format!("a new {ty}") });
        }
        Ok((File::new(ty, Id::of(&sealed)), Bytes::from(sealed)))
    }

    /// Compresses a blob (where the format and the settings ask for it), appends its sealed form to `out`, and proves that this opens to
    /// the same bytes again. On an error `out` is as it was.
    pub fn seal_blob(&self, ty: BlobType, id: Id, plaintext: &[u8], out: &mut Vec<u8>) -> Result<SealedBlob> {
        let start = out.len();
        let nonce = self.nonce();
        let compress = self.config.version == Version::V2
            && (ty == BlobType::Tree || self.settings.compression != Compression::Off);
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        // What does not get smaller is stored as it is, as restic stores it with compression off.
        let compressed = compress && compression::append_smaller(self.settings.compression, plaintext, out);
        if compressed {
            self.key.seal_in_place(out, start);
        } else {
            out.truncate(start);
            self.key.seal(&nonce, plaintext, out);
        }
        #[cfg(test)]
        tests::tamper(&mut out[start..]);
        if self.settings.extra_verify && !self.opens_to(&out[start..], compressed, plaintext) {
            out.truncate(start);
            return Err(Error::VerifyFailed { what: format!("{ty} blob {id}") });
        }
        let bytes = |count| u32::try_from(count).expect("a blob is below 4 GiB");
        let uncompressed = if compressed { plaintext.len() } else { 0 };
        Ok(SealedBlob { length: bytes(out.len() - start), uncompressed: bytes(uncompressed) })
    }

    fn opens_to(&self, sealed: &[u8], compressed: bool, plaintext: &[u8]) -> bool {
        let mut rest = plaintext;
        let mut same = |piece: &[u8]| rest.split_off(..piece.len()).is_some_and(|expected| expected == piece);
        let whole = if compressed {
            compression::expand_in_pieces(|take| self.opens(sealed, take), same)
        } else {
            self.opens(sealed, &mut same)
        };
        whole && rest.is_empty()
    }

    /// Whether a message is authentic and `take` accepts each piece of it.
    fn opens(&self, sealed: &[u8], take: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.key.open_in_pieces(sealed, take) == Ok(true)
    }

    fn nonce(&self) -> [u8; NONCE] {
        clock::random_bytes()
    }
}

/// The config as it is stored.
fn read_config(store: &dyn Store) -> Result<Bytes> {
    let location = || store.location().to_owned();
    match store.read(File::CONFIG, limits::SMALL_FILE) {
        Ok(sealed) if sealed.is_empty() => Err(Error::EmptyConfig { location: location() }),
        Ok(sealed) => Ok(sealed),
        Err(StoreError::NotFound { .. }) => Err(Error::NoRepository { location: location() }),
        Err(error) => Err(error.into()),
    }
}

/// `None`: the key is not this config's.
fn open_config(key: &Key, sealed: &[u8]) -> Option<Result<Config>> {
    let mut json = Vec::new();
    key.open(sealed, &mut json).ok()?;
    Some(Config::decode(&json).map_err(|source: FormatError| Error::Damaged { file: File::CONFIG, source }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// The bit that is flipped in the next sealed blob of this thread.
        static FLIP: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// What faulty memory would do between sealing and upload.
    pub(super) fn tamper(sealed: &mut [u8]) {
        if let Some(bit) = FLIP.take() {
            let bit = bit % (sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
    }

    pub(crate) fn new_repository(settings: Settings) -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("repo").to_str().unwrap().parse().unwrap();
        let store = crate::store::open(&location, &crate::store::Options::default()).unwrap();
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let repo = init(store, &Password::new("password"), options, settings).unwrap();
        (dir, repo)
    }

    #[test]
    fn a_bit_flipped_between_sealing_and_upload_is_caught() {
        let text = b"compressible text, compressible text, compressible text, compressible text".as_slice();
        let noise = crate::clock::random_bytes::<200>();
        for plaintext in [text, &noise] {
            let id = Id::of(plaintext);
            let (_dir, repo) = new_repository(Settings::default());
            let mut out = b"kept".to_vec();
            for bit in 0..plaintext.len() * 8 {
                FLIP.set(Some(bit));
                let outcome = repo.seal_blob(BlobType::Data, id, plaintext, &mut out);
                assert!(matches!(outcome, Err(Error::VerifyFailed { .. })), "bit {bit}");
                assert_eq!(out, b"kept");
            }
            assert!(repo.seal_blob(BlobType::Data, id, plaintext, &mut out).is_ok());
            let (_dir, trusting) = new_repository(Settings { extra_verify: false, ..Settings::default() });
            FLIP.set(Some(99));
            assert!(trusting.seal_blob(BlobType::Data, id, plaintext, &mut out).is_ok(), "nobody looked");
        }
    }

    #[test]
    fn a_document_with_a_flipped_bit_is_not_uploaded() {
        let (_dir, repo) = new_repository(Settings::default());
        FLIP.set(Some(333));
        let json = || b"{\"packs\":[]}".to_vec();
        assert!(matches!(repo.save_file(FileType::Index, json()), Err(Error::VerifyFailed { .. })));
        assert!(repo.store().list(FileType::Index).unwrap().is_empty());
        repo.save_file(FileType::Index, json()).unwrap();
    }

    #[test]
    fn a_flipped_bit_stops_the_writer_and_uploads_nothing() {
        let (_dir, repo) = new_repository(Settings::default());
        let repo = Arc::new(repo);
        let writer = writer::Writer::new(repo.clone(), Arc::new(Index::default()), false).unwrap();
        FLIP.set(Some(333));
        assert!(matches!(writer.store_chunks(&[b"x"]), Err(Error::VerifyFailed { .. })));
        writer.finish().unwrap();
        assert!(repo.store().list(FileType::Pack).unwrap().is_empty());
    }
}
