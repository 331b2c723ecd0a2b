//! The fixture of the restore tests: a repository made by hand, a target, and the results of a
//! restore.

use super::*;

/// A repository, a target that does not exist yet, and a directory beside it that no restore may
/// touch.
pub struct Bed {
    pub temp: tempfile::TempDir,
    pub repo: Arc<Repository>,
}

/// The result of a restore, with the problems and warnings that it reported.
pub struct Told {
    pub outcome: Result<Report>,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
}

impl Told {
    /// The report of a restore without any problem.
    pub fn whole(self) -> Report {
        assert!(self.problems.is_empty(), "{:?}", self.problems);
        self.outcome.unwrap()
    }

    /// The report of a restore with one problem for each text, in any order.
    pub fn lacking(self, expected: &[&str]) -> Report {
        let report = self.outcome.unwrap();
        assert_eq!(self.problems.len(), expected.len(), "{:?}", self.problems);
        for text in expected {
            assert!(self.problems.iter().any(|problem| problem.contains(text)), "{text:?} in {:?}", self.problems);
        }
        assert_eq!(report.problems, expected.len() as u64);
        report
    }
}

impl Bed {
    pub fn new() -> Bed {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/file"), "precious").unwrap();
        fs::set_permissions(temp.path().join("outside/file"), fs::Permissions::from_mode(0o640)).unwrap();
        let store = Arc::new(Folder::new(temp.path().join("repo"), 2));
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let repo = crate::repo::init(
            store,
            &Password::new("x"),
            options,
            Settings { aside: Some(std::env::temp_dir()), ..Settings::default() },
        )
        .unwrap();
        Bed { temp, repo: Arc::new(repo) }
    }

    pub fn target(&self) -> PathBuf {
        self.temp.path().join("target")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.target().join(path)
    }

    pub fn outside(&self) -> PathBuf {
        self.temp.path().join("outside")
    }

    /// Stores blobs; each call makes packs of its own.
    pub fn store<R>(&self, make: impl FnOnce(&Blobs) -> R) -> R {
        let index = Arc::new(Index::load(&self.repo).unwrap());
        let blobs = Blobs(Writer::new(self.repo.clone(), index, WriteMode::Upload).unwrap());
        let made = make(&blobs);
        blobs.0.finish().unwrap();
        made
    }

    pub fn restore(&self, root: Id, change: impl FnOnce(&mut Options)) -> Told {
        self.restore_path(root, "", change)
    }

    pub fn restore_path(&self, root: Id, path: &str, change: impl FnOnce(&mut Options)) -> Told {
        let tags = if path == "volume" { r#","tags":["vsm:volume"]"# } else { "" };
        let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{root}","paths":[]{tags}}}"#);
        let snapshot = StoredSnapshot { id: Id::of(b"s"), snapshot: Snapshot::decode(json.as_bytes()).unwrap() };
        // Puts every file in a table of its own, and every piece of a larger one.
        let mut options = Options { table_memory: Some(1), ..Options::new(self.target()) };
        change(&mut options);
        let told = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = told.clone();
        let progress = Progress::new(move |event| match event {
            Event::Problem(problem) => sink.lock().unwrap().0.push(format!("{}: {}", problem.item, problem.message)),
            Event::Warning(text) => sink.lock().unwrap().1.push(text.to_owned()),
            _ => {}
        });
        let index = Index::load(&self.repo).unwrap();
        let path = if path == "volume" { "" } else { path };
        let restoring = Restoring { repo: &self.repo, index: &index, options: &options, progress: &progress };
        let outcome = run(&restoring, &snapshot, path.as_bytes());
        let (problems, warnings) = std::mem::take(&mut *told.lock().unwrap());
        Told { outcome, problems, warnings }
    }
}

impl Drop for Bed {
    /// Asserts that the test has changed nothing outside the target.
    fn drop(&mut self) {
        let names = |path: &Path| -> Vec<_> {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.outside()), ["file"]);
        assert_eq!(fs::read(self.outside().join("file")).unwrap(), b"precious");
        assert_eq!(fs::metadata(self.outside().join("file")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(
            names(self.temp.path()).iter().all(|name| ["outside", "repo", "target"].iter().any(|good| name == good))
        );
    }
}

pub struct Blobs(pub Writer);

impl Blobs {
    pub fn data(&self, bytes: &[u8]) -> Id {
        self.0.store_chunks(&[bytes]).unwrap()[0]
    }

    pub fn json(&self, json: &[u8]) -> Id {
        self.0.store_tree(json).unwrap()
    }

    /// A tree of well-behaved nodes.
    pub fn tree(&self, mut nodes: Vec<Node>) -> Id {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.add(node).unwrap());
        self.json(&writer.finish())
    }

    /// A tree of nodes in this order, also with invalid names.
    pub fn wild_tree(&self, nodes: &[Node]) -> Id {
        let mut json = b"{\"nodes\":[".to_vec();
        for (number, node) in nodes.iter().enumerate() {
            json.extend_from_slice(if number == 0 { b"" } else { b"," });
            node.write_json(&mut json);
        }
        json.extend_from_slice(b"]}\n");
        self.json(&json)
    }

    pub fn file(&self, name: &str, pieces: &[&[u8]]) -> Node {
        let content = pieces.iter().map(|piece| self.data(piece)).collect();
        let size = pieces.iter().map(|piece| piece.len() as u64).sum();
        Node { size, content: Some(content), ..node(name, NodeType::File, 0o644) }
    }
}

/// A node that belongs to the user of the test.
pub fn node(name: &str, ty: NodeType, permissions: u32) -> Node {
    let time = Time::utc(1_000_000_000, 123_456_789);
    Node {
        mode: mode::from_unix(0o100_000 | permissions),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: time,
        atime: time,
        ..Node::new(name, ty)
    }
}

pub fn dir(name: &str, subtree: Id) -> Node {
    Node { subtree: Some(subtree), ..node(name, NodeType::Dir, 0o750) }
}

pub fn link(name: &str, target: &str) -> Node {
    Node { link_target: target.into(), ..node(name, NodeType::Symlink, 0o777) }
}

pub fn patterns(list: &[&str]) -> Patterns {
    let mut patterns = Patterns::default();
    list.iter().for_each(|text| patterns.push(text, Case::Sensitive).unwrap());
    patterns
}

pub fn mtime(path: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

pub const STAMP: (i64, i64) = (1_000_000_000, 123_456_789);
