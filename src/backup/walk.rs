//! Stage 2: directories are listed, entries looked at and compared with the parent's.
//!
//! Walkers take directories from one stack and share the entries of those that are listed
//! ([`super::stack`]). What is unchanged or has no
//! content is finished here, small files are read here ([`super::small`]), and large ones go to the
//! readers. There are as many walkers as the volume answers faster with. The first directory on the
//! stack is the snapshot's root, which has nothing but what was named.

use super::Run;
use super::assemble::{Dir, Part};
use super::names::{Gathered, Names};
use super::parent::{Gap, ParentNodes, is_unchanged};
use super::reach::{Place, Reach};
use super::read::{FileWork, Standing};
use super::small::{Gatherer, Gathering, is_small};
use super::source::{Kind, Top, Tops};
use super::stack::{DirWork, Known, Listed, Listing, Popped, Room, Scope, Stack, Work};
use super::stat::{display, node_type, stat, xattrs_of_path};
use crate::concurrency::Limit;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType, Xattr};
use crate::progress::Action;
use crate::repo::{Error, Result};
use crossbeam_channel::{Sender, TrySendError};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::Scope as Threads;

/// What all walkers share: the stack, and as many threads as the limit has slots.
pub struct Walk<'w, 's, 'c> {
    run: &'w Run<'s>,
    stack: &'w Stack,
    gatherer: &'w Gatherer<'s, 'c>,
    limit: &'w Limit,
    walkers: AtomicUsize,
    /// The system has refused to start a thread; it is not asked again.
    refused: AtomicBool,
    /// All has been looked at.
    done: AtomicBool,
}

impl<'w, 's, 'c> Walk<'w, 's, 'c> {
    pub fn new(
        run: &'w Run<'s>,
        stack: &'w Stack,
        gatherer: &'w Gatherer<'s, 'c>,
        limit: &'w Limit,
    ) -> Walk<'w, 's, 'c> {
        let (refused, done) = (AtomicBool::new(false), AtomicBool::new(false));
        Walk { run, stack, gatherer, limit, walkers: AtomicUsize::new(0), refused, done }
    }

    /// Starts walkers until there are as many as the limit has slots now.
    ///
    /// # Panics
    /// If none can be started.
    pub fn start<'scope>(&'scope self, threads: &'scope Threads<'scope, '_>, files: &Sender<FileWork>) {
        while let Some(walking) = self.admit() {
            let files = files.clone();
            let walk = move || {
                self.run.guarded(|| {
                    let (gathering, walking) = (self.gatherer.begin(), Some(walking));
                    Walker { walk: self, threads, files, gathering, walking }.walk();
                });
            };
            if let Err(error) = std::thread::Builder::new().spawn_scoped(threads, walk) {
                // Those that run do all the work.
                self.refused.store(true, Ordering::Relaxed);
                let running = self.walkers.load(Ordering::Relaxed);
                assert!(running > 0, "no thread can be started: {error}");
                return;
            }
        }
    }

    /// Whether all has been looked at.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Admits one more walker, if there is a slot for one.
    fn admit(&self) -> Option<Walking<'_>> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let slots = self.limit.slots();
        let more = |walkers| (walkers < slots).then_some(walkers + 1);
        self.walkers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Walking(&self.walkers))
    }
}

/// A walker at work.
struct Walking<'w>(&'w AtomicUsize);

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one walker works with.
struct Walker<'t, 'e, 'w, 's, 'c> {
    walk: &'t Walk<'w, 's, 'c>,
    threads: &'t Threads<'t, 'e>,
    files: Sender<FileWork>,
    gathering: Gathering<'t, 's, 'c>,
    /// `None` once it has left.
    walking: Option<Walking<'t>>,
}

/// What is known of an entry before it is looked at.
struct Candidate<'c> {
    name: &'c [u8],
    slot: usize,
    path: PathBuf,
    /// `None`: only the listing has it.
    kind: Option<Kind>,
    /// The named entries below it.
    below: Tops,
}

impl Walker<'_, '_, '_, '_, '_> {
    /// Walks until there is nothing to be taken, or there are too many walkers.
    fn walk(&mut self) {
        let Walk { run, stack, .. } = *self.walk;
        let pop = || stack.pop(|| run.is_stopped());
        while let Some(mut popped) = stack.try_pop().or_else(|| self.gathering.paused(pop)) {
            if run.is_stopped() {
                return;
            }
            self.gathering.relieve();
            let listing = match popped.work.take() {
                Some(Work::Dir(work)) => match self.list(work, &mut popped) {
                    Ok(Some(listed)) => self.next_part(&listed, &mut popped),
                    Ok(None) => continue,
                    Err(error) => Err(error),
                },
                Some(Work::Part(listed)) if listed.dir.is_lost() => continue,
                Some(Work::Part(listed)) => self.next_part(&listed, &mut popped),
                Some(Work::Entries(listing)) => Ok(listing),
                None => continue,
            };
            let listing = match listing {
                Ok(listing) => listing,
                Err(error) => return run.fail(error),
            };
            while let Some(slot) = listing.take() {
                if run.is_stopped() {
                    return;
                }
                if let Err(error) = self.entry_at(&listing, slot) {
                    return run.fail(error);
                }
                self.gathering.relieve();
                self.walk.start(self.threads, &self.files);
                if self.leave() {
                    return;
                }
            }
        }
        self.walk.done.store(true, Ordering::Relaxed);
    }

    /// Lists a directory; `None` if that completes it, if it is left out, or if it is put back to
    /// be listed later.
    fn list(&self, mut work: DirWork, popped: &mut Popped<'_>) -> Result<Option<Arc<Listed>>> {
        let run = self.run();
        let dir = work.dir.clone();
        let listed = match work.scope {
            Scope::Named => None,
            Scope::Whole { device } => match self.listing(&work, popped) {
                // Opening it has mounted a file system on it (autofs): as any mount point, it is
                // empty here.
                Ok(Some((_, fd)))
                    if run.options.one_file_system && rustix::fs::fstat(&fd).is_ok_and(|now| now.st_dev != device) =>
                {
                    None
                }
                Ok(Some(listed)) => Some(listed),
                Ok(None) => {
                    self.walk.stack.push(work);
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
        let (names, fd) = match listed {
            Some((names, fd)) => (names, Some(fd)),
            None => {
                work.scope = Scope::Named;
                (Names::new(named.keys().cloned().collect()), None)
            }
        };
        let tag = fd.as_ref().and_then(|fd| run.tag_file(fd));
        let mut parent = parent.unwrap_or_else(|| ParentNodes::of(dir.previous.as_ref()));
        if names.is_empty() {
            // Its tree is the same as that of any empty directory, whose copy may be damaged.
            if let (_, Some(gap)) = parent.part(&run.parent_trees, &[], true) {
                run.note_gap(&dir, gap);
            }
            dir.complete_empty(run)?;
            return Ok(None);
        }
        Ok(Some(Listed::new(dir, work.scope, fd, tag, named, (names, parent))))
    }

    /// Makes and shares the next part of a directory; the part whose entries are next.
    fn next_part(&self, listed: &Arc<Listed>, popped: &mut Popped<'_>) -> Result<Arc<Listing>> {
        let next = listed.next_part(self.run());
        let names = || format!("the names in {}", display(&listed.dir.path));
        let (listing, is_last) = next.map_err(|error| Error::aside_lost(names(), error))?;
        Ok(popped.share(listing, is_last))
    }

    /// Takes the entry of a slot into the snapshot, or leaves it out.
    fn entry_at(&mut self, listing: &Listing, slot: usize) -> Result<()> {
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
        self.candidate(listing, candidate)
    }

    fn run(&self) -> &Run<'_> {
        self.walk.run
    }

    /// Whether this walker is one too many and is to end. What it leaves is on the stack.
    fn leave(&mut self) -> bool {
        let slots = self.walk.limit.slots();
        let fewer = |walkers| (walkers > slots).then(|| walkers - 1);
        let left = self.walk.walkers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
        if left {
            // It is no longer counted.
            std::mem::forget(self.walking.take());
        }
        left
    }

    /// The names in a directory, and the directory; why there are none. A listing that breaks off is
    /// a problem; what it gave is kept. `None` if there is no room for them now.
    fn listing(
        &self,
        work: &DirWork,
        popped: &mut Popped<'_>,
    ) -> std::result::Result<Option<(Names, OwnedFd)>, Unlisted> {
        let (run, dir) = (self.run(), &work.dir);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = {
            let _flight = self.walk.limit.begin();
            Place::at(&dir.path).and_then(|place| place.open(flags))
        };
        let fd = opened.map_err(Unlisted::Errno)?;
        let aside = run.writer.repo().settings().aside.as_deref();
        let too_large = |error| Unlisted::TooLarge(Error::aside("the list of a directory's entries", aside, error));
        let mut names = Gathered::new(aside);
        let mut buffer = Vec::with_capacity(LISTING_BUFFER);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        loop {
            let is_read = entries.is_buffer_empty();
            if is_read {
                self.gathering.relieve();
                // What has been put aside would have to be listed again.
                if popped.count(names.in_memory()) == Room::None && !names.is_aside() {
                    return Ok(None);
                }
            }
            let _flight = is_read.then(|| self.walk.limit.begin());
            match entries.next() {
                Some(Ok(entry)) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => names.add(name).map_err(too_large)?,
                },
                // It was removed after it had been opened.
                None | Some(Err(Errno::NOENT)) => break,
                Some(Err(error)) => {
                    let why = format!("its listing broke off, entries are missing: {error}");
                    run.lost(work.standing, &dir.path, why);
                    break;
                }
            }
        }
        // A listing may lack what is named: some file systems hide directories that can be opened.
        let named = work.named().into_iter().flat_map(Tops::keys);
        let names = names.sorted(named).map_err(too_large)?;
        Ok(Some((names, fd)))
    }

    /// Looks at one entry of a directory and takes it, or what is named below it, into the
    /// snapshot. Its slot is filled here, or by the stage that completes it.
    fn candidate(&mut self, listing: &Listing, candidate: Candidate<'_>) -> Result<()> {
        let run = self.walk.run;
        let Candidate { name, slot, path, kind, below } = candidate;
        let Listed { scope, tag, .. } = &*listing.of;
        let boundary = match (kind, *scope) {
            (Some(Kind::Target), _) => None,
            (Some(Kind::Found { device }), _) | (_, Scope::Whole { device }) => Some(device),
            (_, Scope::Named) => None,
        };
        // Rules are for what was found, not for what was named, nor for what leads to it.
        let is_found = boundary.is_some();
        let excluded = is_found
            && (tag.as_ref().is_some_and(|tag| tag.as_bytes() != name)
                || run.options.exclude.patterns.matches(&absolute(&path)));
        if excluded && below.is_empty() {
            run.progress.item(Action::Excluded, || display(&path), 0);
            return listing.part.fill(run, slot, None);
        }
        let standing = if kind == Some(Kind::Target) { Standing::Named } else { Standing::Found };
        let looked = self.look(listing, name, &path).and_then(|(place, found)| {
            let seen = seen(&path, found, kind, &below)?;
            Ok((place, seen))
        });
        let (place, Seen { stat: found, followed }) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                run.lost(standing, &path, format!("it vanished or cannot be looked at: {error}"));
                self.lose(below);
                return listing.part.fill(run, slot, None);
            }
        };
        let previous = listing.parent.get(name);
        if !below.is_empty() && node_type(&found) != NodeType::Dir {
            // It was a directory when the sources were resolved.
            self.lose(below);
            if !excluded && (is_found || kind == Some(Kind::Target)) {
                let scope = Scope::Whole { device: found.st_dev };
                let below = Tops::new();
                let entry = Entry { name, slot, place, path: &path, stat: found, previous, standing, scope, below };
                return self.entry(&listing.part, entry);
            }
            return listing.part.fill(run, slot, None);
        }
        if followed && (is_found || kind == Some(Kind::Target)) {
            run.progress.warning(&format!(
                "{}: stored as the directory that it leads to, with what was named below it and nothing else",
                display(&path)
            ));
        }
        let partial = excluded || followed || kind == Some(Kind::Partial) && !is_found;
        let boundary = boundary.filter(|_| run.options.one_file_system);
        let elsewhere = boundary.is_some_and(|device| device != found.st_dev);
        let scope = if partial || elsewhere { Scope::Named } else { Scope::Whole { device: found.st_dev } };
        let entry = Entry { name, slot, place, path: &path, stat: found, previous, standing, scope, below };
        self.entry(&listing.part, entry)
    }

    /// Looks at an entry itself.
    fn look<'p>(&self, listing: &'p Listing, name: &'p [u8], path: &'p Path) -> rustix::io::Result<(Place<'p>, Stat)> {
        let place = match &listing.of.fd {
            Some(fd) => Place::within(fd, name),
            None => Place::at(path)?,
        };
        let _flight = self.walk.limit.begin();
        let found = place.lstat()?;
        Ok((place, found))
    }

    /// The targets below a directory that is lost are lost, too.
    fn lose(&self, tops: Tops) {
        for Top { path, kind, below } in tops.into_values() {
            if kind == Kind::Target {
                let why = "the directory above it cannot be looked at, or is none any more";
                self.run().lost(Standing::Named, &path, why);
            }
            self.lose(below);
        }
    }

    fn entry(&mut self, part: &Arc<Part>, entry: Entry<'_>) -> Result<()> {
        let run = self.walk.run;
        let Entry { name, slot, place, path, mut stat, previous, standing, scope, below } = entry;
        if run.options.read_special && standing == Standing::Named {
            match special(path, &stat) {
                Ok(device) => stat = device.unwrap_or(stat),
                Err(why) => {
                    run.lost(standing, path, why);
                    return part.fill(run, slot, None);
                }
            }
        }
        let ty = node_type(&stat);
        // Nothing can be stored of a socket that would be of use to anybody; restic leaves them
        // out, too.
        if ty == NodeType::Socket {
            match standing {
                Standing::Named => run.lost(standing, path, "it is a socket, which has no content to be stored"),
                Standing::Found => run.progress.item(Action::Excluded, || display(path), 0),
            }
            return part.fill(run, slot, None);
        }
        let is_large = |max: u64| stat.st_size > i64::try_from(max).unwrap_or(i64::MAX);
        if ty == NodeType::File && standing == Standing::Found && run.options.exclude.larger_than.is_some_and(is_large)
        {
            run.progress.item(Action::Excluded, || display(path), 0);
            return part.fill(run, slot, None);
        }
        self.note_unread(path, ty, standing);
        let mut node = run.observer.node(name, &place, &stat, |why| run.problem(path, why));
        match ty {
            NodeType::Dir => {
                node.xattrs = self.xattrs(path);
                let previous = previous.filter(|node| node.ty == NodeType::Dir).cloned();
                let dir = Dir::new(path.to_owned(), Some(node), previous, standing, Some((part.clone(), slot)));
                if matches!(scope, Scope::Named) && below.is_empty() {
                    return dir.complete_empty(run);
                }
                let known = (!below.is_empty()).then(|| Box::new(Known { parent: None, named: below }));
                self.walk.stack.push(DirWork { dir, scope, standing, known });
                Ok(())
            }
            NodeType::File => {
                run.counts.found_files.fetch_add(1, Ordering::Relaxed);
                run.counts.found_bytes.fetch_add(node.size, Ordering::Relaxed);
                match previous.filter(|before| is_unchanged(run.options, &node, before)) {
                    Some(before) if run.has_content(before, path) => {
                        node.xattrs = self.xattrs(path);
                        node.content.clone_from(&before.content);
                        run.progress.bytes_done.fetch_add(node.size, Ordering::Relaxed);
                        run.finish_file(&node, Action::Unchanged, path);
                        part.fill(run, slot, Some(&node))
                    }
                    _ => {
                        let is_small = is_small(node.size);
                        let (path, in_parent) = (path.to_owned(), previous.is_some());
                        let work = FileWork::file(path, node, part.clone(), slot, standing, in_parent);
                        let large =
                            if is_small { self.gathering.read(run, self.walk.limit, &place, work) } else { Some(work) };
                        if let Some(work) = large {
                            self.send(work);
                        }
                        Ok(())
                    }
                }
            }
            NodeType::Dev if run.options.read_special && standing == Standing::Named => {
                node.ty = NodeType::File;
                node.mode &= 0o777;
                (node.device, node.links) = (0, 1);
                node.xattrs = self.xattrs(path);
                self.send(FileWork::device(path.to_owned(), node, part.clone(), slot, previous.is_some()));
                Ok(())
            }
            _ => {
                node.xattrs = self.xattrs(path);
                part.fill(run, slot, Some(&node))
            }
        }
    }

    fn xattrs(&self, path: &Path) -> Vec<Xattr> {
        let _flight = self.walk.limit.begin();
        xattrs_of_path(path, |why| self.run().problem(path, why))
    }

    /// Sends a file to the readers, which end early only when the run is stopped.
    fn send(&self, work: FileWork) {
        if let Err(TrySendError::Full(work)) = self.files.try_send(work) {
            self.gathering.paused(|| drop(self.files.send(work)));
        }
    }

    /// Reports a block device whose content is not read although somebody may expect it to be.
    fn note_unread(&self, path: &Path, ty: NodeType, standing: Standing) {
        let read_special = self.run().options.read_special;
        let leads_to_device = || stat(path).is_ok_and(|stat| node_type(&stat) == NodeType::Dev);
        let what = match (standing, ty) {
            (Standing::Named, NodeType::Dev) if !read_special => {
                "a block device, stored without its content: --read-special reads it"
            }
            (Standing::Named, NodeType::Symlink) if !read_special && leads_to_device() => {
                "a symlink to a block device, stored as a symlink: --read-special reads the device"
            }
            (Standing::Named, NodeType::Symlink) => "a symlink, stored as such, without what it leads to",
            (Standing::Found, NodeType::Dev) if read_special => {
                "a block device, stored without its content: --read-special reads those that are named"
            }
            _ => return,
        };
        self.run().progress.warning(&format!("{}: {what}", display(path)));
    }
}

/// Bytes of a directory's listing that are read at a time: glibc's choice.
const LISTING_BUFFER: usize = 32 << 10;

/// Why there are no names of a directory.
enum Unlisted {
    Errno(Errno),
    /// They cannot be put aside.
    TooLarge(Error),
}

/// What an entry is, as far as its sources are concerned.
struct Seen {
    stat: Stat,
    /// It is a symlink, and `stat` is of what that leads to.
    followed: bool,
}

/// Looks at an entry once more where its own metadata is not what counts: what leads to a target is a
/// directory, also behind a symlink, and opening a named directory may mount a file system on it
/// (autofs), which is what was named.
fn seen(path: &Path, found: Stat, kind: Option<Kind>, below: &Tops) -> rustix::io::Result<Seen> {
    match node_type(&found) {
        NodeType::Symlink if !below.is_empty() => Ok(Seen { stat: stat(path)?, followed: true }),
        NodeType::Dir if kind == Some(Kind::Target) => {
            Ok(Seen { stat: opened(path).unwrap_or(found), followed: false })
        }
        _ => Ok(Seen { stat: found, followed: false }),
    }
}

/// Looks at a directory by opening it.
fn opened(path: &Path) -> rustix::io::Result<Stat> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::fstat(rustix::fs::openat(CWD, Reach::of(path)?.path(), flags, Mode::empty())?)
}

/// With `--read-special`, the block device that a named entry is or leads to; an error for what
/// cannot be read as one.
fn special(path: &Path, found: &Stat) -> std::result::Result<Option<Stat>, String> {
    let stat = match node_type(found) {
        NodeType::Symlink => match stat(path) {
            Ok(stat) => stat,
            Err(error) => return Err(format!("it is a symlink that leads nowhere: {error}")),
        },
        _ => *found,
    };
    match node_type(&stat) {
        NodeType::Dev => Ok(Some(stat)),
        ty @ (NodeType::CharDev | NodeType::Fifo | NodeType::Socket) => {
            Err(format!("it is a {}, and --read-special reads block devices only", ty.name()))
        }
        NodeType::File | NodeType::Dir | NodeType::Symlink | NodeType::Irregular | NodeType::Unknown => Ok(None),
    }
}

/// An entry to be taken into a snapshot.
struct Entry<'e> {
    name: &'e [u8],
    slot: usize,
    place: Place<'e>,
    path: &'e Path,
    stat: Stat,
    previous: Option<&'e Node>,
    standing: Standing,
    /// What is taken of it, if it is a directory.
    scope: Scope,
    /// The named entries below it.
    below: Tops,
}

impl Run<'_> {
    /// The rest of what the parent has in a directory is not known: its files are read again.
    pub(super) fn note_gap(&self, dir: &Dir, gap: Gap) {
        let path = if dir.path.as_os_str().is_empty() { Path::new("/") } else { &dir.path };
        let copy = "the parent snapshot's copy of the directory";
        match gap.error {
            None => {
                let what = "is not sorted by name and too large to be searched, so its files are read again";
                self.progress.warning(&format!("{}: {copy} {what}", display(path)));
            }
            Some(error) if error.is_damage() => {
                // The tree is stored again even if an index names the damaged copy.
                self.writer.distrust(BlobType::Tree, gap.tree);
                self.damage(path, format!("{copy} is damaged, so its files are read again: {error}"));
            }
            Some(error) if error.spares_others() => {
                let what = "cannot be read, so its files are read again";
                self.progress.warning(&format!("{}: {copy} {what}: {error}", display(path)));
            }
            Some(error) => self.fail(*error),
        }
    }

    /// Reports names that a directory was listed with twice.
    pub(super) fn note_twice(&self, path: &Path, names: usize) {
        // Network file systems do that to a directory that changes meanwhile. Both entries are the
        // same file.
        if names > 0 {
            self.progress.warning(&format!("{}: {names} names were listed twice", display(path)));
        }
    }

    /// Whether the repository has all blobs of a file.
    fn has_content(&self, node: &Node, path: &Path) -> bool {
        let complete = node.content.iter().flatten().all(|id| self.writer.index().contains(BlobType::Data, id));
        if !complete {
            self.damage(path, "the repository lacks parts of it that the parent snapshot needs, so it is read again");
        }
        complete
    }

    /// The name of the file that marks a directory as one to be left out, if it has one.
    fn tag_file(&self, dir: &OwnedFd) -> Option<String> {
        let marked = |(name, header): &&(String, Vec<u8>)| {
            use std::io::Read;
            // A FIFO of that name must not hold the backup until somebody writes into it.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(fd) = Place::within(dir, name.as_bytes()).open(flags) else { return false };
            let file = std::fs::File::from(fd);
            let mut start = Vec::new();
            file.take(header.len() as u64).read_to_end(&mut start).is_ok() && start == *header
        };
        self.options.exclude.if_present.iter().find(marked).map(|(name, _)| name.clone())
    }
}

/// The path that exclude patterns are matched with.
fn absolute(path: &Path) -> Vec<u8> {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string().as_bytes().to_vec()
}
