//! Examines one entry of a directory: whether it is excluded, what type it has, and how much of it
//! is stored.

use super::entry::{self, Entry};
use super::walker::Walker;
use crate::backup::reach::{Place, Reach};
use crate::backup::source::{Kind, Standing, Top, Tops};
use crate::backup::stack::{Listed, Listing, Scope};
use crate::backup::stat::{display, node_type, stat};
use crate::format::node::NodeType;
use crate::progress::Action;
use crate::repo::Result;
use rustix::fs::{CWD, Mode, OFlags, Stat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// The facts about an entry that are known before its metadata is read.
struct Candidate<'c> {
    name: &'c [u8],
    slot: usize,
    path: PathBuf,
    /// `None` if only the listing has it.
    kind: Option<Kind>,
    /// The named entries below it.
    below: Tops,
}

/// Takes the entry of a slot into the snapshot, or leaves it out.
pub fn at_slot(walker: &mut Walker<'_, '_, '_>, listing: &Listing, slot: usize) -> Result<()> {
    let dir = &listing.of.dir;
    let name = &listing.part.names[slot][..];
    let named = listing.of.named.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    let candidate = match named {
        Some(Top { path, kind, below }) => Candidate { name, slot, path, kind: Some(kind), below },
        None => {
            let path = dir.path.join(OsStr::from_bytes(name));
            Candidate { name, slot, path, kind: None, below: Tops::new() }
        }
    };
    look(walker, listing, candidate)
}

/// Examines one entry of a directory and takes it, or the named entries below it, into the
/// snapshot. Its slot is filled here, or by the stage that completes it.
fn look(walker: &mut Walker<'_, '_, '_>, listing: &Listing, candidate: Candidate<'_>) -> Result<()> {
    let run = walker.run;
    let Candidate { name, slot, path, kind, below } = candidate;
    let Listed { scope, opened, .. } = &*listing.of;
    let boundary = match (kind, *scope) {
        (Some(Kind::Target), _) => None,
        (Some(Kind::Found { device }), _) | (_, Scope::Whole { device }) => Some(device),
        (_, Scope::Named) => None,
    };
    // Exclude rules apply to entries that were found, not to named entries, nor to directories that
    // lead to them.
    let is_found = boundary.is_some();
    let tag = opened.as_ref().and_then(|opened| opened.tag.as_ref());
    let excluded = is_found
        && (tag.is_some_and(|tag| tag.as_bytes() != name) || run.options.exclude.patterns.matches(&absolute(&path)));
    if excluded && below.is_empty() {
        run.progress.item(Action::Excluded, || display(&path), 0);
        return listing.part.fill(run, slot, None);
    }
    let standing = if kind == Some(Kind::Target) { Standing::Named } else { Standing::Found };
    let looked = lstat(walker, listing, name, &path).and_then(|(place, found)| {
        let seen = seen(&path, found, kind, &below)?;
        Ok((place, seen))
    });
    let (place, Seen { stat: found, followed }) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            run.lost(standing, &path, format!("it vanished or its metadata cannot be read: {error}"));
            lose(walker, below);
            return listing.part.fill(run, slot, None);
        }
    };
    let (part, previous) = (&listing.part, listing.parent.get(name));
    if !below.is_empty() && node_type(&found) != NodeType::Dir {
        // The entry was a directory when the sources were resolved.
        lose(walker, below);
        if !excluded && (is_found || kind == Some(Kind::Target)) {
            let scope = Scope::Whole { device: found.st_dev };
            let below = Tops::new();
            let entry = Entry { name, part, slot, place, path: &path, stat: found, previous, standing, scope, below };
            return entry::take(walker, entry);
        }
        return part.fill(run, slot, None);
    }
    if followed && (is_found || kind == Some(Kind::Target)) {
        run.progress.warning(&format!(
            "{}: a symlink, stored as the directory that it leads to, with only the entries named below it",
            display(&path)
        ));
    }
    let partial = excluded || followed || kind == Some(Kind::Partial) && !is_found;
    let boundary = boundary.filter(|_| run.options.one_file_system);
    let elsewhere = boundary.is_some_and(|device| device != found.st_dev);
    let scope = if partial || elsewhere { Scope::Named } else { Scope::Whole { device: found.st_dev } };
    let entry = Entry { name, part, slot, place, path: &path, stat: found, previous, standing, scope, below };
    entry::take(walker, entry)
}

/// Reads the metadata of an entry itself.
fn lstat<'p>(
    walker: &Walker<'_, '_, '_>,
    listing: &'p Listing,
    name: &'p [u8],
    path: &'p Path,
) -> rustix::io::Result<(Place<'p>, Stat)> {
    let place = match &listing.of.opened {
        Some(opened) => Place::within(&opened.fd, name),
        None => Place::at(path)?,
    };
    let _flight = walker.limit.begin();
    let found = place.lstat()?;
    Ok((place, found))
}

/// Reports the targets below a lost directory, which are lost, too.
fn lose(walker: &Walker<'_, '_, '_>, tops: Tops) {
    for Top { path, kind, below } in tops.into_values() {
        if kind == Kind::Target {
            let why = "the directory above it cannot be read, or is no longer a directory";
            walker.run.lost(Standing::Named, &path, why);
        }
        lose(walker, below);
    }
}

/// The metadata by which an entry is stored.
struct Seen {
    stat: Stat,
    /// The entry is a symlink, and `stat` is the metadata of its target.
    followed: bool,
}

/// Reads the metadata of an entry again if its own does not count. A symlink on the way to a target
/// stands for the directory behind it. Opening a named directory may mount a file system on it
/// (autofs), which is then the named one.
fn seen(path: &Path, found: Stat, kind: Option<Kind>, below: &Tops) -> rustix::io::Result<Seen> {
    match node_type(&found) {
        NodeType::Symlink if !below.is_empty() => Ok(Seen { stat: stat(path)?, followed: true }),
        NodeType::Dir if kind == Some(Kind::Target) => {
            Ok(Seen { stat: opened(path).unwrap_or(found), followed: false })
        }
        _ => Ok(Seen { stat: found, followed: false }),
    }
}

/// Reads the metadata of a directory by opening it.
fn opened(path: &Path) -> rustix::io::Result<Stat> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::fstat(rustix::fs::openat(CWD, Reach::of(path)?.path(), flags, Mode::empty())?)
}

/// The path that exclude patterns are matched with.
fn absolute(path: &Path) -> Vec<u8> {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string().as_bytes().to_vec()
}
