//! The state of each directory of the target, which the stages share.

use super::plan::memory::DIR_STATE;
use std::sync::atomic::{AtomicU8, Ordering};

/// The states, by directory number in the plan.
pub struct DirStates(Box<[DirState]>);

/// Flags, which are set and never reset.
#[derive(Default)]
pub struct DirState(AtomicU8);

const _: () = assert!(size_of::<DirState>() == DIR_STATE);

const FRESH: u8 = 1;
const FAILED: u8 = 2;
const HANDS_DOWN: u8 = 4;

impl DirStates {
    pub fn new(dirs: usize) -> DirStates {
        DirStates((0..dirs).map(|_| DirState::default()).collect())
    }

    pub fn of(&self, number: u32) -> &DirState {
        &self.0[number as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &DirState> {
        self.0.iter()
    }
}

impl DirState {
    /// Marks the directory as created by this run.
    pub fn set_fresh(&self) {
        self.set(FRESH);
    }

    pub fn is_fresh(&self) -> bool {
        self.is_set(FRESH)
    }

    /// Marks the directory as failed: nothing below it can be restored.
    pub fn set_failed(&self) {
        self.set(FAILED);
    }

    pub fn has_failed(&self) -> bool {
        self.is_set(FAILED)
    }

    /// Records that new entries in it may inherit extended attributes: its default ACL.
    pub fn set_hands_down(&self) {
        self.set(HANDS_DOWN);
    }

    pub fn hands_down(&self) -> bool {
        self.is_set(HANDS_DOWN)
    }

    fn set(&self, flag: u8) {
        self.0.fetch_or(flag, Ordering::Release);
    }

    fn is_set(&self, flag: u8) -> bool {
        self.0.load(Ordering::Acquire) & flag != 0
    }
}
