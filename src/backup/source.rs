//! Stage 1: what was asked for becomes the top of the snapshot's tree, in restic's shapes.
//!
//! `/a/b` is stored as the directories `a` and in it `b`, `x/y` as `x` and `y`, `.` as its entries. A directory that is only on the
//! way to a target is *partial*: it has its real metadata and nothing but the targets below it.

use super::Source;
use super::stat::{display, lstat};
use crate::format::snapshot::VOLUME_NAME;
use crate::progress::{Phase, Progress};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// An entry at the top of a snapshot.
#[derive(Debug)]
pub struct Top {
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// Named by the user: taken whole, whatever the exclude rules say of itself.
    Target,
    /// Found in a directory (on this `st_dev`) that the user named as `.` or the like: exclude rules apply.
    Found { device: u64 },
    /// Only on the way to targets below it.
    Partial(BTreeMap<Vec<u8>, Top>),
}

pub type Tops = BTreeMap<Vec<u8>, Top>;

/// The top of the tree, and the paths that the snapshot records. A path that is not there is a problem, and an error if none is.
pub fn resolve(source: &Source, progress: &Progress) -> io::Result<(Tops, Vec<String>)> {
    let mut tops = Tops::new();
    match source {
        Source::Stdin { name } => Ok((tops, vec![display(&clean(&Path::new("/").join(name)))])),
        Source::Volume(path) => {
            if !std::fs::metadata(path)?.is_dir() {
                return Err(io::Error::other(format!("{} is not a directory", display(path))));
            }
            tops.insert(VOLUME_NAME.into(), Top { path: std::fs::canonicalize(path)?, kind: Kind::Target });
            Ok((tops, vec![format!("/{VOLUME_NAME}")]))
        }
        Source::Paths(paths) => {
            let mut recorded = Vec::new();
            for path in paths {
                match lstat(path) {
                    Ok(_) => insert(&mut tops, path)?,
                    Err(error) => {
                        progress.problem(
                            Phase::Archival,
                            display(path),
                            format!("it does not exist or cannot be reached: {error}"),
                        );
                        continue;
                    }
                }
                recorded.push(display(&clean(&std::path::absolute(path)?)));
            }
            if recorded.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "none of the paths to back up can be reached"));
            }
            Ok((tops, recorded))
        }
    }
}

/// Puts a target below the directories that lead to it.
fn insert(tops: &mut Tops, target: &Path) -> io::Result<()> {
    let cleaned = clean(target);
    let names: Vec<&OsStr> = cleaned
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    // What is not a name: the root, or `..` in front, which restic leaves out of stored paths.
    let mut path: PathBuf = cleaned.components().take_while(|part| !matches!(part, Component::Normal(_))).collect();
    let Some((last, above)) = names.split_last() else {
        let dir = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        return insert_entries(tops, &dir);
    };
    let mut level = tops;
    for name in above {
        path.push(name);
        let top = place(level, name, &path, || Kind::Partial(Tops::new()));
        match &mut top.kind {
            Kind::Partial(children) => level = children,
            // The directory above is taken whole already.
            _ => return Ok(()),
        }
    }
    path.push(last);
    place(level, last, &path, || Kind::Target).kind = Kind::Target;
    Ok(())
}

/// `.`, `/` and `..` have no name to be stored under: their entries take their place.
fn insert_entries(tops: &mut Tops, dir: &Path) -> io::Result<()> {
    let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(dir)?);
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let path = if dir == Path::new(".") { PathBuf::from(&name) } else { dir.join(&name) };
        place(tops, &name, &path, || Kind::Found { device });
    }
    Ok(())
}

/// The entry for `path` called `name`; where another path has taken the name, called `name-1`, `name-2`, …
fn place<'t>(level: &'t mut Tops, name: &OsStr, path: &Path, kind: impl FnOnce() -> Kind) -> &'t mut Top {
    let mut free: OsString = name.to_owned();
    let mut count = 0;
    while level.get(free.as_bytes()).is_some_and(|top| top.path != path) {
        count += 1;
        free = name.to_owned();
        free.push(format!("-{count}"));
    }
    level.entry(free.into_vec()).or_insert_with(|| Top { path: path.to_owned(), kind: kind() })
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
            match &top.kind {
                Kind::Partial(children) => shape(children, out, &here),
                _ => out.push(format!("{here}={}", top.path.display())),
            }
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
    fn has_the_shapes_of_restic() {
        assert_eq!(shape_of(&["/a/b/c"]), ["/a/b/c=/a/b/c"]);
        assert_eq!(shape_of(&["x/./y/../z/"]), ["/x/z=x/z"]);
        assert_eq!(shape_of(&["../foo"]), ["/foo=../foo"]);
        assert_eq!(shape_of(&["foo", "../foo"]), ["/foo=foo", "/foo-1=../foo"]);
        assert_eq!(shape_of(&["foo", "foo/bar", "foo"]), ["/foo=foo"]);
        assert_eq!(shape_of(&["foo/bar", "foo"]), ["/foo=foo"]);
        assert_eq!(shape_of(&["/a/../../b"]), ["/b=/b"]);
    }

    #[test]
    fn a_directory_without_a_name_is_its_entries() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        let mut tops = Tops::new();
        insert_entries(&mut tops, dir.path()).unwrap();
        assert!(matches!(tops[&b"f"[..]].kind, Kind::Found { .. }));
    }
}
