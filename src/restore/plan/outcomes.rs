//! What has become of all files, after the tables that they were in are gone.

use super::{STATES, State, Stretch};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// By the files' numbers.
#[derive(Default)]
pub struct Outcomes {
    states: Vec<u8>,
    /// Bytes that were there already, of files that are neither new nor as they were.
    present: HashMap<u32, u64>,
    /// The part of a file that the next table goes on with.
    carried: Option<Carried>,
}

struct Carried {
    state: State,
    present: u64,
    lacking: bool,
    occupied: bool,
}

impl Outcomes {
    /// Bytes of memory for each file.
    pub const EACH: u64 = 1;

    pub fn state(&self, file: u32) -> State {
        STATES[usize::from(self.states[file as usize])]
    }

    /// Bytes of a file of `size` that were there already.
    pub fn present(&self, file: u32, size: u64) -> u64 {
        match self.state(file) {
            State::Correct | State::Kept => size,
            _ => self.present.get(&file).copied().unwrap_or(0),
        }
    }

    /// Takes in what has become of the files of a table.
    pub fn add(&mut self, stretch: &Stretch<'_>) {
        for (place, file) in (0..).zip(&stretch.files) {
            let before = self.carried.take().map_or(0, |carried| carried.present);
            let present = before + file.present.load(Ordering::Relaxed);
            let state = match file.state() {
                State::Corrected if !file.begins && present == file.size => State::Correct,
                state => state,
            };
            if !file.ends {
                let (lacking, occupied) = (file.lacking.load(Ordering::Acquire), file.occupied.load(Ordering::Relaxed));
                self.carried = Some(Carried { state, present, lacking, occupied });
                continue;
            }
            if present > 0 && !matches!(state, State::Correct | State::Kept) {
                self.present.insert(stretch.number(place), present);
            }
            self.states.push(state as u8);
        }
    }

    /// Lets a table go on with the file that the one before ended in.
    pub(super) fn carry_into(&self, stretch: &Stretch<'_>) {
        let Some((file, carried)) = stretch.files.first().zip(self.carried.as_ref()) else { return };
        file.set_state(carried.state);
        file.lacking.store(carried.lacking, Ordering::Release);
        file.occupied.store(carried.occupied, Ordering::Relaxed);
    }
}
