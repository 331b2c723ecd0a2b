//! The command `ls`: lists the entries of a snapshot.

use crate::cli::args::Filter;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::is_zero;
use crate::cli::render::{self, SizeFormat};
use crate::cli::select::{self, SnapshotJson};
use crate::format::node::{Node, NodeType};
use crate::format::time::Time;
use crate::maintain::gaps::Gaps;
use crate::maintain::walk::Walk;
use crate::repo::{Index, StoredSnapshot, TreeReader};
use anyhow::{Result, bail};
use serde::Serialize;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo ls latest
  vsm-mover -r /srv/repo ls --long --human-readable latest:/etc
  vsm-mover -r /srv/repo ls --recursive --sort size --reverse latest /home")]
pub struct Args {
    /// Snapshot to list: an id or the beginning of one, or `latest`; `:FOLDER` restricts it to a
    /// folder
    #[arg(value_name = "ID[:FOLDER]")]
    snapshot: String,
    /// Absolute paths of directories to list [default: all]
    #[arg(value_name = "DIR")]
    dirs: Vec<String>,
    /// Use a long format with mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Print sizes with units
    #[arg(long)]
    human_readable: bool,
    /// Also list everything below the given directories
    #[arg(long)]
    recursive: bool,
    /// Sort by this property
    #[arg(short, long, value_name = "MODE", default_value = "name")]
    sort: Sort,
    /// Reverse the order
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
enum Sort {
    Name,
    Size,
    #[value(alias = "mtime")]
    Time,
    Atime,
    Ctime,
    Extension,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if let Some(dir) = args.dirs.iter().find(|dir| !dir.starts_with('/')) {
        bail!("the directory {dir:?} is not absolute; it must start with a slash");
    }
    let repo = context.open_to_read()?;
    let (name, folder) = select::split_folder(&args.snapshot);
    let find = || repo.find_snapshot(name, &args.filter.build());
    let (stored, index) = Index::load_beside(&repo, find, std::slice::from_ref)?;
    let trees = TreeReader::new(&repo, &index);
    let root = trees.folder(stored.tree()?, folder.as_bytes())?;
    print_snapshot(context, &args, &stored)?;
    let dirs: Vec<&[u8]> = args.dirs.iter().map(|dir| dir.trim_end_matches('/').as_bytes()).collect();
    let streamed = args.sort == Sort::Name && !args.reverse;
    let depth = if args.recursive { Depth::All } else { Depth::Entries };
    let mut collected = Vec::new();
    let _orderly = context.orderly();
    let gaps = Gaps::new(stored.id, &context.progress);
    // An unreadable root is an error; unreadable directories below it are reported and left out.
    let mut walk = Walk::new(&trees, root)?;
    while let Some(node) = walk.next_readable(&gaps)? {
        gaps.check_interrupted()?;
        let (listed, entered) = scope(walk.path(), &dirs, depth);
        if listed && streamed {
            print_node(context, &args, walk.path(), &node)?;
        } else if listed {
            let content = None;
            collected.push((walk.path().to_vec(), Node { content, xattrs: Vec::new(), ..node.clone() }));
        }
        if entered && node.ty == NodeType::Dir {
            walk.enter_readable(&node, &gaps)?;
        }
    }
    sort(&mut collected, args.sort);
    if args.reverse {
        collected.reverse();
    }
    collected.iter().try_for_each(|(path, node)| print_node(context, &args, path, node))?;
    Ok(match gaps.reported() {
        0 => Outcome::Complete,
        count => {
            Outcome::Incomplete(format!("the list is incomplete: {count} parts could not be read, each listed above"))
        }
    })
}

/// How far below the given directories entries are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The entries of the directories.
    Entries,
    /// Everything below them.
    All,
}

/// Whether an entry is listed, and whether the walk descends into it.
fn scope(path: &[u8], dirs: &[&[u8]], depth: Depth) -> (bool, bool) {
    let recursive = depth == Depth::All;
    let below = |path: &[u8], dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
    let child = |dir: &[u8]| below(path, dir) && !path[dir.len() + 1..].contains(&b'/');
    let is = dirs.contains(&path);
    let listed = dirs.is_empty() || is || dirs.iter().any(|&dir| if recursive { below(path, dir) } else { child(dir) });
    let entered = dirs.is_empty() || is || dirs.iter().any(|&dir| below(dir, path) || (recursive && below(path, dir)));
    (listed, entered)
}

fn sort(entries: &mut [(Vec<u8>, Node)], sort: Sort) {
    let extension = |path: &[u8]| {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
        name.iter().rposition(|&byte| byte == b'.').map_or(Vec::new(), |dot| name[dot..].to_vec())
    };
    match sort {
        Sort::Name => entries.sort_by(|a, b| a.0.cmp(&b.0)),
        Sort::Size => entries.sort_by_key(|(_, node)| node.size),
        Sort::Time => entries.sort_by_key(|(_, node)| node.mtime.instant()),
        Sort::Atime => entries.sort_by_key(|(_, node)| node.atime.instant()),
        Sort::Ctime => entries.sort_by_key(|(_, node)| node.ctime.instant()),
        Sort::Extension => entries.sort_by_cached_key(|(path, _)| extension(path)),
    }
}

#[derive(Serialize)]
struct SnapshotLine<'s> {
    #[serde(flatten)]
    snapshot: SnapshotJson<'s>,
    message_type: &'static str,
    struct_type: &'static str,
}

fn print_snapshot(context: &Context, args: &Args, stored: &StoredSnapshot) -> Result<()> {
    if context.out.is_json() {
        let line = SnapshotLine { snapshot: stored.into(), message_type: "snapshot", struct_type: "snapshot" };
        return Ok(context.out.json(&line)?);
    }
    let filtered = if args.dirs.is_empty() { String::new() } else { format!(" filtered by [{}]", args.dirs.join(" ")) };
    Ok(context.out.note(format_args!("{}{filtered}:", select::describe(stored)))?)
}

#[derive(Serialize)]
struct NodeLine<'n> {
    name: String,
    #[serde(rename = "type")]
    ty: &'static str,
    path: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u32,
    permissions: String,
    mtime: &'n Time,
    atime: &'n Time,
    ctime: &'n Time,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    message_type: &'static str,
    struct_type: &'static str,
}

fn print_node(context: &Context, args: &Args, path: &[u8], node: &Node) -> Result<()> {
    let path = render::path(path);
    if context.out.is_json() {
        let line = NodeLine {
            name: render::path(&node.name),
            ty: node.ty.name(),
            path,
            uid: node.uid,
            gid: node.gid,
            size: (node.ty == NodeType::File).then_some(node.size),
            mode: node.mode,
            permissions: render::permissions(node.mode),
            mtime: &node.mtime,
            atime: &node.atime,
            ctime: &node.ctime,
            inode: node.inode,
            message_type: "node",
            struct_type: "node",
        };
        context.out.line(serde_json::to_string(&line)?)?;
    } else if args.long {
        context.out.line(render::long_line(&path, node, SizeFormat::from(args.human_readable)))?;
    } else {
        context.out.line(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Depth, scope};

    #[test]
    fn given_directories_are_listed_with_their_entries() {
        let dirs: &[&[u8]] = &[b"/data/sub"];
        let scopes = |depth| {
            ["/data", "/data/sub", "/data/sub/x", "/data/sub/x/y", "/data/subway", "/etc"]
                .map(|path| scope(path.as_bytes(), dirs, depth))
        };
        let (yes, no) = (true, false);
        assert_eq!(scopes(Depth::Entries), [(no, yes), (yes, yes), (yes, no), (no, no), (no, no), (no, no)]);
        assert_eq!(scopes(Depth::All), [(no, yes), (yes, yes), (yes, yes), (yes, yes), (no, no), (no, no)]);
        assert_eq!(scope(b"/x/y", &[], Depth::Entries), (yes, yes));
        assert_eq!(scope(b"/x", &[b""], Depth::Entries), (yes, no), "the root's entries");
    }
}
