//! Builds small repositories for tests, blob by blob, so that they can have any defect.

use crate::format::BlobType;
use crate::format::Version;
use crate::format::key_file::KeyOwner;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::format::tree::TreeWriter;
use crate::id::Id;
use crate::repo::writer::{WriteMode, Writer};
use crate::repo::{Index, InitOptions, Password, Repository, Settings, init};
use crate::store::{self, FileType, Location, Options};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub struct Fixture {
    dir: tempfile::TempDir,
    repo: Arc<Repository>,
    writer: Mutex<Option<Writer>>,
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = store::open(&Location::Folder(dir.path().join("repo")), &Options::default()).unwrap();
        let owner = KeyOwner { created: Time::default(), username: String::new(), hostname: String::new() };
        let options = InitOptions { version: Version::V2, polynomial: None, owner };
        let repo = Arc::new(init(store, &Password::new("x"), options, Settings::default()).unwrap());
        let fixture = Fixture { dir, repo, writer: Mutex::new(None) };
        fixture.begin();
        fixture
    }

    /// Starts a new index and new packs for the blobs that are stored from now on.
    pub fn begin(&self) {
        let writer = Writer::new(self.repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
        if let Some(old) = self.writer.lock().unwrap().replace(writer) {
            old.finish().unwrap();
        }
    }

    /// The repository with everything stored so far.
    pub fn repo(&self) -> Arc<Repository> {
        self.begin();
        self.repo.clone()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn blob(&self, ty: BlobType, bytes: &[u8]) -> Id {
        let writer = self.writer.lock().unwrap();
        let writer = writer.as_ref().unwrap();
        match ty {
            BlobType::Data => writer.store_chunks(&[bytes]).unwrap()[0],
            BlobType::Tree => writer.store_tree(bytes).unwrap(),
        }
    }

    /// A tree of these nodes, in order of their names.
    pub fn tree(&self, nodes: &[Node]) -> Id {
        let mut nodes: Vec<&Node> = nodes.iter().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.add(node).unwrap());
        self.blob(BlobType::Tree, &writer.finish())
    }

    /// A file of these blobs.
    pub fn file(&self, name: &str, blobs: &[&str]) -> Node {
        let content = blobs.iter().map(|text| self.blob(BlobType::Data, text.as_bytes())).collect();
        let size = blobs.iter().map(|text| text.len() as u64).sum();
        Node { content: Some(content), size, links: 1, mode: 0o644, ..Node::new(name, NodeType::File) }
    }

    pub fn dir(&self, name: &str, nodes: &[Node]) -> Node {
        let subtree = Some(self.tree(nodes));
        Node { subtree, mode: 0o755 | crate::format::node::mode::DIR, ..Node::new(name, NodeType::Dir) }
    }

    pub fn snapshot(&self, tree: Id) -> Id {
        let json = format!(r#"{{"time":"2024-02-29T12:00:00Z","tree":"{tree}","paths":["/data"],"hostname":"h"}}"#);
        let snapshot = Snapshot::decode(json.as_bytes()).unwrap();
        self.repo.save_file(FileType::Snapshot, snapshot.encode()).unwrap()
    }
}
