//! Finds the parent snapshot, and the nodes that it has for the entries of a directory.

use super::options::{Options, ParentChoice, Source};
use super::run::Run;
use super::stat::display;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::VOLUME_NAME;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::{Error, Repository, Result, SnapshotFilter, StoredSnapshot, TreeReader};
use std::iter::Peekable;
use std::path::Path;

/// Finds the parent snapshot, if any. `paths` are the absolute paths of this backup.
pub fn find(
    repo: &Repository,
    options: &Options,
    paths: &[String],
    progress: &Progress,
) -> Result<Option<StoredSnapshot>> {
    let (host, by_paths, tags) = match &options.parent {
        _ if matches!(options.source, Source::Stream { .. }) => return Ok(None),
        ParentChoice::Force => return Ok(None),
        ParentChoice::Named(name) => return repo.find_snapshot(name, &SnapshotFilter::default()).map(Some),
        ParentChoice::Known(stored) => return Ok(Some((**stored).clone())),
        &ParentChoice::Group { host, paths, tags } => (host, paths, tags),
    };
    let filter = SnapshotFilter {
        hosts: if host { vec![options.hostname.clone()] } else { vec![] },
        tags: if tags { vec![options.tags.clone()] } else { vec![] },
        paths: if by_paths { paths.to_vec() } else { vec![] },
    };
    // A snapshot that cannot be read cannot be the parent, but must not prevent a new backup.
    let (snapshots, errors) = repo.snapshots()?;
    for error in errors {
        progress.warning(&format!("a snapshot is not considered as the parent: {error}"));
    }
    Ok(snapshots
        .into_iter()
        .rfind(|stored| filter.accepts(&stored.snapshot) && stored.snapshot.time.instant() <= options.time.instant()))
}

/// The parent's nodes for some names of a directory, sorted by name.
pub struct ParentDir(Vec<Node>);

impl ParentDir {
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let at = self.0.binary_search_by(|node| node.name[..].cmp(name)).ok()?;
        Some(&self.0[at])
    }
}

type Nodes = Box<dyn Iterator<Item = Result<Node>> + Send>;

/// The parent's nodes of a directory, to be matched with the names of one part after the other.
#[derive(Default)]
pub enum ParentNodes {
    /// The only node, which is known already.
    Known(Box<Node>),
    /// A tree that has not been opened.
    Tree(Id),
    /// An open tree in the order of names, whose nodes up to `last` have been consumed.
    Open { id: Id, nodes: Box<Peekable<Nodes>>, last: Vec<u8> },
    /// No further nodes.
    #[default]
    None,
}

/// Whether the names of a directory are looked up all at once or in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All names at once, so that the order of the tree does not matter. Of several nodes with the
    /// same name, the first counts.
    Whole,
    /// Some of the names: they are sorted and come after those of the previous part.
    Part,
}

/// The reason why the rest of the parent's nodes of a directory is unknown.
pub struct Gap {
    /// The directory's tree in the parent.
    pub tree: Id,
    /// `None`: the tree, which is read in the order of names, is not sorted.
    pub error: Option<Box<Error>>,
}

impl ParentNodes {
    pub fn of(dir: Option<&Node>) -> ParentNodes {
        dir.and_then(|node| node.subtree).map_or(ParentNodes::None, ParentNodes::Tree)
    }

    /// The parent's root, in the layout of this backup.
    pub fn root(parent: Option<&StoredSnapshot>, source: &Source) -> ParentNodes {
        let Some(parent) = parent else { return ParentNodes::None };
        let Some(tree) = parent.snapshot.tree else { return ParentNodes::None };
        // VolSync stores a volume's content at the root. It is presented below `data`, so that its
        // files are found unchanged.
        if matches!(source, Source::Volume(_)) && !parent.snapshot.is_volume() {
            return ParentNodes::below(VOLUME_NAME, tree);
        }
        ParentNodes::Tree(tree)
    }

    /// The nodes of a root that has one directory called `name`, with the parent's root as its
    /// content.
    fn below(name: &str, root: Id) -> ParentNodes {
        let mut node = Node::new(name, NodeType::Dir);
        node.subtree = Some(root);
        ParentNodes::Known(Box::new(node))
    }

    /// Looks up the nodes of these names.
    pub fn part(&mut self, trees: &TreeReader<'_>, names: &[Vec<u8>], extent: Extent) -> (ParentDir, Option<Gap>) {
        let mut found = Vec::new();
        let gap = self.match_names(trees, names, extent, &mut found).err();
        if extent == Extent::Whole || gap.is_some() {
            *self = ParentNodes::None;
        }
        found.sort_by(|a: &Node, b| a.name.cmp(&b.name));
        found.dedup_by(|again, first| again.name == first.name);
        (ParentDir(found), gap)
    }

    fn match_names(
        &mut self,
        trees: &TreeReader<'_>,
        names: &[Vec<u8>],
        extent: Extent,
        found: &mut Vec<Node>,
    ) -> std::result::Result<(), Gap> {
        let is_named = |node: &Node| names.binary_search(&node.name).is_ok();
        if let ParentNodes::Tree(id) = *self {
            let nodes = open(trees, id, extent).map_err(|error| Gap { tree: id, error: Some(Box::new(error)) })?;
            *self = ParentNodes::Open { id, nodes: Box::new(nodes.peekable()), last: Vec::new() };
        }
        let (id, nodes, last) = match self {
            ParentNodes::Known(node) => {
                found.extend(is_named(node).then(|| Node::clone(node)));
                return Ok(());
            }
            ParentNodes::Open { id, nodes, last } => (*id, nodes, last),
            ParentNodes::Tree(_) | ParentNodes::None => return Ok(()),
        };
        let end = names.last().map_or(&[][..], Vec::as_slice);
        let is_whole = extent == Extent::Whole;
        let is_next = |node: &Result<Node>| is_whole || node.as_ref().map_or(true, |node| node.name[..] <= *end);
        while let Some(node) = nodes.next_if(is_next) {
            let node = node.map_err(|error| Gap { tree: id, error: Some(Box::new(error)) })?;
            if !is_whole {
                if node.name < *last {
                    return Err(Gap { tree: id, error: None });
                }
                last.clone_from(&node.name);
            }
            if is_named(&node) {
                found.push(node);
            }
        }
        Ok(())
    }
}

impl Gap {
    /// Reports that files of the directory at `path` are read again. An error that would affect
    /// every other tree, too, ends the run.
    pub fn report(self, run: &Run<'_>, path: &Path) {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let copy = "the parent snapshot's copy of the directory";
        match self.error {
            None => {
                let what = "is not sorted by name and too large to be searched, so its files are read again";
                run.progress.warning(&format!("{}: {copy} {what}", display(path)));
            }
            Some(error) if error.is_damage() => {
                // The tree is stored again even if an index lists the damaged copy.
                run.writer.distrust(BlobType::Tree, self.tree);
                run.damage(path, format!("{copy} is damaged, so its files are read again: {error}"));
            }
            Some(error) if error.spares_others() => {
                let what = "cannot be read, so its files are read again";
                run.progress.warning(&format!("{}: {copy} {what}: {error}", display(path)));
            }
            Some(error) => run.fail(*error),
        }
    }
}

/// The nodes of a tree. For a lookup in parts they are sorted by name, unless the tree is too large
/// for that, because trees of other programs are not always sorted.
fn open(trees: &TreeReader<'_>, id: Id, extent: Extent) -> Result<Nodes> {
    let tree = trees.open(id)?;
    if extent == Extent::Whole || tree.is_large() {
        return Ok(Box::new(tree));
    }
    let mut nodes = tree.collect::<Result<Vec<_>>>()?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Box::new(nodes.into_iter().map(Ok)))
}

/// Whether a file is unchanged since the parent snapshot, by restic's rule: type, size, mtime, and
/// ctime and inode unless the options exclude them.
pub fn is_unchanged(options: &Options, now: &Node, before: &Node) -> bool {
    let ignore_ctime = options.ignore_ctime || options.ignore_inode;
    before.ty == NodeType::File
        && before.content.is_some()
        && now.size == before.size
        && now.mtime.instant() == before.mtime.instant()
        && (ignore_ctime || now.ctime.instant() == before.ctime.instant())
        && (options.ignore_inode || now.inode == before.inode)
}
