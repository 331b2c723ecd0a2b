//! Maps each file of a repository to its path, and a path back to the file that it names.
//!
//! One layout serves folders and object stores alike: `config`, and one directory per type, where
//! packs are spread over 256 subdirectories by the first two digits of their id. [`parse`] accepts
//! exactly the paths that [`path`] returns. Any other name is foreign (a temporary file, a marker
//! of another tool) and is ignored.

use super::file::{File, FileType};
use crate::id::Id;

/// The types that have a directory, which is all but the config.
pub const DIRECTORIES: [FileType; 5] =
    [FileType::Key, FileType::Lock, FileType::Snapshot, FileType::Index, FileType::Pack];

/// The directory of a type under the root; empty for the config, which lies in the root itself.
pub fn directory(ty: FileType) -> &'static str {
    match ty {
        FileType::Config => "",
        FileType::Key => "keys",
        FileType::Lock => "locks",
        FileType::Snapshot => "snapshots",
        FileType::Index => "index",
        FileType::Pack => "data",
    }
}

/// All directories, relative to the root; those above come before those below.
pub fn directories() -> impl Iterator<Item = String> {
    let shards = (0..=255).map(|byte| format!("{}/{byte:02x}", directory(FileType::Pack)));
    DIRECTORIES.map(directory).into_iter().map(str::to_owned).chain(shards)
}

/// The directory a file lies in, relative to the root.
pub fn parent(file: File) -> String {
    match file.ty {
        FileType::Pack => format!("data/{:02x}", file.id.0[0]),
        ty => directory(ty).to_owned(),
    }
}

/// The path of a file relative to the root, with `/` between its parts.
pub fn path(file: File) -> String {
    match file.ty {
        FileType::Config => "config".to_owned(),
        _ => format!("{}/{}", parent(file), file.id),
    }
}

/// The file that a path relative to the root names, or none if the name is foreign.
pub fn parse(path: &str) -> Option<File> {
    if path == "config" {
        return Some(File::CONFIG);
    }
    let (directories, name) = path.rsplit_once('/')?;
    let id = Id::parse(name.as_bytes())?;
    let top = directories.split('/').next()?;
    let ty = DIRECTORIES.into_iter().find(|ty| directory(*ty) == top)?;
    let file = File::new(ty, id);
    (self::path(file) == path).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn id() -> Id {
        HEX.parse().unwrap()
    }

    #[test]
    fn names_every_type_and_reads_the_name_back() {
        let rows = [
            (FileType::Key, format!("keys/{HEX}")),
            (FileType::Lock, format!("locks/{HEX}")),
            (FileType::Snapshot, format!("snapshots/{HEX}")),
            (FileType::Index, format!("index/{HEX}")),
            (FileType::Pack, format!("data/ba/{HEX}")),
        ];
        for (ty, expected) in rows {
            let file = File::new(ty, id());
            assert_eq!(path(file), expected);
            assert_eq!(parse(&expected), Some(file));
        }
        assert_eq!(path(File::CONFIG), "config");
        assert_eq!(parse("config"), Some(File::CONFIG));
    }

    #[test]
    fn foreign_names_are_no_files() {
        let foreign = [
            "".to_owned(),
            "data".to_owned(),
            HEX.to_owned(),
            format!("/keys/{HEX}"),
            format!("key/{HEX}"),
            format!("keys/{HEX}-tmp-1a2b"),
            format!("keys/{}", HEX.to_uppercase()),
            format!("keys/aa/{HEX}"),
            format!("data/{HEX}"),
            format!("data/bb/{HEX}"),
            format!("data/ba/ba/{HEX}"),
            "data/upload-tmp-1a2b".to_owned(),
            format!("index/{HEX}/"),
            "config/".to_owned(),
        ];
        for name in foreign {
            assert_eq!(parse(&name), None, "{name}");
        }
    }
}
