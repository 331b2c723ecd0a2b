//! Whose data it is: what a repository's path and a snapshot's tags say of where they come from.
//!
//! A volume keeps its repository for as long as its claim has its name, so that the second backup of it is incremental:
//! `<prefix>/restic/<cluster>/<namespace>/<claim>`, below the directory `restic` that Velero's validation of a location accepts.
//! VolumeSnapshotMover of old made one for each volume of each backup, `<protected namespace>/<backup>/<content>-pvc` (1.2.0 and before
//! without the backup), whose paths name no namespace. Whoever can write to the bucket can write all of this: it is no proof of anything.

use crate::id::Id;

/// The directory below a location's prefix that all repositories are in.
pub const DIRECTORY: &str = "restic";

/// What comes after the name of a VolumeSnapshotContent in the repositories of old.
pub const OLD_SUFFIX: &str = "-pvc";

/// Whose a repository is, as its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One of ours: of a claim in a namespace of a cluster.
    Volume { cluster: String, namespace: String, claim: String },
    /// One of VolumeSnapshotMover's, of a volume in a backup; those of 1.2.0 and before do not name the backup.
    Old { protected: String, backup: Option<String>, content: String },
    /// Something else.
    Unknown,
}

impl Layout {
    /// What a path is below the base that repositories are in.
    pub fn of(path: &[&str]) -> Layout {
        let own = |part: &str| part.to_owned();
        match *path {
            [DIRECTORY, cluster, namespace, claim] => {
                Layout::Volume { cluster: own(cluster), namespace: own(namespace), claim: own(claim) }
            }
            [protected, backup, last] if protected != DIRECTORY => match last.strip_suffix(OLD_SUFFIX) {
                Some(content) => {
                    Layout::Old { protected: own(protected), backup: Some(own(backup)), content: own(content) }
                }
                None => Layout::Unknown,
            },
            [protected, last] if protected != DIRECTORY => match last.strip_suffix(OLD_SUFFIX) {
                Some(content) => Layout::Old { protected: own(protected), backup: None, content: own(content) },
                None => Layout::Unknown,
            },
            _ => Layout::Unknown,
        }
    }

    /// [`Layout::of`] where it is not known which of the parts of `path` lead to the base: the last `below` of them were found below a
    /// place that somebody named, which may be the base, above it or within it.
    pub fn guess(path: &[&str], below: usize) -> Layout {
        let last = |count: usize| Layout::of(&path[path.len().saturating_sub(count)..]);
        // Ours are known wherever they stand, and first: a claim may be called like one of old.
        let ours = if path.len() >= 4 { last(4) } else { Layout::Unknown };
        let known = |layout: &Layout| *layout != Layout::Unknown;
        [ours, last(below), last(path.len())].into_iter().find(known).unwrap_or(Layout::Unknown)
    }
}

/// The longest value of a label, and what Velero puts in place of the end of a longer name (`pkg/label`, `GetValidName`).
const LABEL_VALUE: usize = 63;
const LABEL_HASH: usize = 6;

/// A Velero backup's name as the value of a label, which is what tags have of it.
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_VALUE {
        return name.to_owned();
    }
    let hash = Id::of(name.as_bytes()).to_string();
    format!("{}{}", &name[..name.floor_char_boundary(LABEL_VALUE - LABEL_HASH)], &hash[..LABEL_HASH])
}

/// What the tags of a snapshot say, each as `word:value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The name of the VolumeSnapshotBackup that made it.
    Backup,
    /// The uid of that, which no other has.
    Identity,
    /// The Velero backup that that was a part of, as a label's value has its name.
    Velero,
    /// The uid of the claim.
    Lineage,
    /// What the claim requested, as a quantity.
    Size,
    /// The claim's storage class.
    StorageClass,
    /// One of the claim's access modes, in Kubernetes' words.
    AccessMode,
}

impl Tag {
    fn word(self) -> &'static str {
        match self {
            Tag::Backup => "vsb",
            Tag::Identity => "vsb-uid",
            Tag::Velero => "backup",
            Tag::Lineage => "pvc-uid",
            Tag::Size => "size",
            Tag::StorageClass => "storage-class",
            Tag::AccessMode => "access-mode",
        }
    }

    /// The tag that says this.
    pub fn of(self, value: &str) -> String {
        format!("{}:{value}", self.word())
    }

    /// What tags say of this, each in its turn.
    pub fn values(self, tags: &[String]) -> impl Iterator<Item = &str> {
        tags.iter().filter_map(move |tag| tag.strip_prefix(self.word())?.strip_prefix(':'))
    }

    /// What tags say of this, if they say one thing.
    pub fn value(self, tags: &[String]) -> Option<&str> {
        let mut values = self.values(tags);
        values.next().filter(|value| !value.is_empty() && values.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(cluster: &str, namespace: &str, claim: &str) -> Layout {
        Layout::Volume { cluster: cluster.into(), namespace: namespace.into(), claim: claim.into() }
    }

    fn old(protected: &str, backup: Option<&str>, content: &str) -> Layout {
        Layout::Old { protected: protected.into(), backup: backup.map(Into::into), content: content.into() }
    }

    /// The forms of the sheet on VolumeSnapshotMover, section 7.1, and ours, seen from above, from the base and from within.
    #[test]
    fn a_path_is_known_from_wherever_it_is_looked_at() {
        for (path, below, expected) in [
            ("velero/restic/c-1/shop/data", 5, volume("c-1", "shop", "data")),
            ("velero/restic/c-1/shop/data", 3, volume("c-1", "shop", "data")),
            ("restic/c-1/shop/data", 0, volume("c-1", "shop", "data")),
            ("restic/c-1/shop/web-pvc", 3, volume("c-1", "shop", "web-pvc")),
            ("adp/b1/snapcontent-1-pvc", 3, old("adp", Some("b1"), "snapcontent-1")),
            ("adp/b1/snapcontent-1-pvc", 1, old("adp", Some("b1"), "snapcontent-1")),
            ("adp/snapcontent-1-pvc", 2, old("adp", None, "snapcontent-1")),
            // The base has a path of its own.
            ("team/adp/snapcontent-1-pvc", 2, old("adp", None, "snapcontent-1")),
            ("mnt/a/bucket/adp/b1/snapcontent-1-pvc", 3, old("adp", Some("b1"), "snapcontent-1")),
            ("restic/shop", 2, Layout::Unknown),
            ("restic/c-1/data-pvc", 3, Layout::Unknown),
            ("elsewhere", 1, Layout::Unknown),
            ("", 0, Layout::Unknown),
        ] {
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            assert_eq!(Layout::guess(&parts, below), expected, "{path}, {below}");
        }
    }

    #[test]
    fn tags_say_what_they_were_made_of() {
        let tags: Vec<String> =
            ["vsb-uid:u", "vsb:a:b", "access-mode:ReadWriteMany", "access-mode:ReadOnlyMany", "backup:", "size"]
                .map(Into::into)
                .into();
        assert_eq!(Tag::Backup.value(&tags), Some("a:b"));
        assert_eq!(Tag::Identity.value(&tags), Some("u"));
        assert_eq!(Tag::Velero.value(&tags), None, "nothing is no name");
        assert_eq!(Tag::Size.value(&tags), None);
        assert_eq!(Tag::AccessMode.value(&tags), None, "two things are not one");
        assert_eq!(Tag::AccessMode.values(&tags).collect::<Vec<_>>(), ["ReadWriteMany", "ReadOnlyMany"]);
        assert_eq!(Tag::Size.value(&[Tag::Size.of("10Gi")]), Some("10Gi"));
    }
}
