//! Takes an entry into the snapshot: finishes it, or passes it to the stage that reads it.

use super::walker::Walker;
use crate::backup::assemble::{Dir, Part, Slot};
use crate::backup::file::FileWork;
use crate::backup::parent::is_unchanged;
use crate::backup::reach::Place;
use crate::backup::run::Run;
use crate::backup::small::is_small;
use crate::backup::source::{Standing, Tops};
use crate::backup::stack::{DirWork, Known, Scope};
use crate::backup::stat::{display, node_type, stat};
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::progress::Action;
use crate::repo::Result;
use rustix::fs::Stat;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An entry to be taken into a snapshot.
pub struct Entry<'e> {
    pub name: &'e [u8],
    /// The part of its directory that it is in, and its slot there.
    pub part: &'e Arc<Part>,
    pub slot: usize,
    pub place: Place<'e>,
    pub path: &'e Path,
    pub stat: Stat,
    /// The parent's node of this name.
    pub previous: Option<&'e Node>,
    pub standing: Standing,
    /// The entries that are stored of it, if it is a directory.
    pub scope: Scope,
    /// The named entries below it.
    pub below: Tops,
}

impl Entry<'_> {
    fn slot(&self) -> Slot {
        Slot { part: self.part.clone(), number: self.slot }
    }

    /// Fills its slot with a finished node, or with nothing if it is left out.
    fn fill(&self, run: &Run<'_>, node: Option<&Node>) -> Result<()> {
        self.part.fill(run, self.slot, node)
    }

    /// The action that is reported once its content is read.
    fn action(&self) -> Action {
        if self.previous.is_some() { Action::Changed } else { Action::New }
    }
}

/// Takes an entry into the snapshot.
pub fn take(walker: &mut Walker<'_, '_, '_>, mut entry: Entry<'_>) -> Result<()> {
    let run = walker.run;
    if run.options.read_special && entry.standing == Standing::Named {
        match special(entry.path, &entry.stat) {
            Ok(device) => entry.stat = device.unwrap_or(entry.stat),
            Err(why) => {
                run.lost(entry.standing, entry.path, why);
                return entry.fill(run, None);
            }
        }
    }
    let ty = node_type(&entry.stat);
    if is_left_out(run, &entry, ty) {
        return entry.fill(run, None);
    }
    report_unread(run, &entry, ty);
    let mut node = run.observer.node(entry.name, &entry.place, &entry.stat, |why| run.problem(entry.path, why));
    match ty {
        NodeType::Dir => take_dir(walker, entry, node),
        NodeType::File => take_file(walker, entry, node),
        NodeType::Dev if run.options.read_special && entry.standing == Standing::Named => {
            node.ty = NodeType::File;
            node.mode &= 0o777;
            (node.device, node.links) = (0, 1);
            node.xattrs = walker.xattrs(entry.path);
            walker.send(FileWork::device(entry.path.to_owned(), node, entry.slot(), entry.action()));
            Ok(())
        }
        _ => {
            node.xattrs = walker.xattrs(entry.path);
            entry.fill(run, Some(&node))
        }
    }
}

fn take_dir(walker: &Walker<'_, '_, '_>, entry: Entry<'_>, mut node: Node) -> Result<()> {
    node.xattrs = walker.xattrs(entry.path);
    let slot = entry.slot();
    let Entry { path, previous, standing, scope, below, .. } = entry;
    let previous = previous.filter(|node| node.ty == NodeType::Dir).cloned();
    let dir = Dir::new(path.to_owned(), Some(node), previous, standing, Some(slot));
    if matches!(scope, Scope::Named) && below.is_empty() {
        return dir.complete_empty(walker.run);
    }
    let known = (!below.is_empty()).then(|| Box::new(Known { parent: None, named: below }));
    walker.stack.push(DirWork { dir, scope, standing, known });
    Ok(())
}

fn take_file(walker: &mut Walker<'_, '_, '_>, entry: Entry<'_>, mut node: Node) -> Result<()> {
    let run = walker.run;
    run.counts.found_files.fetch_add(1, Ordering::Relaxed);
    run.counts.found_bytes.fetch_add(node.size, Ordering::Relaxed);
    match entry.previous.filter(|before| is_unchanged(run.options, &node, before)) {
        Some(before) if has_content(run, before, entry.path) => {
            node.xattrs = walker.xattrs(entry.path);
            node.content.clone_from(&before.content);
            run.progress.bytes_done.fetch_add(node.size, Ordering::Relaxed);
            run.finish_file(&node, Action::Unchanged, entry.path);
            entry.fill(run, Some(&node))
        }
        _ => {
            let is_small = is_small(node.size);
            let (path, slot, action) = (entry.path.to_owned(), entry.slot(), entry.action());
            let work = FileWork::file(path, node, slot, entry.standing, action);
            let large =
                if is_small { walker.gathering.read(run, walker.limit, &entry.place, work) } else { Some(work) };
            if let Some(work) = large {
                walker.send(work);
            }
            Ok(())
        }
    }
}

/// Whether an entry is left out because of its type or its size. A named socket is reported as
/// lost.
fn is_left_out(run: &Run<'_>, entry: &Entry<'_>, ty: NodeType) -> bool {
    let &Entry { path, standing, ref stat, .. } = entry;
    // A socket has nothing to be stored; restic leaves sockets out, too.
    if ty == NodeType::Socket {
        match standing {
            Standing::Named => run.lost(standing, path, "it is a socket, which has no content to be stored"),
            Standing::Found => run.progress.item(Action::Excluded, || display(path), 0),
        }
        return true;
    }
    let is_large = |max: u64| stat.st_size > i64::try_from(max).unwrap_or(i64::MAX);
    if ty == NodeType::File && standing == Standing::Found && run.options.exclude.larger_than.is_some_and(is_large) {
        run.progress.item(Action::Excluded, || display(path), 0);
        return true;
    }
    false
}

/// Reports a block device or a symlink whose content is not read although the user may expect it.
fn report_unread(run: &Run<'_>, entry: &Entry<'_>, ty: NodeType) {
    let (path, read_special) = (entry.path, run.options.read_special);
    let leads_to_device = || stat(path).is_ok_and(|stat| node_type(&stat) == NodeType::Dev);
    let what = match (entry.standing, ty) {
        (Standing::Named, NodeType::Dev) if !read_special => {
            "a block device, stored without its content: --read-special reads it"
        }
        (Standing::Named, NodeType::Symlink) if !read_special && leads_to_device() => {
            "a symlink to a block device, stored as a symlink: --read-special reads the device"
        }
        (Standing::Named, NodeType::Symlink) => "a symlink, stored as a symlink, without the content of its target",
        (Standing::Found, NodeType::Dev) if read_special => {
            "a block device, stored without its content: --read-special reads only devices that are named"
        }
        _ => return,
    };
    run.progress.warning(&format!("{}: {what}", display(path)));
}

/// With `--read-special`, the block device that a named entry is or leads to. Other special files
/// are an error.
fn special(path: &Path, found: &Stat) -> std::result::Result<Option<Stat>, String> {
    let stat = match node_type(found) {
        NodeType::Symlink => match stat(path) {
            Ok(stat) => stat,
            Err(error) => return Err(format!("it is a dangling symlink: {error}")),
        },
        _ => *found,
    };
    match node_type(&stat) {
        NodeType::Dev => Ok(Some(stat)),
        ty @ (NodeType::CharDev | NodeType::Fifo | NodeType::Socket) => {
            Err(format!("it is a {}, but --read-special reads only block devices", ty.name()))
        }
        NodeType::File | NodeType::Dir | NodeType::Symlink | NodeType::Irregular | NodeType::Unknown => Ok(None),
    }
}

/// Whether the repository has all blobs of a file.
fn has_content(run: &Run<'_>, node: &Node, path: &Path) -> bool {
    let complete = node.content.iter().flatten().all(|id| run.writer.index().contains(BlobType::Data, id));
    if !complete {
        run.damage(path, "the repository lacks parts of it that the parent snapshot needs, so it is read again");
    }
    complete
}
