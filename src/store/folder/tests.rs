use super::*;
use std::os::unix::fs::symlink;

fn folder() -> (tempfile::TempDir, Folder) {
    let directory = tempfile::tempdir().unwrap();
    let folder = Folder::new(directory.path().join("repo"), 4);
    folder.prepare().unwrap();
    (directory, folder)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Every file below a directory, relative to it.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn put(folder: &Folder, ty: FileType, bytes: &'static [u8]) -> File {
    let file = File::new(ty, Id::of(bytes));
    folder.write(file, Bytes::from_static(bytes)).unwrap();
    file
}

#[test]
fn makes_the_layout_with_private_modes() {
    let (_directory, folder) = folder();
    for name in ["keys", "locks", "snapshots", "index", "data", "data/00", "data/7f", "data/ff"] {
        assert_eq!(mode(&folder.root.join(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&folder.root), 0o700);
    let file = put(&folder, FileType::Index, b"index");
    assert_eq!(mode(&folder.root.join(layout::path(file))), 0o400);
    folder.prepare().unwrap();
}

#[test]
fn follows_a_group_readable_config() {
    let (_directory, folder) = folder();
    folder.write(File::CONFIG, Bytes::from_static(b"config")).unwrap();
    let config = folder.root.join("config");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o440)).unwrap();
    let folder = Folder::new(&*folder.root, 4);
    fs::remove_dir(folder.root.join("keys")).unwrap();
    let file = put(&folder, FileType::Key, b"key");
    assert_eq!(mode(&folder.root.join(layout::path(file))), 0o440);
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    assert_eq!(mode(&folder.root.join("keys")), 0o770 & !umask.bits());
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    let (_directory, folder) = folder();
    let mut upload = folder.upload(FileType::Pack).unwrap();
    upload.write(&[1; 100_000]).unwrap();
    upload.write(&[2; 10]).unwrap();
    assert_eq!(folder.list(FileType::Pack).unwrap(), []);
    assert_eq!(files(&folder.root).len(), 1, "the temporary file");
    drop(upload);
    assert_eq!(files(&folder.root), [""; 0]);
}

#[test]
fn an_upload_lands_in_a_missing_shard() {
    let (_directory, folder) = folder();
    let id = Id::of(b"onetwo");
    fs::remove_dir(folder.root.join(layout::parent(File::new(FileType::Pack, id)))).unwrap();
    let mut upload = folder.upload(FileType::Pack).unwrap();
    upload.write(b"one").unwrap();
    upload.write(b"two").unwrap();
    upload.commit(id).unwrap();
    let file = File::new(FileType::Pack, id);
    assert_eq!(files(&folder.root), [layout::path(file)]);
    assert_eq!(mode(&folder.root.join(layout::path(file))), 0o400);
    assert_eq!(folder.read(file, 6).unwrap(), "onetwo");
}

#[test]
fn one_of_many_creators_succeeds() {
    let (_directory, folder) = folder();
    let won = std::thread::scope(|scope| {
        let create = |n: u8| folder.create(File::CONFIG, vec![n; 64].into());
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || create(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(won.iter().filter(|result| result.is_ok()).count(), 1);
    for result in won {
        assert!(matches!(result, Ok(()) | Err(StoreError::AlreadyExists { .. })), "{result:?}");
    }
    assert_eq!(files(&folder.root), ["config"]);
}

#[test]
fn missing_directories_and_foreign_names_are_not_listed() {
    let directory = tempfile::tempdir().unwrap();
    let folder = Folder::new(directory.path().join("absent"), 4);
    for ty in layout::DIRECTORIES {
        assert_eq!(folder.list(ty).unwrap(), []);
    }
    folder.prepare().unwrap();
    let pack = put(&folder, FileType::Pack, b"pack");
    let name = pack.id.to_string();
    for foreign in
        ["data/README", "data/zz", "data/00/README", &format!("data/00/{name}-tmp-1"), "index/.nfs0001", "index/x"]
    {
        fs::write(folder.root.join(foreign), b"foreign").unwrap();
    }
    // A pack in a subdirectory that is not its own cannot be read back by its id.
    fs::create_dir(folder.root.join("data/xyz")).unwrap();
    let elsewhere = if name.starts_with("00") { "01" } else { "00" };
    fs::write(folder.root.join("data").join(elsewhere).join(&name), b"x").unwrap();
    fs::create_dir(folder.root.join("index").join(&name)).unwrap();
    symlink("/nowhere", folder.root.join("keys").join(&name)).unwrap();
    assert_eq!(folder.list(FileType::Pack).unwrap(), [(pack.id, 4)]);
    assert_eq!(folder.list(FileType::Index).unwrap(), []);
    assert_eq!(folder.list(FileType::Key).unwrap(), []);
}

#[test]
fn a_missing_root_is_not_made_by_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let folder = Folder::new(directory.path().join("unmounted"), 4);
    let error = folder.write(File::CONFIG, Bytes::from_static(b"x")).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(!folder.root.exists());
}

#[test]
fn errors_name_the_action_and_the_path() {
    let (_directory, folder) = folder();
    let id = Id::of(b"x");
    fs::create_dir(folder.root.join(format!("index/{id}"))).unwrap();
    let file = File::new(FileType::Index, id);
    let error = folder.read(file, 10).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read index/{id} in {}", folder.root.display()));
    assert!(folder.size(file).is_err());
    assert!(folder.remove(file).is_err());
    assert!(matches!(folder.size(File::CONFIG), Err(StoreError::NotFound { .. })));
}

#[test]
fn wrong_lengths_are_errors_and_allocate_nothing() {
    let (_directory, folder) = folder();
    let file = put(&folder, FileType::Pack, b"0123456789");
    let error = folder.read_at(file, 4, usize::MAX >> 1).unwrap_err();
    assert!(matches!(error, StoreError::Short { offset: 4, got: 6, .. }), "{error:?}");
    let error = folder.read_at(file, u64::MAX, 1).unwrap_err();
    assert!(matches!(error, StoreError::Short { got: 0, .. }), "{error:?}");
    assert!(matches!(folder.read(file, 9), Err(StoreError::TooLarge { size: 10, max: 9, .. })));
    assert_eq!(folder.read(file, u64::MAX).unwrap(), "0123456789");
}

#[test]
fn rename_new_refuses_an_existing_name() {
    let (_directory, folder) = folder();
    let (from, to) = (folder.root.join("from"), folder.root.join("to"));
    fs::write(&from, "1").unwrap();
    rename_new(&from, &to).unwrap();
    fs::write(&from, "2").unwrap();
    assert_eq!(rename_new(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&to).unwrap(), b"1");
}
