//! Stage 2: everything that is to be restored, in compact tables, before anything is touched.
//!
//! Directories and files are numbered in the order of the walk, and every place that a blob goes to is one [`Use`] of 16 bytes. Names
//! are kept once, in one buffer. Of the metadata, the time is kept, and a plain file's owner and mode, because it gets
//! them as soon as it is complete; everything else about an entry is read again from the trees when the restore is finished. The
//! tables' size is bounded: a snapshot that would need more, or that repeats itself endlessly, is refused here by name.

mod build;

pub use build::build;

use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::index::Location;
use crate::repo::{self, Index};
use crate::restore::meta::Access;
use crate::restore::walk::display;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Where a name is in [`Plan::names`].
#[derive(Clone, Copy)]
struct Name {
    start: u32,
    length: u16,
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

/// A regular file that gets content of its own.
pub struct File {
    pub dir: u32,
    name: Name,
    pub size: u64,
    pub mtime: (i64, u32),
    /// Where its owner and mode are in [`Plan::accesses`], if they are all metadata that it has.
    access: u16,
    /// Bytes that were there already.
    pub present: AtomicU64,
    /// Uses still to be written.
    pub left: AtomicU32,
    /// Some piece cannot be had.
    pub lacking: AtomicBool,
    /// Something had its place when the target was looked at, and may be replaced.
    pub occupied: AtomicBool,
    state: AtomicU8,
}

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
    pub file: u32,
    pub offset: u64,
}

/// Not in [`Plan::accesses`].
const NO_ACCESS: u16 = u16::MAX;

const NO_CONTENT: &str = "the snapshot lists no content for it";

/// The tables.
#[derive(Default)]
pub struct Plan {
    names: Vec<u8>,
    pub dirs: Vec<Dir>,
    pub files: Vec<File>,
    /// By file and offset.
    pub uses: Vec<Use>,
    /// Each owner and mode of plain files, once.
    accesses: Vec<Access>,
    /// By use: the file had this piece already. Empty if nothing was compared.
    pub present: Vec<AtomicBool>,
    /// By [`link_key`]: the first file of each group of hard links.
    pub links: HashMap<Id, u32>,
    /// Entries of all kinds that are meant, the target itself left out; and the bytes of all files.
    pub entries: u64,
    pub bytes: u64,
    /// Some directory has names that cannot be trusted.
    pub doubtful: bool,
    /// Why the end of the target's own list of entries cannot be read.
    pub root_damage: Option<String>,
    /// The first entry that the target did not take, and why.
    pub refusal: OnceLock<String>,
}

/// A plan of one file and no directories, for a target that is a file itself.
pub struct Image {
    pub plan: Plan,
    /// Bytes and blobs that no index has, and why.
    pub lost: u64,
    pub pieces: u64,
    pub why: Option<repo::Error>,
}

impl Plan {
    /// The path of a directory, relative to the target.
    pub fn dir_path(&self, number: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = number;
        while at != 0 {
            let dir = &self.dirs[at as usize];
            names.push(self.name(dir.name));
            at = dir.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of a file, relative to the target.
    pub fn file_path(&self, number: u32) -> Vec<u8> {
        let file = &self.files[number as usize];
        self.path_in(file.dir, self.name(file.name))
    }

    /// The last component of a directory's path, and of a file's.
    pub fn dir_name(&self, number: u32) -> &[u8] {
        self.name(self.dirs[number as usize].name)
    }

    pub fn file_name(&self, number: u32) -> &[u8] {
        self.name(self.files[number as usize].name)
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

    /// A file's owner and mode, if they and the time are all metadata that it has.
    pub fn access(&self, number: u32) -> Option<Access> {
        self.accesses.get(usize::from(self.files[number as usize].access)).copied()
    }

    /// Where a use's blob is.
    pub fn location(&self, index: &Index, needed: &Use) -> Location {
        index.at(BlobType::Data, needed.blob as usize)
    }

    /// The numbers of a file's uses.
    pub fn uses_of(&self, file: u32) -> std::ops::Range<usize> {
        let first = self.uses.partition_point(|needed| needed.file < file);
        first..self.uses.partition_point(|needed| needed.file <= file)
    }

    /// Bytes of a use's blob.
    pub fn use_length(&self, index: &Index, number: usize) -> u64 {
        self.location(index, &self.uses[number]).blob.plain_length()
    }

    /// Whether a use need not be fetched.
    pub fn is_present(&self, number: usize) -> bool {
        self.present.get(number).is_some_and(|present| present.load(Ordering::Relaxed))
    }

    fn name(&self, name: Name) -> &[u8] {
        &self.names[name.start as usize..][..usize::from(name.length)]
    }

    /// Plans a file alone. What comes before the first blob that is in no index has its place, and
    /// so has what comes after the last one: its distance from the end is known.
    pub fn of_image(index: &Index, node: &Node) -> std::result::Result<Image, String> {
        let mut plan = Plan { entries: 1, ..Plan::default() };
        let content = node.content.as_ref().ok_or(NO_CONTENT)?;
        let known = |id: &Id| {
            let position = index.position(BlobType::Data, *id)?;
            Some((count(position), index.at(BlobType::Data, position).blob.plain_length()))
        };
        for (blob, length) in content.iter().map_while(known) {
            plan.uses.push(Use { blob, file: 0, offset: plan.bytes });
            plan.bytes = plan.bytes.saturating_add(length);
        }
        let (mut lost, mut pieces, mut why) = (0, 0, None);
        if let Some(&id) = content.get(plan.uses.len()) {
            let head = plan.bytes;
            plan.bytes = head.max(node.size);
            let mut end = plan.bytes;
            for (blob, length) in content.iter().rev().map_while(known) {
                let Some(offset) = end.checked_sub(length).filter(|&offset| offset >= head) else { break };
                plan.uses.push(Use { blob, file: 0, offset });
                end = offset;
            }
            (lost, pieces) = (end - head, (content.len() - plan.uses.len()) as u64);
            why = Some(repo::Error::BlobMissing { ty: BlobType::Data, id });
        } else if plan.bytes != node.size {
            return Err(format!("the snapshot gives it {} bytes and lists content of {}", node.size, plan.bytes));
        }
        let left = AtomicU32::new(count(plan.uses.len()));
        let (name, state) = (plan.keep_name(&node.name), AtomicU8::new(State::Planned as u8));
        plan.files.push(File {
            dir: 0,
            name,
            size: plan.bytes,
            mtime: node.mtime.instant(),
            access: NO_ACCESS,
            present: AtomicU64::new(0),
            left,
            lacking: false.into(),
            occupied: false.into(),
            state,
        });
        Ok(Image { plan, lost, pieces, why })
    }

    /// Lists the uses of a file's blobs; returns the bytes they have together.
    fn place_blobs(&mut self, index: &Index, node: &Node, file: u32) -> std::result::Result<u64, String> {
        let content = node.content.as_ref().ok_or(NO_CONTENT)?;
        let mut offset = 0;
        for &id in content {
            let missing = || repo::Error::BlobMissing { ty: BlobType::Data, id }.to_string();
            let position = index.position(BlobType::Data, id).ok_or_else(missing)?;
            self.uses.push(Use { blob: count(position), file, offset });
            offset += index.at(BlobType::Data, position).blob.plain_length();
        }
        Ok(offset)
    }

    /// Reports an entry that the target does not take.
    pub fn refuse(&self, progress: &Progress, path: &[u8], why: impl Display) {
        let (item, why) = (display(path), why.to_string());
        self.refusal.get_or_init(|| format!("{item}: {why}"));
        progress.problem(Phase::Restore, item, why);
    }

    /// Gives back what the tables could still grow by.
    fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.dirs.shrink_to_fit();
        self.files.shrink_to_fit();
        self.uses.shrink_to_fit();
        self.accesses.shrink_to_fit();
    }

    pub fn memory(&self) -> u64 {
        let of = |count: usize, size: usize| (count * size) as u64;
        self.names.len() as u64
            + of(self.dirs.len(), size_of::<Dir>())
            + of(self.files.len(), size_of::<File>())
            + of(self.uses.len(), size_of::<Use>())
            + of(self.accesses.len(), size_of::<Access>())
            + of(self.links.len(), 2 * size_of::<(Id, u32)>())
    }

    fn keep_name(&mut self, path: &[u8]) -> Name {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let start = count(self.names.len());
        self.names.extend_from_slice(name);
        Name { start, length: u16::try_from(name.len()).expect("the walk leaves out longer ones") }
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
    node.content.iter().flatten().for_each(|id| key.extend_from_slice(&id.0));
    Some(Id::of(&key))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("the plan's memory is bounded far below 2^32 entries")
}
