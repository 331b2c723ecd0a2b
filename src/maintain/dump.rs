//! A file's content, or a directory as an archive, as one stream of bytes.

use super::tar;
use super::walk::Walk;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, Result, TreeReader, reading_pool};
use rayon::prelude::*;

/// What dumps read through.
pub struct Dump<'d> {
    repo: &'d Repository,
    index: &'d Index,
    progress: &'d Progress,
    pool: rayon::ThreadPool,
}

impl<'d> Dump<'d> {
    pub fn new(repo: &'d Repository, index: &'d Index, progress: &'d Progress) -> Result<Dump<'d>> {
        let pool = reading_pool(repo, index)?;
        Ok(Dump { repo, index, progress, pool })
    }

    /// Writes the content of a file, in order; a few blobs are loaded at a time, side by side.
    pub fn file<E: From<Error>>(
        &self,
        node: &Node,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let load = |&id: &Id| self.repo.load_blob(self.index, BlobType::Data, id);
        for some in node.content.as_deref().unwrap_or_default().chunks(self.pool.current_num_threads()) {
            self.check_interrupted()?;
            let blobs: Vec<Result<Vec<u8>>> = self.pool.install(|| some.par_iter().map(load).collect());
            for blob in blobs {
                write(&blob?)?;
            }
        }
        Ok(())
    }

    /// Writes everything below a tree as a tar archive; `path` is where the tree is, and leads the names in the archive.
    pub fn tar<E: From<Error>>(
        &self,
        trees: &TreeReader<'_>,
        root: Id,
        path: &[u8],
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut walk = Walk::below(trees, root, path.to_vec())?;
        while let Some(node) = walk.next()? {
            self.check_interrupted()?;
            if !node.has_safe_name() {
                self.problem(walk.path(), "its name would lead out of the directory it is in; left out");
                continue;
            }
            let mut name = walk.path().strip_prefix(b"/").unwrap_or(walk.path()).to_vec();
            if node.ty == NodeType::Dir {
                name.push(b'/');
            }
            match tar::headers(&name, &node) {
                Some(headers) => write(&headers)?,
                None => self.problem(walk.path(), format!("an archive cannot hold a {}; left out", node.ty.name())),
            }
            match node.ty {
                NodeType::File => self.member(walk.path(), &node, write)?,
                NodeType::Dir => walk.enter(&node)?,
                _ => {}
            }
        }
        write(&tar::END)
    }

    /// A file's content as its header has announced it.
    fn member<E: From<Error>>(
        &self,
        path: &[u8],
        node: &Node,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut written = 0;
        self.file::<E>(node, &mut |bytes| {
            written += bytes.len() as u64;
            if written > node.size { Ok(()) } else { write(bytes) }
        })?;
        if written != node.size {
            let path = String::from_utf8_lossy(path).into_owned();
            let why =
                format!("it says it has {} bytes, its contents have {written}: the archive would be broken", node.size);
            return Err(Error::Inconsistent { path, why }.into());
        }
        write(&[0; 512][..tar::padding(node.size)])
    }

    fn problem(&self, path: &[u8], why: impl std::fmt::Display) {
        self.progress.problem(Phase::Restore, String::from_utf8_lossy(path), why);
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
