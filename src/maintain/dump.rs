//! Writes the content of a file, or a directory as an archive, as one stream of bytes.

use super::archive::Archive;
use super::gaps::Gaps;
use super::tar::Tar;
use super::walk::Walk;
use super::zip::Zip;
use crate::format::BlobType;
use crate::format::content::Content;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::{Error, Index, Repository, Result, TreeReader, reading_pool};
use rayon::prelude::*;

/// The format of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Tar,
    Zip,
}

/// A directory of a snapshot that is dumped as an archive.
pub struct Directory<'d> {
    pub trees: &'d TreeReader<'d>,
    pub root: Id,
    /// The path of the directory in the snapshot, with which the names in the archive begin.
    pub path: &'d [u8],
}

/// The repository and the threads with which dumps are read.
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

    /// Writes the content of a file in order; as many blobs are loaded at a time as the pool has
    /// threads. If the content is not as long as the node says, that is an error after all of it
    /// has been written.
    pub fn file<E: From<Error>>(
        &self,
        path: &[u8],
        node: &Node,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let load = |&id: &Id| self.repo.load_blob(self.index, BlobType::Data, id);
        let mut written = 0;
        let some = |content| Content::windows(content, self.pool.current_num_threads());
        for some in node.content.iter().flat_map(some) {
            self.check_interrupted()?;
            let blobs: Vec<Result<Vec<u8>>> = self.pool.install(|| some.par_iter().map(load).collect());
            for blob in blobs {
                let blob = blob?;
                written += blob.len() as u64;
                write(&blob)?;
            }
        }
        if written == node.size {
            return Ok(());
        }
        let path = String::from_utf8_lossy(path).into_owned();
        let why = format!("the snapshot records a size of {} bytes, but its content has {written}", node.size);
        Err(Error::Inconsistent { path, why }.into())
    }

    /// Writes everything below a directory as an archive. Entries that the archive cannot hold and
    /// directories that cannot be read are reported and left out. A file that cannot be read is an
    /// error: its header has been written, so the archive is corrupt.
    pub fn archive<E: From<Error>>(
        &self,
        format: Format,
        directory: &Directory<'_>,
        gaps: &Gaps<'_>,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let walk = Walk::below(directory.trees, directory.root, directory.path.to_vec())?;
        match format {
            Format::Tar => self.entries(Tar::default(), walk, gaps, write),
            Format::Zip => self.entries(Zip::default(), walk, gaps, write),
        }
    }

    fn entries<E: From<Error>>(
        &self,
        mut archive: impl Archive,
        mut walk: Walk<'_>,
        gaps: &Gaps<'_>,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        while let Some(node) = walk.next_readable(gaps)? {
            self.check_interrupted()?;
            if !node.has_safe_name() {
                gaps.problem(walk.path(), "its name would lead out of the directory it is in; left out");
                continue;
            }
            let mut name = walk.path().strip_prefix(b"/").unwrap_or(walk.path()).to_vec();
            if node.ty == NodeType::Dir {
                name.push(b'/');
            }
            match archive.begin(&name, &node) {
                Ok(begun) => {
                    write(&begun.bytes)?;
                    begun.warnings.iter().for_each(|what| gaps.warning(walk.path(), what));
                    begun.losses.iter().for_each(|why| gaps.problem(walk.path(), why));
                    if node.ty == NodeType::File {
                        self.member(&mut archive, walk.path(), &node, write)?;
                    }
                }
                Err(why) => gaps.problem(walk.path(), format_args!("{why}; left out")),
            }
            if node.ty == NodeType::Dir {
                walk.enter_readable(&node, gaps)?;
            }
        }
        let losses = archive.finish(write)?;
        losses.iter().for_each(|loss| self.progress.warning(loss));
        Ok(())
    }

    /// Writes the content of a file, but no more bytes than its header announced.
    fn member<E: From<Error>>(
        &self,
        archive: &mut impl Archive,
        path: &[u8],
        node: &Node,
        write: &mut impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut written = 0;
        self.file::<E>(path, node, &mut |bytes| {
            written += bytes.len() as u64;
            if written > node.size { Ok(()) } else { write(archive.content(bytes)) }
        })?;
        write(&archive.end())
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
