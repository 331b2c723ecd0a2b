//! Lists a directory: its sorted names, and the parent's nodes.

use super::walker::Walker;
use crate::backup::names::{Gathered, Names};
use crate::backup::parent::{Extent, ParentNodes};
use crate::backup::reach::Place;
use crate::backup::run::Run;
use crate::backup::source::Tops;
use crate::backup::stack::{DirWork, Known, Listed, Opened, Popped, Rest, Room, Scope};
use crate::repo::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::io::Read;
use std::sync::Arc;

/// The number of bytes of a listing that are read at a time, as in glibc.
const LISTING_BUFFER: usize = 32 << 10;

/// Why a directory cannot be listed.
enum Unlisted {
    Errno(Errno),
    /// The names cannot be spilled to disk.
    TooLarge(Error),
}

/// Lists a directory. Returns `None` if the directory is complete, left out, or put back to be
/// listed later.
pub fn list(walker: &Walker<'_, '_, '_>, mut work: DirWork, popped: &mut Popped<'_>) -> Result<Option<Arc<Listed>>> {
    let run = walker.run;
    let dir = work.dir.clone();
    let listed = match work.scope {
        Scope::Named => None,
        Scope::Whole { device } => match names_in(walker, &work, popped) {
            // Opening the directory has mounted a file system on it (autofs). Like any mount point,
            // it is stored empty.
            Ok(Some((_, fd)))
                if run.options.one_file_system && rustix::fs::fstat(&fd).is_ok_and(|now| now.st_dev != device) =>
            {
                None
            }
            Ok(Some(listed)) => Some(listed),
            Ok(None) => {
                walker.stack.push(work);
                return Ok(None);
            }
            Err(why) => {
                match why {
                    Unlisted::Errno(error) => {
                        run.lost(work.standing, &dir.path, format!("it cannot be listed: {error}"));
                    }
                    Unlisted::TooLarge(error) => run.leave_out(work.standing, &dir.path, error),
                }
                if work.named().is_none() {
                    dir.leave_out(run)?;
                    return Ok(None);
                }
                None
            }
        },
    };
    let Known { parent, named } = work.known.take().map_or_else(Known::default, |known| *known);
    let (names, opened) = match listed {
        Some((names, fd)) => {
            let tag = tag_file(run, &fd);
            (names, Some(Opened { fd, tag }))
        }
        None => {
            work.scope = Scope::Named;
            (Names::new(named.keys().cloned().collect()), None)
        }
    };
    let mut parent = parent.unwrap_or_else(|| ParentNodes::of(dir.previous.as_ref()));
    if names.is_empty() {
        // All empty directories share one tree. The parent's copy is read, so that a damaged one is
        // stored again.
        if let (_, Some(gap)) = parent.part(&run.parent_trees, &[], Extent::Whole) {
            gap.report(run, &dir.path);
        }
        dir.complete_empty(run)?;
        return Ok(None);
    }
    Ok(Some(Listed::new(dir, work.scope, opened, named, Rest { names, parent })))
}

/// Returns the names in a directory and the open directory, or why it cannot be listed. A listing
/// that breaks off is a problem, and the names before that are kept. `None` if the names do not fit
/// within the bound now.
fn names_in(
    walker: &Walker<'_, '_, '_>,
    work: &DirWork,
    popped: &mut Popped<'_>,
) -> std::result::Result<Option<(Names, OwnedFd)>, Unlisted> {
    let (run, dir) = (walker.run, &work.dir);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = {
        let _flight = walker.limit.begin();
        Place::at(&dir.path).and_then(|place| place.open(flags))
    };
    let fd = opened.map_err(Unlisted::Errno)?;
    let too_large = |error| Unlisted::TooLarge(Error::aside("the list of a directory's entries", run.aside(), error));
    let mut names = Gathered::new(run.aside());
    let mut buffer = Vec::with_capacity(LISTING_BUFFER);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    loop {
        let is_read = entries.is_buffer_empty();
        if is_read {
            walker.gathering.relieve();
            // Spilled names are kept, because they would have to be listed again.
            if popped.count(names.in_memory()) == Room::None && !names.is_aside() {
                return Ok(None);
            }
        }
        let _flight = is_read.then(|| walker.limit.begin());
        match entries.next() {
            Some(Ok(entry)) => match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.add(name).map_err(too_large)?,
            },
            // The directory was removed after it was opened.
            None | Some(Err(Errno::NOENT)) => break,
            Some(Err(error)) => {
                let why = format!("its listing broke off, entries are missing: {error}");
                run.lost(work.standing, &dir.path, why);
                break;
            }
        }
    }
    // A listing may lack named entries: some file systems hide directories that can be opened.
    let named = work.named().into_iter().flat_map(Tops::keys);
    let names = names.sorted(named).map_err(too_large)?;
    Ok(Some((names, fd)))
}

/// The name of the file that marks a directory as excluded, if it has one.
fn tag_file(run: &Run<'_>, dir: &OwnedFd) -> Option<String> {
    let marked = |(name, header): &&(String, Vec<u8>)| {
        // A FIFO of that name must not block the backup until another process writes into it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(fd) = Place::within(dir, name.as_bytes()).open(flags) else { return false };
        let file = std::fs::File::from(fd);
        let mut start = Vec::new();
        file.take(header.len() as u64).read_to_end(&mut start).is_ok() && start == *header
    };
    run.options.exclude.if_present.iter().find(marked).map(|(name, _)| name.clone())
}
