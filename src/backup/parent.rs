//! The parent snapshot: which one, and what it says about a directory.

use super::{Options, ParentChoice, Source};
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::{Error, Repository, Result, SnapshotFilter, StoredSnapshot, TreeReader};
use std::iter::Peekable;

/// The snapshot to compare with, if any. `paths` are the absolute paths of this backup.
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
    // A snapshot that cannot be read cannot be a parent, and is no reason not to make a new one.
    let (snapshots, errors) = repo.snapshots()?;
    for error in errors {
        progress.warning(&format!("a snapshot is not considered as the parent: {error}"));
    }
    Ok(snapshots
        .into_iter()
        .rfind(|stored| filter.accepts(&stored.snapshot) && stored.snapshot.time.instant() <= options.time.instant()))
}

/// What the parent has under some names of a directory, sorted by name.
pub struct ParentDir(Vec<Node>);

impl ParentDir {
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let at = self.0.binary_search_by(|node| node.name[..].cmp(name)).ok()?;
        Some(&self.0[at])
    }
}

type Nodes = Box<dyn Iterator<Item = Result<Node>> + Send>;

/// What the parent has in a directory, to be matched with the names of one part after the other.
#[derive(Default)]
pub enum ParentNodes {
    /// It is known already.
    Known(Box<Node>),
    /// A tree that has not been asked for.
    Tree(Id),
    /// A tree in the order of its names, of which those before have been passed.
    Open { id: Id, nodes: Box<Peekable<Nodes>>, last: Vec<u8> },
    /// There is nothing more.
    #[default]
    None,
}

/// The rest of what the parent has in a directory is not known.
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

    /// The top of a parent whose root is the volume's own content, as if it had that below a directory called `name`.
    pub fn below(name: &str, root: Id) -> ParentNodes {
        let mut node = Node::new(name, NodeType::Dir);
        node.subtree = Some(root);
        ParentNodes::Known(Box::new(node))
    }

    /// The nodes of these names, which are sorted and come after those that were asked for before.
    /// `is_only`: there were and will be no others, so that the tree's order does not matter; the
    /// first of a name counts.
    pub fn part(&mut self, trees: &TreeReader<'_>, names: &[Vec<u8>], is_only: bool) -> (ParentDir, Option<Gap>) {
        let mut found = Vec::new();
        let gap = self.match_names(trees, names, is_only, &mut found).err();
        if is_only || gap.is_some() {
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
        is_only: bool,
        found: &mut Vec<Node>,
    ) -> std::result::Result<(), Gap> {
        let is_named = |node: &Node| names.binary_search(&node.name).is_ok();
        if let ParentNodes::Tree(id) = *self {
            let nodes = open(trees, id, is_only).map_err(|error| Gap { tree: id, error: Some(Box::new(error)) })?;
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
        let is_next = |node: &Result<Node>| is_only || node.as_ref().map_or(true, |node| node.name[..] <= *end);
        while let Some(node) = nodes.next_if(is_next) {
            let node = node.map_err(|error| Gap { tree: id, error: Some(Box::new(error)) })?;
            if !is_only {
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

/// The nodes of a tree; in the order of names if they are to be asked for in parts and the tree is not
/// too large for that, because other programs' trees are not always sorted.
fn open(trees: &TreeReader<'_>, id: Id, is_only: bool) -> Result<Nodes> {
    let tree = trees.open(id)?;
    if is_only || tree.is_large() {
        return Ok(Box::new(tree));
    }
    let mut nodes = tree.collect::<Result<Vec<_>>>()?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Box::new(nodes.into_iter().map(Ok)))
}

/// Whether a file is the one the parent has, by restic's rule: type, size, mtime, and unless told otherwise ctime and inode.
pub fn is_unchanged(options: &Options, now: &Node, before: &Node) -> bool {
    let ignore_ctime = options.ignore_ctime || options.ignore_inode;
    before.ty == NodeType::File
        && before.content.is_some()
        && now.size == before.size
        && now.mtime.instant() == before.mtime.instant()
        && (ignore_ctime || now.ctime.instant() == before.ctime.instant())
        && (options.ignore_inode || now.inode == before.inode)
}
