//! What was decided about each file, and what has become of it, while the table that it is in is put aside.

use super::{FOUND, Found, STATES, State, Stretch};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// By the files' numbers.
pub struct Outcomes {
    /// State and, four bits further, what was found in a file's place.
    files: Vec<u8>,
    /// Bytes that were there already, of files that are neither new nor as they were.
    present: HashMap<u32, u64>,
    /// The part of a file that the next table goes on with.
    carried: Option<Carried>,
}

struct Carried {
    state: State,
    found: Found,
    present: u64,
    lacking: bool,
}

impl Outcomes {
    /// Bytes of memory for each file.
    pub const EACH: u64 = 1;

    pub fn new(files: u32) -> Outcomes {
        Outcomes { files: vec![State::Planned as u8; files as usize], present: HashMap::new(), carried: None }
    }

    pub fn state(&self, file: u32) -> State {
        STATES[usize::from(self.files[file as usize] & 15)]
    }

    fn found(&self, file: u32) -> Found {
        FOUND[usize::from(self.files[file as usize] >> 4)]
    }

    /// Bytes of a file of `size` that were there already.
    pub fn present(&self, file: u32, size: u64) -> u64 {
        match self.state(file) {
            State::Correct | State::Kept => size,
            _ => self.present.get(&file).copied().unwrap_or(0),
        }
    }

    /// Takes in what was decided about the files that begin in a table.
    pub fn note(&mut self, stretch: &Stretch<'_>) {
        for (place, file) in (0..).zip(&stretch.files).filter(|(_, file)| file.begins) {
            self.files[stretch.number(place) as usize] = file.state() as u8 | (file.found() as u8) << 4;
        }
    }

    /// Gives a table what was decided about its files, and the first of them what has become of its
    /// parts in the tables before.
    pub fn resume(&self, stretch: &Stretch<'_>) {
        for (place, file) in (0..).zip(&stretch.files) {
            let number = stretch.number(place);
            file.set_state(self.state(number));
            file.set_found(self.found(number));
        }
        if let Some((file, carried)) = stretch.files.first().zip(self.carried.as_ref()) {
            file.set_state(carried.state);
            file.set_found(carried.found);
            file.lacking.store(carried.lacking, Ordering::Release);
        }
    }

    /// Takes in what has become of the files of a table.
    pub fn add(&mut self, stretch: &Stretch<'_>) {
        for (place, file) in (0..).zip(&stretch.files) {
            let number = stretch.number(place);
            let before = self.carried.take().map_or(0, |carried| carried.present);
            let present = before + file.present.load(Ordering::Relaxed);
            if !file.ends {
                let lacking = file.lacking.load(Ordering::Acquire);
                self.carried = Some(Carried { state: file.state(), found: file.found(), present, lacking });
                continue;
            }
            let state = match file.state() {
                // No table alone shows that of a file that is in several.
                State::Correcting | State::Corrected
                    if !file.begins && present == file.size && file.found() == Found::Same =>
                {
                    State::Correct
                }
                state => state,
            };
            if present > 0 && !matches!(state, State::Correct | State::Kept) {
                self.present.insert(number, present);
            }
            self.files[number as usize] = state as u8;
        }
    }
}
