//! A bucket in memory that many processes share; a seed draws the process whose operation is next.
//!
//! An operation is done when all living processes wait for one, and one of them is drawn: between
//! two operations of a process any number of the others may do theirs. A process may end before or
//! after one of its operations, or one may fail.

use crate::common::Random;
use crate::engine::kept::Kept;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vsm::id::Id;
use vsm::store::{Download, File, FileType, Result, Store, StoreError, Upload};

pub type Files = BTreeMap<File, Bytes>;

pub struct World {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the store can create a file conditionally; otherwise `create` looks before it
    /// writes.
    creates: bool,
}

struct State {
    files: Files,
    random: Random,
    actors: Vec<Actor>,
    /// The process whose operation is next; `None` while a living one has not reached its own.
    turn: Option<usize>,
}

/// The fate of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lives,
    /// The process ends before this operation.
    DiesBefore(u64),
    /// The process ends after this operation, and does not get its result.
    DiesAfter(u64),
    /// This operation fails, and the process continues.
    Fails(u64),
}

struct Actor {
    fate: Fate,
    /// How often the process is drawn, relative to the others.
    weight: u64,
    /// The number of its operations that wait.
    waiting: usize,
    done: u64,
    dead: bool,
    ended: bool,
}

/// The outcome of an operation.
enum Verdict {
    Do,
    DoInSilence,
    Refuse,
}

impl World {
    pub fn new(files: Files, random: Random) -> Arc<World> {
        World::with(files, random, true)
    }

    pub fn with(files: Files, random: Random, creates: bool) -> Arc<World> {
        let state = Mutex::new(State { files, random, actors: Vec::new(), turn: None });
        Arc::new(World { state, changed: Condvar::new(), creates })
    }

    /// A process with a world of its own.
    pub fn alone(files: Files) -> Process {
        World::new(files, Random::default()).join(Fate::Lives, 1)
    }

    pub fn files(&self) -> Files {
        self.state.lock().expect("no panic").files.clone()
    }

    /// Adds a process; all of them join before the first one begins.
    pub fn join(self: &Arc<World>, fate: Fate, weight: u64) -> Process {
        let mut state = self.state.lock().expect("no panic");
        state.actors.push(Actor { fate, weight, waiting: 0, done: 0, dead: false, ended: false });
        Process { world: self.clone(), number: state.actors.len() - 1 }
    }

    /// Does an operation when its process is drawn. A `spared` operation does not fail; for a
    /// process that has ended it finds no file.
    fn step<T>(&self, number: usize, spared: Option<File>, act: impl FnOnce(&mut Files) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().expect("no panic");
        state.actors[number].waiting += 1;
        loop {
            if state.actors[number].dead {
                break;
            }
            if state.turn.is_none() {
                state.draw();
            }
            if state.turn == Some(number) {
                state.turn = None;
                break;
            }
            self.changed.notify_all();
            state = self.changed.wait(state).expect("no panic");
        }
        let actor = &mut state.actors[number];
        actor.waiting -= 1;
        if let Some(file) = spared {
            let outcome = if actor.dead { Err(absent(file)) } else { act(&mut state.files) };
            self.changed.notify_all();
            return outcome;
        }
        let at = actor.done;
        actor.done += 1;
        let verdict = match actor.fate {
            _ if actor.dead => Verdict::Refuse,
            Fate::DiesBefore(end) if end == at => Verdict::Refuse,
            Fate::DiesAfter(end) if end == at => Verdict::DoInSilence,
            Fate::Fails(one) if one == at => Verdict::Refuse,
            _ => Verdict::Do,
        };
        actor.dead |= matches!(actor.fate, Fate::DiesBefore(end) | Fate::DiesAfter(end) if end == at);
        let outcome = match verdict {
            Verdict::Do => act(&mut state.files),
            Verdict::DoInSilence => act(&mut state.files).and(Err(refused())),
            Verdict::Refuse => Err(refused()),
        };
        self.changed.notify_all();
        outcome
    }
}

impl State {
    /// Draws the next process, if all living ones have reached an operation.
    fn draw(&mut self) {
        let living = |actor: &&Actor| !actor.ended && !actor.dead;
        if self.actors.iter().filter(living).any(|actor| actor.waiting == 0) {
            return;
        }
        let all: u64 = self.actors.iter().filter(living).map(|actor| actor.weight).sum();
        let mut drawn = self.random.below(all.max(1));
        for (number, actor) in self.actors.iter().enumerate().filter(|(_, actor)| living(actor)) {
            if drawn < actor.weight {
                self.turn = Some(number);
                return;
            }
            drawn -= actor.weight;
        }
    }
}

fn refused() -> StoreError {
    StoreError::Failed { action: "go on".into(), location: "memory".into(), source: "the seed wants it so".into() }
}

/// The access of a process to the bucket. A clone is the same process.
#[derive(Clone)]
pub struct Process {
    world: Arc<World>,
    number: usize,
}

impl Process {
    pub fn files(&self) -> Files {
        self.world.files()
    }

    /// The process ends when the returned value is dropped, and the world no longer waits for it.
    pub fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    fn step<T>(&self, act: impl FnOnce(&mut Files) -> Result<T>) -> Result<T> {
        self.world.step(self.number, None, act)
    }
}

pub struct Ending<'p>(&'p Process);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.world.state.lock().expect("no panic").actors[self.0.number].ended = true;
        self.0.world.changed.notify_all();
    }
}

fn find(files: &Files, file: File) -> Result<Bytes> {
    files.get(&file).cloned().ok_or_else(|| absent(file))
}

fn absent(file: File) -> StoreError {
    StoreError::NotFound { file, location: "memory".into() }
}

impl Store for Process {
    fn location(&self) -> &str {
        "memory"
    }

    fn connections(&self) -> usize {
        1
    }

    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>> {
        let is_one = |(file, _): &(&File, &Bytes)| file.ty == ty;
        self.step(|files| Ok(files.iter().filter(is_one).map(|(file, bytes)| (file.id, bytes.len() as u64)).collect()))
    }

    fn size(&self, file: File) -> Result<u64> {
        self.step(|files| Ok(find(files, file)?.len() as u64))
    }

    fn read(&self, file: File, _: u64) -> Result<Bytes> {
        // If a lock cannot be read, the engine retries for half a minute.
        let spared = (file.ty == FileType::Lock).then_some(file);
        self.world.step(self.number, spared, |files| find(files, file))
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        let bytes = self.step(|files| {
            let whole = find(files, file)?;
            let short = StoreError::Short { file, offset, wanted: length, got: 0 };
            let (start, end) = (offset as usize, (offset + length) as usize);
            if end <= whole.len() { Ok(whole.slice(start..end)) } else { Err(short) }
        })?;
        Ok(Box::new(Part(bytes)))
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.step(|files| {
            files.insert(file, bytes);
            Ok(())
        })
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        let look = |files: &Files| match files.contains_key(&file) {
            true => Err(StoreError::AlreadyExists { file, location: "memory".into() }),
            false => Ok(()),
        };
        if !self.world.creates {
            self.step(|files| look(files))?;
            return self.write(file, bytes);
        }
        self.step(|files| {
            look(files)?;
            files.insert(file, bytes);
            Ok(())
        })
    }

    fn keeps_uploads(&self) -> bool {
        true
    }

    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        Ok(Kept::upload(self.clone(), ty))
    }

    fn remove(&self, file: File) -> Result<()> {
        self.step(|files| {
            files.remove(&file);
            Ok(())
        })
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }
}

struct Part(Bytes);

impl Download for Part {
    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.0.split_to(out.len()));
        Ok(())
    }
}
