//! JSON documents (index, snapshot and lock files), each sealed and stored under the hash of its
//! bytes.

use super::error::{Error, Result};
use super::repository::Repository;
use crate::format::unpacked;
use crate::id::Id;
use crate::limits;
use crate::store::{File, FileType};
use bytes::Bytes;
use std::io::{self, Write};

impl Repository {
    /// The JSON of an index, snapshot or lock file. A file that does not have its own hash is read
    /// again: the network may be at fault.
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

    /// Fails if this process has lost or released its lock. Call before deleting anything that
    /// another process might start to reference.
    pub fn confirm_lock(&self) -> Result<()> {
        self.holding.confirm(&*self.store, &self.settings.clock)
    }

    /// Seals a JSON document and stores it under the hash of its bytes. A snapshot is kept only if
    /// the lock, if there is one, is held before and after the write: then no prune that began in
    /// the meantime can have missed it.
    pub fn save_file(&self, ty: FileType, json: Vec<u8>) -> Result<Id> {
        self.save_written(ty, |out| out.write_all(&json))
    }

    /// [`Repository::save_file`] for a document that is too large for memory as a whole: `json`
    /// writes it.
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

    /// Seals a document. Returns it with the name to write it under.
    pub(super) fn seal_written(
        &self,
        ty: FileType,
        json: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(File, Bytes)> {
        let version = self.config.version;
        let (mut sealed, digest) = unpacked::encode(version, self.nonce().to_vec(), json);
        self.key.seal_in_place(&mut sealed, 0);
        #[cfg(test)]
        super::tests::tamper(&mut sealed);
        if self.settings.extra_verify && !unpacked::holds(version, digest, |take| self.opens(&sealed, take)) {
            return Err(Error::VerifyFailed { what: format!("a new {ty}") });
        }
        Ok((File::new(ty, Id::of(&sealed)), Bytes::from(sealed)))
    }
}
