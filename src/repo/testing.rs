//! A store for tests in which a script decides the outcome of each call.

use crate::id::Id;
use crate::store::{self, Download, File, FileType, Store, StoreError, Upload};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Size,
    Write,
    /// The end of an upload, which gives the file its name.
    Upload,
    Remove,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// The call fails without an effect.
    Refused,
    /// The call takes effect, but fails.
    AnswerLost,
}

type Script = Arc<dyn Fn(Call, File) -> Fate + Send + Sync>;

/// Wraps `store`, and runs the script before each call. The script may block, and may use `store`
/// itself.
pub struct Scripted {
    pub store: Arc<dyn Store>,
    script: Arc<Mutex<Script>>,
    /// If set, the store keeps uploads in memory, and takes this number of calls at a time.
    bucket: Option<usize>,
}

impl Scripted {
    pub fn new(store: Arc<dyn Store>) -> Arc<Scripted> {
        Arc::new(Scripted { store, script: Arc::new(Mutex::new(Arc::new(|_, _| Fate::Done))), bucket: None })
    }

    /// A store that keeps uploads in memory, as an object store does.
    pub fn bucket(store: Arc<dyn Store>, connections: usize) -> Arc<Scripted> {
        Arc::new(Scripted {
            store,
            script: Arc::new(Mutex::new(Arc::new(|_, _| Fate::Done))),
            bucket: Some(connections),
        })
    }

    pub fn play(&self, script: impl Fn(Call, File) -> Fate + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    fn ask<T>(&self, call: Call, file: File, act: impl FnOnce() -> store::Result<T>) -> store::Result<T> {
        let script = self.script.lock().unwrap().clone();
        ask(&script, call, file, act)
    }
}

fn ask<T>(script: &Script, call: Call, file: File, act: impl FnOnce() -> store::Result<T>) -> store::Result<T> {
    let failed = || StoreError::Failed {
        action: format!("{call:?} {file}"),
        location: "here".to_owned(),
        source: "the script says so".into(),
    };
    match script(call, file) {
        Fate::Done => act(),
        Fate::Refused => Err(failed()),
        Fate::AnswerLost => act().and(Err(failed())),
    }
}

struct ScriptedUpload {
    upload: Box<dyn Upload>,
    ty: FileType,
    script: Arc<Mutex<Script>>,
}

impl Upload for ScriptedUpload {
    fn write(&mut self, part: &[u8]) -> store::Result<()> {
        self.upload.write(part)
    }

    fn commit(self: Box<Self>, id: Id) -> store::Result<()> {
        let script = self.script.lock().unwrap().clone();
        ask(&script, Call::Upload, File::new(self.ty, id), || self.upload.commit(id))
    }
}

impl Store for Scripted {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn connections(&self) -> usize {
        self.bucket.unwrap_or_else(|| self.store.connections())
    }

    fn downloads(&self) -> usize {
        self.bucket.unwrap_or_else(|| self.store.downloads())
    }

    fn settles_after(&self) -> Duration {
        // As an object store.
        Duration::from_millis(200)
    }

    fn list(&self, ty: FileType) -> store::Result<Vec<(Id, u64)>> {
        self.store.list(ty)
    }

    fn size(&self, file: File) -> store::Result<u64> {
        self.ask(Call::Size, file, || self.store.size(file))
    }

    fn read(&self, file: File, max: u64) -> store::Result<Bytes> {
        self.store.read(file, max)
    }

    fn download(&self, file: File, offset: u64, length: u64) -> store::Result<Box<dyn Download + '_>> {
        self.store.download(file, offset, length)
    }

    fn write(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.ask(Call::Write, file, || self.store.write(file, bytes))
    }

    fn create(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.store.create(file, bytes)
    }

    fn keeps_uploads(&self) -> bool {
        self.bucket.is_some() || self.store.keeps_uploads()
    }

    fn upload(&self, ty: FileType) -> store::Result<Box<dyn Upload>> {
        Ok(Box::new(ScriptedUpload { upload: self.store.upload(ty)?, ty, script: self.script.clone() }))
    }

    fn remove(&self, file: File) -> store::Result<()> {
        self.ask(Call::Remove, file, || self.store.remove(file))
    }

    fn prepare(&self) -> store::Result<()> {
        self.store.prepare()
    }
}
