//! The origin of stored data, as the path of a repository and the tags of a snapshot name it.
//!
//! A volume keeps its repository as long as its claim keeps its name, so that later backups are
//! incremental: `<prefix>/restic/<cluster>/<namespace>/<claim>`, below the directory `restic`,
//! which Velero's validation of a location accepts. VolumeSnapshotMover made one repository for
//! each volume of each backup, `<protected namespace>/<backup>/<content>-pvc` (up to 1.2.0 without
//! the backup), whose path does not name the volume's namespace. Paths and tags prove nothing:
//! every user with write access to the bucket can forge them.

use crate::id::Id;

/// The directory below a location's prefix that all repositories are in.
pub const DIRECTORY: &str = "restic";

/// The suffix that VolumeSnapshotMover appended to the name of a VolumeSnapshotContent.
pub const OLD_SUFFIX: &str = "-pvc";

/// The owner of a repository, as its path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A repository of ours, for a claim in a namespace of a cluster.
    Volume { cluster: String, namespace: String, claim: String },
    /// A repository of VolumeSnapshotMover, for a volume in a backup. Up to version 1.2.0, the path
    /// does not name the backup.
    Old { protected: String, backup: Option<String>, content: String },
    /// Any other path.
    Unknown,
}

impl Layout {
    /// The layout of a path below the base directory of the repositories.
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

    /// [`Layout::of`] if it is unknown which parts of `path` lead to the base. The last `below`
    /// parts were found below a place that the user named, which may be the base, above it or
    /// within it.
    pub fn guess(path: &[&str], below: usize) -> Layout {
        let last = |count: usize| Layout::of(&path[path.len().saturating_sub(count)..]);
        // Our own layout is recognized at any depth, and checked first: a claim's name may look
        // like an old repository.
        let ours = if path.len() >= 4 { last(4) } else { Layout::Unknown };
        let known = |layout: &Layout| *layout != Layout::Unknown;
        [ours, last(below), last(path.len())].into_iter().find(known).unwrap_or(Layout::Unknown)
    }
}

/// The longest value of a label, and the length of the hash by which Velero replaces the end of a
/// longer name (`pkg/label`, `GetValidName`).
const LABEL_VALUE: usize = 63;
const LABEL_HASH: usize = 6;

/// A Velero backup's name as the value of a label, which is the form that tags have.
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_VALUE {
        return name.to_owned();
    }
    let hash = Id::of(name.as_bytes()).to_string();
    format!("{}{}", &name[..name.floor_char_boundary(LABEL_VALUE - LABEL_HASH)], &hash[..LABEL_HASH])
}

/// The tags of a snapshot, each of the form `word:value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The name of the VolumeSnapshotBackup that made the snapshot.
    Backup,
    /// The uid of that VolumeSnapshotBackup, which is unique.
    Identity,
    /// The name of the Velero backup that it was a part of, as [`label_value`] returns it.
    Velero,
    /// The uid of the claim.
    Lineage,
    /// The size that the claim requested, as a quantity.
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

    /// The tag with this value.
    pub fn of(self, value: &str) -> String {
        format!("{}:{value}", self.word())
    }

    /// All values that the tags have for this word.
    pub fn values(self, tags: &[String]) -> impl Iterator<Item = &str> {
        tags.iter().filter_map(move |tag| tag.strip_prefix(self.word())?.strip_prefix(':'))
    }

    /// The value that the tags have for this word, if it is the only one and not empty.
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

    /// The layouts of VolumeSnapshotMover and ours, from above the base, from the base and from
    /// within it.
    #[test]
    fn a_layout_is_recognized_from_above_the_base_and_from_within() {
        for (path, below, expected) in [
            ("velero/restic/c-1/shop/data", 5, volume("c-1", "shop", "data")),
            ("velero/restic/c-1/shop/data", 3, volume("c-1", "shop", "data")),
            ("restic/c-1/shop/data", 0, volume("c-1", "shop", "data")),
            ("restic/c-1/shop/web-pvc", 3, volume("c-1", "shop", "web-pvc")),
            ("adp/b1/snapcontent-1-pvc", 3, old("adp", Some("b1"), "snapcontent-1")),
            ("adp/b1/snapcontent-1-pvc", 1, old("adp", Some("b1"), "snapcontent-1")),
            ("adp/snapcontent-1-pvc", 2, old("adp", None, "snapcontent-1")),
            // The base itself is below a directory.
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
    fn tags_return_their_values_unless_these_are_empty_or_ambiguous() {
        let tags: Vec<String> =
            ["vsb-uid:u", "vsb:a:b", "access-mode:ReadWriteMany", "access-mode:ReadOnlyMany", "backup:", "size"]
                .map(Into::into)
                .into();
        assert_eq!(Tag::Backup.value(&tags), Some("a:b"));
        assert_eq!(Tag::Identity.value(&tags), Some("u"));
        assert_eq!(Tag::Velero.value(&tags), None, "an empty value is no name");
        assert_eq!(Tag::Size.value(&tags), None);
        assert_eq!(Tag::AccessMode.value(&tags), None, "two values are ambiguous");
        assert_eq!(Tag::AccessMode.values(&tags).collect::<Vec<_>>(), ["ReadWriteMany", "ReadOnlyMany"]);
        assert_eq!(Tag::Size.value(&[Tag::Size.of("10Gi")]), Some("10Gi"));
    }
}
