//! The resources of one walker.

use crate::backup::file::FileWork;
use crate::backup::run::Run;
use crate::backup::small::Gathering;
use crate::backup::stack::Stack;
use crate::backup::stat::xattrs_of_path;
use crate::concurrency::Limit;
use crate::format::node::Xattr;
use crossbeam_channel::{Sender, TrySendError};
use std::path::Path;

pub struct Walker<'w, 's, 'c> {
    pub run: &'w Run<'s>,
    pub stack: &'w Stack,
    pub limit: &'w Limit,
    /// The queue to the readers, for large files.
    pub files: Sender<FileWork>,
    pub gathering: Gathering<'w, 's, 'c>,
}

impl Walker<'_, '_, '_> {
    pub fn xattrs(&self, path: &Path) -> Vec<Xattr> {
        let _flight = self.limit.begin();
        xattrs_of_path(path, |why| self.run.problem(path, why))
    }

    /// Sends a file to the readers, which end early only when the run is stopped.
    pub fn send(&self, work: FileWork) {
        if let Err(TrySendError::Full(work)) = self.files.try_send(work) {
            self.gathering.paused(|| drop(self.files.send(work)));
        }
    }
}
