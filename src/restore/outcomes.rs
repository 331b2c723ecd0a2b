//! The decision about each file and its outcome, while its table is not in memory.

use super::file_states::{FOUND, FileStates, Found, STATES, State};
use super::plan::memory::FILE_OUTCOME;
use super::plan::table::Table;
use std::collections::HashMap;

/// The decisions and outcomes, by file number.
pub struct Outcomes {
    /// [`State`] in the low four bits and [`Found`] in the high four bits.
    files: Vec<u8>,
    /// Bytes that were already correct, of files that are neither new nor unchanged.
    present: HashMap<u32, u64>,
    /// The state of a file that the next table continues.
    carried: Option<Carried>,
}

const _: () = assert!(size_of::<u8>() == FILE_OUTCOME);

struct Carried {
    state: State,
    found: Found,
    present: u64,
    lacking: bool,
}

impl Outcomes {
    pub fn new(files: u32) -> Outcomes {
        Outcomes { files: vec![State::Planned as u8; files as usize], present: HashMap::new(), carried: None }
    }

    pub fn state(&self, file: u32) -> State {
        STATES[usize::from(self.files[file as usize] & 15)]
    }

    fn found(&self, file: u32) -> Found {
        FOUND[usize::from(self.files[file as usize] >> 4)]
    }

    /// Bytes of a file of `size` that were already correct.
    pub fn present(&self, file: u32, size: u64) -> u64 {
        match self.state(file) {
            State::Correct | State::Kept => size,
            _ => self.present.get(&file).copied().unwrap_or(0),
        }
    }

    /// Records the decisions about the files that begin in a table.
    pub fn note(&mut self, table: &Table, states: &FileStates) {
        let files = (0..).zip(table.files.iter().zip(states.iter()));
        for (place, (_, state)) in files.filter(|(_, (file, _))| file.part.begins()) {
            self.files[table.number(place) as usize] = state.state() as u8 | (state.found() as u8) << 4;
        }
    }

    /// The states of the files of a table after the decisions; that of the first file includes its
    /// parts in earlier tables.
    pub fn resume(&self, table: &Table) -> FileStates {
        let states = FileStates::planned(table);
        for (place, state) in (0..).zip(states.iter()) {
            let number = table.number(place);
            state.decide(self.found(number), self.state(number));
        }
        if let Some((state, carried)) = states.iter().next().zip(self.carried.as_ref()) {
            state.decide(carried.found, carried.state);
            if carried.lacking {
                state.lack();
            }
        }
        states
    }

    /// Records the outcomes of the files of a table.
    pub fn add(&mut self, table: &Table, states: &FileStates) {
        for (place, (file, state)) in (0..).zip(table.files.iter().zip(states.iter())) {
            let number = table.number(place);
            let before = self.carried.take().map_or(0, |carried| carried.present);
            let present = before + state.present();
            if !file.part.ends() {
                let lacking = state.is_lacking();
                self.carried = Some(Carried { state: state.state(), found: state.found(), present, lacking });
                continue;
            }
            let outcome = match state.state() {
                // Whether a split file was already correct is known only after its last table.
                State::Correcting | State::Corrected
                    if !file.part.begins() && present == file.size && state.found() == Found::Same =>
                {
                    State::Correct
                }
                outcome => outcome,
            };
            if present > 0 && !matches!(outcome, State::Correct | State::Kept) {
                self.present.insert(number, present);
            }
            self.files[number as usize] = outcome as u8;
        }
    }
}
