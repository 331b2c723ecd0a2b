//! The keys of an open repository: listing, adding, removing and replacing them.

use super::error::{Error, Result};
use super::key_files::{self, Password};
use super::repository::Repository;
use crate::format::key_file::{KeyFile, KeyOwner, encode_master};
use crate::id::Id;
use crate::limits;
use crate::parallel::side_by_side;
use crate::store::{File, FileType};
use zeroize::Zeroizing;

/// The unencrypted part of a key file.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    pub id: Id,
    /// Whether the repository was opened with this key.
    pub current: bool,
    pub owner: KeyOwner,
}

impl Repository {
    /// The id of the key file that the repository was opened with.
    pub fn key_id(&self) -> Id {
        self.key_id
    }

    /// All key files; one that cannot be read comes with its error.
    pub fn keys(&self) -> Result<Vec<(Id, Result<KeyInfo>)>> {
        let info = |id| -> Result<KeyInfo> {
            let file = File::new(FileType::Key, id);
            let json = self.store.read(file, limits::SMALL_FILE)?;
            let KeyFile { created, username, hostname, .. } =
                KeyFile::decode(&json).map_err(|source| Error::Damaged { file, source })?;
            Ok(KeyInfo { id, current: id == self.key_id, owner: KeyOwner { created, username, hostname } })
        };
        let ids: Vec<Id> = self.store.list(FileType::Key)?.into_iter().map(|(id, _)| id).collect();
        let infos = side_by_side(self.store.connections(), &ids, |&id| info(id));
        Ok(ids.into_iter().zip(infos).collect())
    }

    /// Adds a key file for another password.
    pub fn add_key(&self, password: &Password, owner: KeyOwner) -> Result<Id> {
        key_files::create(&*self.store, &self.key, password, owner)
    }

    /// Removes a key file, but never the one in use.
    pub fn remove_key(&self, id: Id) -> Result<()> {
        if id == self.key_id {
            let reason = format!("is open with key {id}; open it with another password to remove that key");
            return Err(Error::Refused { location: self.store.location().to_owned(), reason });
        }
        Ok(self.store.remove(File::new(FileType::Key, id))?)
    }

    /// Replaces the key in use by one for a new password. The old key is removed only after the new
    /// one has been verified to open.
    pub fn change_password(&self, password: &Password, owner: KeyOwner) -> Result<Id> {
        let new = self.add_key(password, owner)?;
        self.store.remove(File::new(FileType::Key, self.key_id))?;
        Ok(new)
    }

    /// The JSON of the master key: its holder needs no password.
    pub fn master_key_json(&self) -> Zeroizing<Vec<u8>> {
        encode_master(&self.key)
    }
}
