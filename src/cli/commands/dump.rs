//! The command `dump`: writes a file's content, or a directory as a tar or zip archive, to standard
//! output or to a file.

use crate::cli::args::Filter;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::select;
use crate::format::node::NodeType;
use crate::maintain::dump::{Directory, Dump, Format};
use crate::maintain::gaps::Gaps;
use crate::repo::{Index, TreeReader};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo dump latest /etc/hosts
  vsm-mover -r /srv/repo dump latest /etc > etc.tar
  vsm-mover -r /srv/repo dump latest:/etc / --archive zip --target etc.zip")]
pub struct Args {
    /// Snapshot: an id or the beginning of one, or `latest`; with `:FOLDER`, PATH is below that
    /// folder
    #[arg(value_name = "ID[:FOLDER]")]
    snapshot: String,
    /// File or directory in the snapshot; / is the whole snapshot
    #[arg(id = "entry", value_name = "PATH")]
    path: String,
    /// Set the archive format (zip stores neither special files nor extended attributes)
    #[arg(short, long, value_name = "FORMAT", default_value = "tar")]
    archive: FormatArg,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    target: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FormatArg {
    Tar,
    Zip,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Format {
        match format {
            FormatArg::Tar => Format::Tar,
            FormatArg::Zip => Format::Zip,
        }
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let format = args.archive.into();
    let repo = context.open_to_read()?;
    let (name, folder) = select::split_folder(&args.snapshot);
    let find = || repo.find_snapshot(name, &args.filter.build());
    let (stored, index) = Index::load_beside(&repo, find, std::slice::from_ref)?;
    let trees = TreeReader::new(&repo, &index);
    let root = trees.folder(stored.tree()?, folder.as_bytes())?;
    let node = trees.find(root, args.path.as_bytes())?;
    let archive = node.as_ref().is_none_or(|node| node.ty != NodeType::File);
    if archive && context.out.terminal && args.target.is_none() {
        bail!("refusing to write an archive to a terminal; redirect standard output, or name a file with --target");
    }
    let _orderly = context.orderly();
    let dump = Dump::new(&repo, &index, &context.progress)?;
    let gaps = Gaps::new(stored.id, &context.progress);
    let mut sink = Sink::open(args.target, context)?;
    let mut write = |bytes: &[u8]| sink.write(bytes);
    match node {
        None => dump.archive(format, &Directory { trees: &trees, root, path: b"" }, &gaps, &mut write)?,
        Some(node) if node.ty == NodeType::File => dump.file(args.path.as_bytes(), &node, &mut write)?,
        Some(node) => match node.subtree {
            Some(root) => {
                let path = &cleaned(&args.path);
                dump.archive(format, &Directory { trees: &trees, root, path }, &gaps, &mut write)?
            }
            None => bail!("{:?} is neither a file nor a directory, but a {}", args.path, node.ty.name()),
        },
    }
    sink.finish()?;
    Ok(match gaps.reported() {
        0 => Outcome::Complete,
        count => {
            Outcome::Incomplete(format!("the archive is incomplete: {count} parts are missing, each listed above"))
        }
    })
}

/// Normalizes a path: `a//b/` becomes `/a/b`.
fn cleaned(path: &str) -> Vec<u8> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.flat_map(|part| [b"/", part.as_bytes()].concat()).collect()
}

enum Sink<'c> {
    Stdout(&'c Context),
    File(PathBuf, BufWriter<File>),
}

impl Sink<'_> {
    fn open(target: Option<PathBuf>, context: &Context) -> Result<Sink<'_>> {
        let Some(path) = target else {
            return Ok(Sink::Stdout(context));
        };
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Sink::File(path, BufWriter::with_capacity(1 << 20, file)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Sink::Stdout(context) => Ok(context.out.write(bytes)?),
            Sink::File(path, file) => file.write_all(bytes).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Sink::Stdout(context) => {
                context.out.flush()?;
                // If it is a file, a full disk or a quota may be reported only now.
                sync(std::io::stdout()).context("cannot write standard output")
            }
            Sink::File(path, mut file) => file
                .flush()
                .and_then(|()| sync(file.get_ref()))
                .with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

/// Waits until the written data is on the disk. Pipes, sockets and terminals cannot be synced.
fn sync(file: impl std::os::fd::AsFd) -> std::io::Result<()> {
    match rustix::fs::fsync(file) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::ROFS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_lose_empty_and_dot_parts() {
        for (path, expected) in [("a//b/", "/a/b"), ("/a", "/a"), ("./a/.", "/a"), ("/", "")] {
            assert_eq!(super::cleaned(path), expected.as_bytes());
        }
    }
}
