//! The directories above the snapshots, named as restic names them: `ids/1a2b3c4d`,
//! `snapshots/TIME`, `hosts/HOST/TIME` and `tags/TAG/TIME`, and `latest` beside the times.

use crate::format::time::Time;
use crate::repo::StoredSnapshot;
use std::collections::BTreeMap;

/// An entry of a directory above the snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The directory with this index in [`Places`].
    Directory(usize),
    /// The snapshot with this index, in the order given.
    Snapshot(usize),
    /// A symbolic link to the entry of this name in the same directory.
    Link(Vec<u8>),
}

/// All directories above the snapshots; the first is the root.
#[derive(Debug)]
pub struct Places(Vec<BTreeMap<Vec<u8>, Place>>);

impl Places {
    pub const ROOT: usize = 0;

    /// The directories of `snapshots`, which come oldest first.
    pub fn of(snapshots: &[StoredSnapshot]) -> Places {
        let mut places = Places(vec![BTreeMap::new()]);
        let [ids, all, hosts, tags] =
            ["ids", "snapshots", "hosts", "tags"].map(|name| places.directory(Places::ROOT, name));
        for (number, StoredSnapshot { id, snapshot }) in snapshots.iter().enumerate() {
            places.add(ids, &id.short(), number);
            let time = seconds(&snapshot.time);
            let host = places.directory(hosts, &snapshot.hostname);
            let tagged = snapshot.tags.iter().map(|tag| places.directory(tags, tag)).collect::<Vec<_>>();
            for directory in [all, host].into_iter().chain(tagged) {
                let name = places.add(directory, &time, number);
                places.0[directory].insert(b"latest".to_vec(), Place::Link(name));
            }
        }
        places
    }

    /// The entries of a directory, by name.
    pub fn entries(&self, directory: usize) -> &BTreeMap<Vec<u8>, Place> {
        &self.0[directory]
    }

    /// The directory of this name, created if it is missing.
    fn directory(&mut self, above: usize, name: &str) -> usize {
        let new = self.0.len();
        let place = self.0[above].entry(component(name)).or_insert(Place::Directory(new));
        let Place::Directory(number) = *place else { unreachable!("directories and snapshots have different parents") };
        if number == new {
            self.0.push(BTreeMap::new());
        }
        number
    }

    /// Adds a snapshot under this name, or under the name with a number if it is taken. Returns its
    /// name.
    fn add(&mut self, directory: usize, name: &str, snapshot: usize) -> Vec<u8> {
        let numbered = (1..).map(|number| format!("{name}-{number}"));
        let free = |name: &String| !self.0[directory].contains_key(name.as_bytes());
        let name =
            std::iter::once(name.to_owned()).chain(numbered).find(free).expect("numbers do not end").into_bytes();
        self.0[directory].insert(name.clone(), Place::Snapshot(snapshot));
        name
    }
}

/// The name of a host or tag as one valid path component.
fn component(name: &str) -> Vec<u8> {
    match name {
        "" | "." | ".." => format!("_{name}").into_bytes(),
        _ => name.replace(['/', '\0'], "_").into_bytes(),
    }
}

/// A time without its fraction of a second.
fn seconds(time: &Time) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((whole, rest)) => format!("{whole}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Snapshot;
    use crate::id::Id;

    fn stored(id: u8, time: &str, host: &str, tags: &str) -> StoredSnapshot {
        let json = format!(r#"{{"time":"{time}","tree":null,"paths":[],"hostname":"{host}","tags":{tags}}}"#);
        StoredSnapshot { id: Id([id; 32]), snapshot: Snapshot::decode(json.as_bytes()).unwrap() }
    }

    fn names(places: &Places, path: &[&str]) -> Vec<String> {
        let find = |directory, name: &&str| match places.entries(directory)[name.as_bytes()] {
            Place::Directory(number) => number,
            ref other => panic!("{other:?}"),
        };
        let directory = path.iter().fold(Places::ROOT, find);
        places.entries(directory).keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }

    #[test]
    fn snapshots_are_found_by_id_time_host_and_tag() {
        let places = Places::of(&[
            stored(1, "2026-01-02T03:04:05.678+01:00", "a/b", "[\"x\",\"..\"]"),
            stored(2, "2026-01-02T03:04:05.9+01:00", "other", "[\"x\"]"),
            stored(3, "2026-01-03T03:04:05Z", "", "null"),
        ]);
        assert_eq!(names(&places, &[]), ["hosts", "ids", "snapshots", "tags"]);
        assert_eq!(names(&places, &["ids"]), ["01010101", "02020202", "03030303"]);
        let first = "2026-01-02T03:04:05+01:00";
        let second = format!("{first}-1");
        assert_eq!(names(&places, &["snapshots"]), [first, &second, "2026-01-03T03:04:05Z", "latest"]);
        assert_eq!(names(&places, &["hosts"]), ["_", "a_b", "other"]);
        assert_eq!(names(&places, &["tags"]), ["_..", "x"]);
        assert_eq!(names(&places, &["tags", "x"]), [first, &second, "latest"]);
        let Place::Directory(tags) = places.entries(Places::ROOT)[&b"tags"[..]] else { panic!() };
        let Place::Directory(x) = places.entries(tags)[&b"x"[..]] else { panic!() };
        assert_eq!(places.entries(x)[&b"latest"[..]], Place::Link(second.into_bytes()));
    }
}
