//! A store that fails at a chosen operation and from then on, as if the process had been killed or
//! the network had failed.

use crate::engine::kept::Kept;
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vsm::id::Id;
use vsm::store::folder::Folder;
use vsm::store::{Download, File, FileType, Result, Store, StoreError, Upload, layout};

/// The effect of a fault on the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation does not happen.
    Stop,
    /// Half of the written bytes exist under the file's name, as in a store without atomic writes.
    Tear,
    /// The operation happens, but the caller gets an error.
    LoseReply,
    /// The operation does not happen, but all later ones do: the process continues after one
    /// failure.
    Fail,
}

/// The kind of a recorded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Remove,
}

#[derive(Default)]
struct State {
    done: Vec<Kind>,
    stop: Option<(usize, Fault)>,
    stopped: bool,
}

#[derive(Clone)]
pub struct Stopping {
    folder: Folder,
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

/// How an operation is to be carried out.
enum Way {
    Do,
    Tear,
    DoInSilence,
    Refuse,
}

impl Stopping {
    /// Stops at the operation with this number, counted from 0.
    pub fn at(root: &Path, stop: Option<(usize, Fault)>) -> Stopping {
        let state = Arc::new(Mutex::new(State { stop, ..State::default() }));
        Stopping { folder: Folder::new(root, 2), root: root.to_owned(), state }
    }

    /// The operations up to now.
    pub fn operations(&self) -> Vec<Kind> {
        self.state.lock().expect("no panic").done.clone()
    }

    fn way(&self, kind: Kind) -> Way {
        let mut state = self.state.lock().expect("no panic");
        let number = state.done.len();
        state.done.push(kind);
        match state.stop {
            _ if state.stopped => Way::Refuse,
            Some((at, fault)) if at == number => {
                state.stopped = fault != Fault::Fail;
                match fault {
                    Fault::Stop | Fault::Fail => Way::Refuse,
                    Fault::Tear => Way::Tear,
                    Fault::LoseReply => Way::DoInSilence,
                }
            }
            _ => Way::Do,
        }
    }

    fn failed(&self) -> StoreError {
        let source = "the test stopped it here".into();
        StoreError::Failed { action: "go on".into(), location: self.root.display().to_string(), source }
    }

    fn attempt<T>(&self, kind: Kind, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.way(kind) {
            Way::Do => act(),
            Way::DoInSilence => act().and(Err(self.failed())),
            Way::Tear | Way::Refuse => Err(self.failed()),
        }
    }

    fn put(&self, file: File, bytes: &Bytes, act: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.way(Kind::Write) {
            Way::Do => act(),
            Way::DoInSilence => act().and(Err(self.failed())),
            Way::Tear => {
                let path = self.root.join(layout::path(file));
                fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
                fs::write(path, &bytes[..bytes.len() / 2]).expect("half a file");
                Err(self.failed())
            }
            Way::Refuse => Err(self.failed()),
        }
    }
}

impl Store for Stopping {
    fn location(&self) -> &str {
        self.folder.location()
    }

    fn connections(&self) -> usize {
        2
    }

    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>> {
        self.attempt(Kind::Read, || self.folder.list(ty))
    }

    fn size(&self, file: File) -> Result<u64> {
        self.attempt(Kind::Read, || self.folder.size(file))
    }

    fn read(&self, file: File, max: u64) -> Result<Bytes> {
        self.attempt(Kind::Read, || self.folder.read(file, max))
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        self.attempt(Kind::Read, || self.folder.download(file, offset, length))
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.put(file, &bytes, || self.folder.write(file, bytes.clone()))
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        self.put(file, &bytes, || self.folder.create(file, bytes.clone()))
    }

    /// Like a bucket: an upload is one write at its end.
    fn keeps_uploads(&self) -> bool {
        true
    }

    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        Ok(Kept::upload(self.clone(), ty))
    }

    fn remove(&self, file: File) -> Result<()> {
        self.attempt(Kind::Remove, || self.folder.remove(file))
    }

    fn prepare(&self) -> Result<()> {
        self.attempt(Kind::Write, || self.folder.prepare())
    }
}
