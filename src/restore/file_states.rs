//! The states of the files of one table, and the transitions between them.

use super::plan::memory::FILE_STATE;
use super::plan::table::Table;
use rustix::fs::Stat;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The entry that had a file's name when the target was inspected, by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Found {
    Nothing,
    /// Something shorter than the file in the snapshot, of the same size, or longer.
    Shorter,
    Same,
    Longer,
}

impl Found {
    /// Compares an existing entry with a file of `size` bytes.
    pub fn of(stat: &Stat, size: u64) -> Found {
        match u64::try_from(stat.st_size).unwrap_or(0).cmp(&size) {
            std::cmp::Ordering::Less => Found::Shorter,
            std::cmp::Ordering::Equal => Found::Same,
            std::cmp::Ordering::Greater => Found::Longer,
        }
    }
}

pub const FOUND: [Found; 4] = [Found::Nothing, Found::Shorter, Found::Same, Found::Longer];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// To be created at the first write.
    Planned,
    /// Created by this run, and not complete.
    Made,
    /// Existed with other content, which is being corrected in place.
    Correcting,
    /// Complete, and new.
    Done,
    /// Complete, new, and with its metadata.
    Finished,
    /// Complete, and existed with other content.
    Corrected,
    /// Existed and was correct.
    Correct,
    /// Existed and is not to be overwritten.
    Kept,
    /// Reported as a problem.
    Failed,
}

pub const STATES: [State; 9] = [
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

/// The states of a table's files, which any thread may change.
pub struct FileStates {
    files: Vec<FileState>,
    /// By use: whether the file had this piece already. Not set if nothing was compared.
    pieces: OnceLock<Vec<AtomicBool>>,
}

/// The state of one file, or of a part of a split file.
pub struct FileState {
    /// Bytes of the uses in this table that were already correct, or all bytes of a file that stays
    /// as it was.
    present: AtomicU64,
    /// Uses in this table still to be written.
    left: AtomicU32,
    /// A piece cannot be read.
    lacking: AtomicBool,
    found: AtomicU8,
    state: AtomicU8,
}

const _: () = assert!(size_of::<FileState>() == FILE_STATE);

impl FileStates {
    /// The states of a table before the target is inspected.
    pub fn planned(table: &Table) -> FileStates {
        let mut uses = table.uses.iter().peekable();
        let files = (0..).zip(&table.files).map(|(place, file)| {
            let mut left = 0;
            while uses.next_if(|needed| needed.file == place).is_some() {
                left += 1;
            }
            let state = if file.is_usable { State::Planned } else { State::Failed };
            FileState {
                present: 0.into(),
                left: left.into(),
                lacking: false.into(),
                found: (Found::Nothing as u8).into(),
                state: (state as u8).into(),
            }
        });
        FileStates { files: files.collect(), pieces: OnceLock::new() }
    }

    /// The state of a file by its place in the table.
    pub fn of(&self, place: u32) -> &FileState {
        &self.files[place as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &FileState> {
        self.files.iter()
    }

    /// Whether a use need not be fetched.
    pub fn is_present(&self, number: usize) -> bool {
        self.pieces.get().is_some_and(|pieces| pieces[number].load(Ordering::Relaxed))
    }

    /// For each of `uses` uses, whether it need not be fetched: false until a comparison sets it.
    pub fn compare_pieces(&self, uses: usize) -> &[AtomicBool] {
        self.pieces.get_or_init(|| (0..uses).map(|_| AtomicBool::new(false)).collect())
    }
}

impl FileState {
    pub fn state(&self) -> State {
        STATES[usize::from(self.state.load(Ordering::Acquire))]
    }

    pub fn found(&self) -> Found {
        FOUND[usize::from(self.found.load(Ordering::Relaxed))]
    }

    pub fn is_lacking(&self) -> bool {
        self.lacking.load(Ordering::Acquire)
    }

    pub fn present(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// Uses still to be written. A thread that sees only its own use left sees all that was written
    /// of the others.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Acquire)
    }
}

/// Transitions before the content arrives: the existing entry, and the decision about the file.
impl FileState {
    /// Records the existing entry in the file's place.
    pub fn set_found(&self, found: Found) {
        self.found.store(found as u8, Ordering::Relaxed);
    }

    /// Records the existing entry and the decision.
    pub fn decide(&self, found: Found, state: State) {
        self.set_found(found);
        self.set(state);
    }

    /// Records that `present` bytes are already correct, and that `left` uses are to be written.
    pub fn compared(&self, present: u64, left: u32) {
        self.present.store(present, Ordering::Relaxed);
        self.left.store(left, Ordering::Relaxed);
    }

    /// The whole file is already correct.
    pub fn set_correct(&self) {
        self.set(State::Correct);
    }

    /// The file cannot be corrected in place and is replaced: all its `left` uses are to be
    /// written.
    pub fn replace(&self, left: u32) {
        self.set(State::Planned);
        self.compared(0, left);
    }

    /// The file stays as it was, with `size` bytes.
    pub fn stay(&self, size: u64) {
        self.present.store(size, Ordering::Relaxed);
    }
}

/// Transitions while the content arrives.
impl FileState {
    /// The file has been created.
    pub fn make(&self) {
        self.advance(State::Planned, State::Made);
    }

    /// The file has all its content and its metadata.
    pub fn finish(&self) {
        self.advance(State::Made, State::Finished);
    }

    /// A piece cannot be read. Returns whether to report that: it is the first problem of the file.
    pub fn lack(&self) -> bool {
        !self.lacking.swap(true, Ordering::AcqRel) && self.state() != State::Failed
    }

    /// A use has been processed. Returns whether it was the last.
    pub fn one_less(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// All uses of the file have been processed. Returns whether it has all its content now.
    pub fn complete(&self) -> bool {
        let before = self.state();
        let complete = match before {
            State::Failed => return false,
            _ if self.is_lacking() => State::Failed,
            State::Correcting => State::Corrected,
            State::Finished => State::Finished,
            _ => State::Done,
        };
        // Another thread that evicted the file may have failed to close it since.
        self.advance(before, complete) && complete != State::Failed
    }

    /// The file has failed. Returns whether to report that: it is the first failure.
    pub fn fail(&self) -> bool {
        self.set(State::Failed) != State::Failed
    }

    /// Changes the state and returns the one before.
    fn set(&self, state: State) -> State {
        STATES[usize::from(self.state.swap(state as u8, Ordering::AcqRel))]
    }

    /// Changes the state unless another thread has changed it: a failed file stays failed. Returns
    /// whether it did.
    fn advance(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::plan::table::{File, Part, Use};

    fn table() -> Table {
        let file = |is_usable| File {
            dir: 0,
            name: Default::default(),
            size: 9,
            mtime: (0, 0),
            access: 0,
            part: Part::Whole,
            is_usable,
        };
        let uses = [0, 0, 2].map(|file| Use { blob: 7, file, offset: 0 });
        Table { files: [true, false, true].map(file).into(), uses: uses.into(), ..Table::default() }
    }

    #[test]
    fn planned_files_count_their_uses() {
        let states = FileStates::planned(&table());
        let left = states.iter().map(FileState::left).collect::<Vec<_>>();
        assert_eq!(left, [2, 0, 1]);
        assert_eq!(
            states.iter().map(FileState::state).collect::<Vec<_>>(),
            [State::Planned, State::Failed, State::Planned]
        );
        assert!(!states.is_present(0), "nothing has been compared");
    }

    #[test]
    fn a_file_that_has_failed_or_lacks_a_piece_never_counts_as_complete() {
        let states = FileStates::planned(&table());
        let (failed, lacking) = (states.of(0), states.of(2));
        failed.make();
        assert!(failed.fail() && !failed.fail(), "it is reported once");
        failed.finish();
        assert!(!failed.complete());
        assert_eq!(failed.state(), State::Failed);
        assert!(lacking.lack() && !lacking.lack(), "it is reported once");
        assert!(lacking.one_less() && !lacking.complete());
        assert_eq!(lacking.state(), State::Failed);
    }
}
