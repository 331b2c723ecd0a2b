//! Stage 1: turns the requested paths into the top of the snapshot's tree, in restic's layout.
//!
//! `/a/b` is stored as the directories `a` and in it `b`, `x/y` as `x` and `y`, `.` as its entries.
//! A directory that is only on the way to a target is *partial*: it has its real metadata and
//! nothing but the targets below it. A target may lie below another one: it is stored even if
//! exclude rules, a mount point or a listing would leave it out of the directory above.

use super::options::Source;
use super::stat::{display, lstat};
use crate::format::snapshot::VOLUME_NAME;
use crate::progress::{Phase, Progress};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// An entry that was named, or a directory on the way to one.
#[derive(Debug)]
pub struct Top {
    pub path: PathBuf,
    pub kind: Kind,
    /// The named entries below it, and the directories on the way to them.
    pub below: Tops,
}

/// How much of an entry is stored; a later kind includes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only on the way to targets below it.
    Partial,
    /// Found in a directory (on this `st_dev`) that the user named as `.` or the like: exclude
    /// rules apply.
    Found { device: u64 },
    /// Named by the user: stored completely, even if exclude rules match the entry itself.
    Target,
}

pub type Tops = BTreeMap<Vec<u8>, Top>;

/// Whether the user named an entry. If a named entry cannot be read, its part of the request has
/// failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Named,
    Found,
}

/// The source of a backup, resolved.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The top of the tree.
    pub tops: Tops,
    /// The paths that the snapshot records.
    pub recorded: Vec<String>,
    /// The number of distinct files and directories that were named.
    pub named: usize,
    /// The number of them that are lost already; each was reported as a problem.
    pub lost: usize,
}

/// Resolves a source. A path that cannot be reached is a problem; if no path can be reached, that
/// is an error.
pub fn resolve(source: &Source, progress: &Progress) -> io::Result<Resolved> {
    let mut resolved = Resolved::default();
    match source {
        Source::Stream { name, .. } => {
            resolved.recorded.push(display(&clean(&Path::new("/").join(name))));
            resolved.named = 1;
        }
        Source::Volume(path) => {
            if !std::fs::metadata(path)?.is_dir() {
                return Err(io::Error::other(format!("{} is not a directory", display(path))));
            }
            let path = std::fs::canonicalize(path)?;
            resolved.tops.insert(VOLUME_NAME.into(), Top { path, kind: Kind::Target, below: Tops::new() });
            resolved.recorded.push(format!("/{VOLUME_NAME}"));
            resolved.named = 1;
        }
        Source::Paths(paths) => {
            let mut known = BTreeSet::new();
            let only = paths.len() == 1;
            for path in paths {
                let recorded = display(&clean(&std::path::absolute(path)?));
                let inserted = reachable(path).and_then(|()| insert(&mut resolved.tops, path));
                let is_new = known.insert(clean(path));
                resolved.named += usize::from(is_new);
                match inserted {
                    Ok(()) => resolved.recorded.push(recorded),
                    Err(error) if only => {
                        return Err(io::Error::new(error.kind(), format!("{}: {error}", display(path))));
                    }
                    Err(error) => {
                        let why = format!("it does not exist or cannot be read: {error}");
                        progress.problem(Phase::Archival, display(path), why);
                        resolved.lost += usize::from(is_new);
                    }
                }
            }
            if resolved.recorded.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "none of the paths to back up can be reached"));
            }
        }
    }
    Ok(resolved)
}

/// Fails unless a path leads to an entry, and to the same entry without `.` and `..`, as it is
/// stored.
fn reachable(path: &Path) -> io::Result<()> {
    let cleaned = clean(path);
    let stored = if cleaned.as_os_str().is_empty() { Path::new(".") } else { &cleaned };
    let (meant, stored) = (lstat(path)?, lstat(stored)?);
    if (meant.st_dev, meant.st_ino) == (stored.st_dev, stored.st_ino) {
        return Ok(());
    }
    Err(io::Error::other("it leads through a symlink, which is not followed; give the path that the symlink leads to"))
}

/// Inserts a target below the directories that lead to it.
fn insert(tops: &mut Tops, target: &Path) -> io::Result<()> {
    let cleaned = clean(target);
    let names: Vec<&OsStr> = cleaned
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    // The components that are not names: the root, or `..` in front, which restic leaves out of
    // stored paths.
    let mut path: PathBuf = cleaned.components().take_while(|part| !matches!(part, Component::Normal(_))).collect();
    let Some((last, above)) = names.split_last() else {
        let dir = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        return insert_entries(tops, &dir);
    };
    let mut level = tops;
    for name in above {
        path.push(name);
        level = &mut place(level, name, &path, Kind::Partial).below;
    }
    path.push(last);
    place(level, last, &path, Kind::Target);
    Ok(())
}

/// Inserts the entries of `.`, `/` or `..`, which have no name to be stored under.
fn insert_entries(tops: &mut Tops, dir: &Path) -> io::Result<()> {
    let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(dir)?);
    // The listing must be complete before an entry is placed: half of a directory is not a source.
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    for name in names {
        let path = if dir == Path::new(".") { PathBuf::from(&name) } else { dir.join(&name) };
        place(tops, &name, &path, Kind::Found { device });
    }
    Ok(())
}

/// The entry for `path` with the name `name`; if another path has this name, `name-1`, `name-2`, …
fn place<'t>(level: &'t mut Tops, name: &OsStr, path: &Path, kind: Kind) -> &'t mut Top {
    let mut free: OsString = name.to_owned();
    let mut count = 0;
    while level.get(free.as_bytes()).is_some_and(|top| top.path != path) {
        count += 1;
        free = name.to_owned();
        free.push(format!("-{count}"));
    }
    let new = || Top { path: path.to_owned(), kind, below: Tops::new() };
    let top = level.entry(free.into_vec()).or_insert_with(new);
    top.kind = top.kind.max(kind);
    top
}

/// Removes `.` and resolves `..` by the names alone, as Go's `filepath.Clean`.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(cleaned.components().next_back(), Some(Component::Normal(_))) => {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            part => cleaned.push(part),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tops: &Tops, out: &mut Vec<String>, above: &str) {
        for (name, top) in tops {
            let here = format!("{above}/{}", String::from_utf8_lossy(name));
            if top.kind != Kind::Partial {
                out.push(format!("{here}={}", top.path.display()));
            }
            shape(&top.below, out, &here);
        }
    }

    fn shape_of(paths: &[&str]) -> Vec<String> {
        let mut tops = Tops::new();
        paths.iter().for_each(|path| insert(&mut tops, Path::new(path)).unwrap());
        let mut out = Vec::new();
        shape(&tops, &mut out, "");
        out
    }

    #[test]
    fn stored_paths_have_the_layout_of_restic() {
        assert_eq!(shape_of(&["/a/b/c"]), ["/a/b/c=/a/b/c"]);
        assert_eq!(shape_of(&["x/./y/../z/"]), ["/x/z=x/z"]);
        assert_eq!(shape_of(&["../foo"]), ["/foo=../foo"]);
        assert_eq!(shape_of(&["foo", "../foo"]), ["/foo=foo", "/foo-1=../foo"]);
        assert_eq!(shape_of(&["/a/../../b"]), ["/b=/b"]);
    }

    #[test]
    fn a_target_below_another_is_kept_in_any_order() {
        let both = ["/foo=foo", "/foo/a/bar=foo/a/bar"];
        assert_eq!(shape_of(&["foo", "foo/a/bar", "foo"]), both);
        assert_eq!(shape_of(&["foo/a/bar", "foo"]), both);
    }

    #[test]
    fn a_directory_without_a_name_is_replaced_by_its_entries() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        std::fs::create_dir_all(dir.path().join("d/below")).unwrap();
        let mut tops = Tops::new();
        // `d` leads to a target already; it is added to, not replaced.
        place(&mut tops, OsStr::new("d"), &dir.path().join("d"), Kind::Partial).below.insert(
            b"below".to_vec(),
            Top { path: dir.path().join("d/below"), kind: Kind::Target, below: Tops::new() },
        );
        insert_entries(&mut tops, dir.path()).unwrap();
        assert!(matches!(tops[&b"f"[..]].kind, Kind::Found { .. }));
        let d = &tops[&b"d"[..]];
        assert!(matches!(d.kind, Kind::Found { .. }), "all of it, not only the entries named below it");
        assert_eq!(d.below[&b"below"[..]].kind, Kind::Target);
    }
}
