//! Stage 2: everything that is to be restored, in compact tables, before anything is touched.
//!
//! Directories and files are numbered in the order of the walk, and every place that a blob goes to is one [`Use`] of 16
//! bytes. Of the metadata, the time is kept, and a plain file's owner and mode, because it gets them as soon as it is
//! complete; everything else about an entry is read again from the trees when the restore is finished.
//!
//! Files and uses are in [`Table`]s of bounded size ([`stretch`]), which the stages up to the files' content go through one
//! by one. The size of all of it is bounded too: a snapshot that would need more, or that repeats itself endlessly, is
//! refused here by name.

mod build;
mod image;
mod outcomes;
mod stretch;

pub use build::{Room, build};
pub use image::Image;
pub use outcomes::Outcomes;
pub use stretch::{Stretch, Table};

use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::hash::Sha256;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::Index;
use crate::repo::index::Location;
use crate::restore::error::Result;
use crate::restore::inodes::{Claimed, Replaced, Settled};
use crate::restore::meta::Access;
use crate::restore::walk::display;
use rustix::fs::Stat;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use stretch::Stretches;

/// Where a name is in a table's names, or in the plan's.
#[derive(Clone, Copy)]
struct Name {
    start: u32,
    length: u16,
}

impl Name {
    /// Keeps the last component of a path.
    fn keep(names: &mut Vec<u8>, path: &[u8]) -> Name {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let start = count(names.len());
        names.extend_from_slice(name);
        Name { start, length: u16::try_from(name.len()).expect("the walk leaves out longer ones") }
    }

    fn of(self, names: &[u8]) -> &[u8] {
        &names[self.start as usize..][..usize::from(self.length)]
    }
}

/// A directory below the target; number 0 is the target itself.
pub struct Dir {
    pub parent: u32,
    name: Name,
    pub mtime: (i64, u32),
    /// The first directory and the first file that are not below it.
    pub dirs_end: u32,
    pub files_end: u32,
    /// It or something below it is meant. The others are not made.
    pub needed: bool,
    /// What is in it cannot be read from the snapshot, or not to its end.
    pub unreadable: bool,
    pub truncated: bool,
    /// It was not there before this run.
    pub fresh: Flag,
    /// It could not be made: nothing below it can be restored.
    pub failed: Flag,
    /// What is made in it may get extended attributes from it: its default ACL.
    pub hands_down: Flag,
}

/// What a thread finds out about a directory, for all others.
#[derive(Default)]
pub struct Flag(AtomicBool);

impl Flag {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A regular file that gets content of its own, or a part of one whose uses are in several tables.
pub struct File {
    pub dir: u32,
    name: Name,
    /// Bytes of the whole file.
    pub size: u64,
    pub mtime: (i64, u32),
    /// Where its owner and mode are in [`Plan::accesses`], if they are all metadata that it has.
    access: u16,
    /// Its first uses are in this table, and its last ones.
    pub begins: bool,
    pub ends: bool,
    /// Bytes of the uses in this table that were there already, or of all of a file that stays as it was.
    pub present: AtomicU64,
    /// Uses in this table still to be written.
    pub left: AtomicU32,
    /// Some piece cannot be had.
    pub lacking: AtomicBool,
    found: AtomicU8,
    state: AtomicU8,
}

/// What had a file's place when the target was looked at, and may be replaced or corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Found {
    Nothing,
    /// Something of another size than the file has in the snapshot, or of the same.
    Shorter,
    Same,
    Longer,
}

impl Found {
    /// What has the place of a file of so many bytes.
    pub fn of(stat: &Stat, size: u64) -> Found {
        match u64::try_from(stat.st_size).unwrap_or(0).cmp(&size) {
            std::cmp::Ordering::Less => Found::Shorter,
            std::cmp::Ordering::Equal => Found::Same,
            std::cmp::Ordering::Greater => Found::Longer,
        }
    }
}

const FOUND: [Found; 4] = [Found::Nothing, Found::Shorter, Found::Same, Found::Longer];

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// To be made anew at the first write.
    Planned,
    /// Made by this run, and not complete.
    Made,
    /// There before with other content, which is being corrected in place.
    Correcting,
    /// Complete, and new.
    Done,
    /// Complete, new, and with its metadata.
    Finished,
    /// Complete, and there before with other content.
    Corrected,
    /// There before and correct.
    Correct,
    /// There before and not to be overwritten.
    Kept,
    /// Told as a problem.
    Failed,
}

const STATES: [State; 9] = [
    State::Planned,
    State::Made,
    State::Correcting,
    State::Done,
    State::Finished,
    State::Corrected,
    State::Correct,
    State::Kept,
    State::Failed,
];

impl File {
    /// A file whose place has not been looked at; its name and uses come with [`stretch::Filling::add`].
    fn new(dir: u32, size: u64, mtime: (i64, u32), access: u16, state: State) -> File {
        File {
            dir,
            name: Name { start: 0, length: 0 },
            size,
            mtime,
            access,
            begins: true,
            ends: true,
            present: 0.into(),
            left: 0.into(),
            lacking: false.into(),
            found: (Found::Nothing as u8).into(),
            state: (state as u8).into(),
        }
    }

    pub fn found(&self) -> Found {
        FOUND[usize::from(self.found.load(Ordering::Relaxed))]
    }

    /// Notes what has the file's place.
    pub fn set_found(&self, found: Found) {
        self.found.store(found as u8, Ordering::Relaxed);
    }

    /// Whether all its uses are in this table.
    pub fn is_whole(&self) -> bool {
        self.begins && self.ends
    }

    pub fn state(&self) -> State {
        STATES[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Changes the state and returns the one before.
    pub fn set_state(&self, state: State) -> State {
        STATES[usize::from(self.state.swap(state as u8, Ordering::AcqRel))]
    }

    /// Changes the state unless it has changed: what has failed stays so. Returns whether it did.
    pub fn advance(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// One place that a blob's plaintext goes to.
#[derive(Clone, Copy)]
pub struct Use {
    /// The blob's position in the index.
    pub blob: u32,
    /// The file's place in its table.
    pub file: u32,
    pub offset: u64,
}

impl Use {
    /// Where its blob is.
    pub fn location(&self, index: &Index) -> Location {
        index.at(BlobType::Data, self.blob as usize)
    }
}

/// Not in [`Plan::accesses`].
const NO_ACCESS: u16 = u16::MAX;

const NO_CONTENT: &str = "the snapshot lists no content for it";

/// The first file of a group of hard links.
pub struct Link {
    pub file: u32,
    pub dir: u32,
    name: Name,
}

/// The tables.
#[derive(Default)]
pub struct Plan {
    /// Those of directories and of the first names of hard links.
    names: Vec<u8>,
    pub dirs: Vec<Dir>,
    stretches: Stretches,
    /// How many files there are.
    pub files: u32,
    /// The sizes of files whose nodes give others.
    sizes: HashMap<u32, u64>,
    /// Each owner and mode of plain files, once.
    accesses: Vec<Access>,
    /// By [`link_key`]: the first file of each group of hard links.
    pub links: HashMap<Id, Link>,
    /// Entries of all kinds that are meant, the target itself left out; and the bytes of all files.
    pub entries: u64,
    pub bytes: u64,
    /// Some directory has names that cannot be trusted.
    pub doubtful: bool,
    /// Why the end of the target's own list of entries cannot be read.
    pub root_damage: Option<String>,
    /// What files were made in the place of something else.
    pub replaced: Replaced,
    /// Directories that existed, or were made in one that existed, each given to one entry.
    pub claimed_dirs: Claimed,
    /// What is right already, or was made right, and has several names.
    pub settled: Settled,
    /// The first entry that the target did not take, and why.
    pub refusal: OnceLock<String>,
}

impl Plan {
    /// The path of a directory, relative to the target.
    pub fn dir_path(&self, number: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = number;
        while at != 0 {
            let dir = &self.dirs[at as usize];
            names.push(dir.name.of(&self.names));
            at = dir.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The last component of a directory's path, and of a hard link's.
    pub fn dir_name(&self, number: u32) -> &[u8] {
        self.dirs[number as usize].name.of(&self.names)
    }

    pub fn link_name(&self, link: &Link) -> &[u8] {
        link.name.of(&self.names)
    }

    /// The path of an entry of a directory, relative to the target.
    pub fn path_in(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        let mut path = self.dir_path(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The numbers of the directories that are in a directory.
    pub fn dirs_in(&self, number: u32) -> impl Iterator<Item = u32> {
        let end = self.dirs[number as usize].dirs_end;
        let next = move |&at: &u32| self.dirs.get(at as usize).map(|dir| dir.dirs_end);
        std::iter::successors(Some(number + 1), next).take_while(move |&at| at < end)
    }

    /// How many tables the files are in.
    pub fn stretches(&self) -> usize {
        self.stretches.len()
    }

    /// The files of one table, as they were planned.
    pub fn stretch(&self, at: usize) -> Result<Stretch<'_>> {
        Ok(Stretch::new(self, self.stretches.get(at)?))
    }

    /// Names the files of a directory to `each`; `first` is the number of the first of them.
    pub fn each_file(&self, dir: u32, first: u32, each: impl FnMut(u32, &[u8])) -> Result<()> {
        self.stretches.each_file(dir, first, each)
    }

    /// The bytes of a file's content; its node gives it `size`.
    pub fn size(&self, file: u32, size: u64) -> u64 {
        self.sizes.get(&file).copied().unwrap_or(size)
    }

    /// Reports an entry that the target does not take.
    pub fn refuse(&self, progress: &Progress, path: &[u8], why: impl Display) {
        let (item, why) = (display(path), why.to_string());
        self.refusal.get_or_init(|| format!("{item}: {why}"));
        progress.problem(Phase::Restore, item, why);
    }

    /// Bytes that it takes in memory for good: all but the tables of files.
    pub fn memory(&self) -> u64 {
        let of = |count: usize, size: usize| (count * size) as u64;
        self.names.len() as u64
            + of(self.dirs.len(), size_of::<Dir>())
            + of(self.accesses.len(), size_of::<Access>())
            + of(self.links.len(), 2 * size_of::<(Id, Link)>())
            + of(self.sizes.len(), 2 * size_of::<(u32, u64)>())
            + u64::from(self.files) * Outcomes::EACH
    }

    /// Gives back what the tables could still grow by.
    fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.dirs.shrink_to_fit();
        self.accesses.shrink_to_fit();
    }
}

/// What the names of one entry have in common; `None` if it has only one. How many a fifo has is not stored, so that its inode has to tell.
/// What is in it belongs to the key: a file that changed while it was backed up may have other content under each name, and each of them comes back.
pub fn link_key(node: &Node) -> Option<Id> {
    let several = node.links > 1 || node.ty == NodeType::Fifo && node.links == 0;
    if !several || node.inode == 0 {
        return None;
    }
    let mut key = Vec::from(node.ty.name());
    [node.inode, node.device_id, node.device].iter().for_each(|number| key.extend_from_slice(&number.to_le_bytes()));
    key.extend_from_slice(&node.link_target);
    let mut hash = Sha256::new();
    hash.update(&key);
    node.content.iter().flatten().for_each(|id| hash.update(&id.0));
    Some(Id(hash.finish()))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("the plan's memory is bounded far below 2^32 entries")
}
