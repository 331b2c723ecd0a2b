//! The command `find`: lists the snapshots and paths that contain files, directories or objects.

use crate::cli::args::{self, Filter};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::{List, is_zero};
use crate::cli::render::{self, SizeFormat};
use crate::cli::select;
use crate::format::BlobType;
use crate::format::node::Node;
use crate::format::time::Time;
use crate::id::Id;
use crate::maintain::find::{Entries, Objects, Place};
use crate::maintain::gaps::Gaps;
use crate::pattern::{Case, Patterns};
use crate::repo::{Index, StoredSnapshot, TreeReader};
use anyhow::{Result, bail};
use serde::Serialize;

/// Heading of the help.
const SEARCH: &str = "Search options";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo find '*.conf' hosts
  vsm-mover -r /srv/repo find --long --snapshot latest --ignore-case README
  vsm-mover -r /srv/repo find --blob 1a2b3c4d --show-pack-id")]
pub struct Args {
    /// Patterns of names; ids or their beginnings with --blob, --tree and --pack
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Search this snapshot (can be specified multiple times)
    #[arg(short, long, value_name = "ID", help_heading = SEARCH)]
    snapshot: Vec<String>,
    /// Ignore case in patterns
    #[arg(short, long, help_heading = SEARCH)]
    ignore_case: bool,
    /// Only consider entries that were modified at this time or later
    #[arg(short = 'O', long, value_name = "TIME", value_parser = args::time, help_heading = SEARCH)]
    oldest: Option<Time>,
    /// Only consider entries that were modified at this time or earlier
    #[arg(short = 'N', long, value_name = "TIME", value_parser = args::time, help_heading = SEARCH)]
    newest: Option<Time>,
    /// Use a long format with mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Print sizes with units
    #[arg(long)]
    human_readable: bool,
    /// Search the oldest snapshot first
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Search for data blobs: the patterns are ids
    #[arg(long, conflicts_with_all = ["tree", "pack"], help_heading = SEARCH)]
    blob: bool,
    /// Search for trees: the patterns are ids
    #[arg(long, conflicts_with = "pack", help_heading = SEARCH)]
    tree: bool,
    /// Search for the blobs of packs: the patterns are ids
    #[arg(long, help_heading = SEARCH)]
    pack: bool,
    /// Show the packs that contain the found objects
    #[arg(long)]
    show_pack_id: bool,
    #[command(flatten)]
    filter: Filter,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open_to_read()?;
    let select = || select::snapshots(context, &repo, &args.snapshot, &args.filter.build());
    let ((mut snapshots, missing), index) = Index::load_beside(&repo, select, |(snapshots, _)| snapshots)?;
    snapshots.sort_by_key(|stored| (stored.snapshot.time.instant(), stored.id));
    if !args.reverse {
        snapshots.reverse();
    }
    let trees = TreeReader::new(&repo, &index);
    // A signal ends the search between two entries, so that the JSON document is closed.
    let _orderly = context.orderly();
    if args.blob || args.tree || args.pack {
        find_objects(&args, context, &index, &trees, &snapshots)?;
    } else {
        find_entries(&args, context, &trees, &snapshots)?;
    }
    Ok(match missing as u64 + context.progress.problem_count() {
        0 => Outcome::Complete,
        count => {
            Outcome::Incomplete(format!("{count} snapshots or directories could not be searched, each listed above"))
        }
    })
}

/// An entry in restic's fields: those of its tree node, with the path instead of the name, and
/// without its content.
#[derive(Serialize)]
struct Match<'n> {
    path: String,
    permissions: String,
    #[serde(rename = "type")]
    ty: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u32,
    mtime: &'n Time,
    atime: &'n Time,
    ctime: &'n Time,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'n str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'n str,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    linktarget: String,
    #[serde(skip_serializing_if = "is_zero")]
    device: u64,
}

impl<'n> Match<'n> {
    fn new(path: &[u8], node: &'n Node) -> Match<'n> {
        let Node { mode, uid, gid, inode, device_id, size, links, device, .. } = *node;
        Match {
            path: render::path(path),
            permissions: render::permissions(mode),
            ty: node.ty.name(),
            mode,
            mtime: &node.mtime,
            atime: &node.atime,
            ctime: &node.ctime,
            uid,
            gid,
            user: &node.user,
            group: &node.group,
            inode,
            device_id,
            size,
            links,
            linktarget: render::path(&node.link_target),
            device,
        }
    }
}

fn find_entries(args: &Args, context: &Context, trees: &TreeReader<'_>, snapshots: &[StoredSnapshot]) -> Result<()> {
    let out = &context.out;
    let mut patterns = Patterns::default();
    let case = if args.ignore_case { Case::Ignore } else { Case::Sensitive };
    args.patterns.iter().try_for_each(|pattern| patterns.push(pattern, case))?;
    let entries = Entries { patterns, oldest: args.oldest, newest: args.newest };
    // The document is printed during the search, because there may be millions of matches.
    let mut document = if out.is_json() { Some(out.list("[", |_| "]\n".to_owned())?) } else { None };
    let mut lists = 0;
    for stored in snapshots {
        let gaps = Gaps::new(stored.id, &context.progress);
        let Some(root) = gaps.or_report(b"", stored.tree())? else { continue };
        let mut has_hits = false;
        let mut matches: Option<List<'_>> = None;
        entries.find(trees, root, &gaps, |path, node| -> Result<()> {
            let is_first = !std::mem::replace(&mut has_hits, true);
            if let Some(document) = &mut document {
                if is_first {
                    let ending = |hits| format!("],\"hits\":{hits},\"snapshot\":\"{}\"}}", stored.id);
                    matches = Some(document.nested("{\"matches\":[", ending)?);
                }
                return match &mut matches {
                    Some(matches) => Ok(matches.item(&Match::new(path, node))?),
                    None => Ok(()),
                };
            }
            if is_first {
                begin(context, stored, lists)?;
                lists += 1;
            }
            if args.long {
                out.line(render::long_line(&render::path(path), node, SizeFormat::from(args.human_readable)))?;
            } else {
                out.line(render::path(path))?;
            }
            Ok(())
        })?;
        matches.map_or(Ok(()), List::finish)?;
    }
    Ok(document.map_or(Ok(()), List::finish)?)
}

/// The heading of a snapshot's matches.
fn begin(context: &Context, stored: &StoredSnapshot, before: u64) -> Result<()> {
    if before > 0 {
        context.out.note("")?;
    }
    let time = render::local_time(&stored.snapshot.time);
    Ok(context.out.note(format_args!("Found matching entries in snapshot {} from {time}", stored.id.short()))?)
}

#[derive(Serialize)]
struct ObjectJson {
    object_type: &'static str,
    id: Id,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_tree: Option<Id>,
    snapshot: Id,
    time: Time,
}

fn find_objects(
    args: &Args,
    context: &Context,
    index: &Index,
    trees: &TreeReader<'_>,
    snapshots: &[StoredSnapshot],
) -> Result<()> {
    if let Some(bad) = args.patterns.iter().find(|id| id.is_empty() || !id.bytes().all(|c| c.is_ascii_hexdigit())) {
        bail!("{bad:?} is not an id or the beginning of one: ids are hex digits");
    }
    let mut objects = Objects::default();
    if args.pack {
        let missing = objects.add_packs(index, &args.patterns);
        if missing > 0 {
            bail!("{missing} of the packs are in no index; `list packs` lists the packs of the repository");
        }
    } else {
        let ty = if args.tree { BlobType::Tree } else { BlobType::Data };
        args.patterns.iter().for_each(|id| objects.add(ty, id));
    }
    let mut document = if context.out.is_json() { Some(context.out.list("[", |_| "]\n".to_owned())?) } else { None };
    let mut seen = Vec::new();
    for stored in snapshots {
        let gaps = Gaps::new(stored.id, &context.progress);
        let Some(root) = gaps.or_report(b"", stored.tree())? else { continue };
        objects.find(trees, root, &gaps, |place| -> Result<()> {
            if !seen.contains(&(place.ty, place.id)) {
                seen.push((place.ty, place.id));
            }
            match &mut document {
                Some(document) => Ok(document.item(&object_json(&place, stored))?),
                None => print_place(context, &place, stored),
            }
        })?;
    }
    document.map_or(Ok(()), List::finish)?;
    if args.show_pack_id {
        seen.into_iter().for_each(|(ty, id)| print_packs(context, index, ty, id));
    }
    Ok(())
}

fn object_json(place: &Place<'_>, stored: &StoredSnapshot) -> ObjectJson {
    ObjectJson {
        object_type: type_name(place.ty),
        id: place.id,
        path: render::path(place.path),
        parent_tree: place.parent,
        snapshot: stored.id,
        time: stored.snapshot.time,
    }
}

fn type_name(ty: BlobType) -> &'static str {
    match ty {
        BlobType::Data => "blob",
        BlobType::Tree => "tree",
    }
}

fn print_place(context: &Context, place: &Place<'_>, stored: &StoredSnapshot) -> Result<()> {
    let (out, path) = (&context.out, render::path(place.path));
    out.line(format_args!("Found {} {}", type_name(place.ty), place.id))?;
    match place.parent {
        Some(tree) => {
            out.line(format_args!(" ... in file {path}"))?;
            out.line(format_args!("     (tree {tree})"))?;
        }
        None => out.line(format_args!(" ... path {path}"))?,
    }
    let time = render::local_time(&stored.snapshot.time);
    Ok(out.line(format_args!(" ... in snapshot {} ({time})", stored.id.short()))?)
}

/// Prints the packs of an object: with JSON to standard error, so that standard output stays one
/// document.
fn print_packs(context: &Context, index: &Index, ty: BlobType, id: Id) {
    for location in index.find(ty, id) {
        let blob = location.blob;
        let text = format!(
            "{} {id} is in pack {}, {} bytes at offset {}, {} bytes of plaintext",
            type_name(ty),
            location.pack,
            blob.length,
            blob.offset,
            blob.plain_length()
        );
        if context.out.is_json() {
            context.out.warn(text);
        } else if context.out.line(text).is_err() {
            // The flush at the end of the run returns the same error.
            return;
        }
    }
}
