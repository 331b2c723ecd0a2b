//! The command `cat`: prints one object of the repository, a pack as it is stored, others
//! decrypted.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::select;
use crate::format::BlobType;
use crate::id::Id;
use crate::repo::{Index, Repository, SnapshotFilter, TreeReader};
use crate::store::{File, FileType};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo cat config
  vsm-mover -r /srv/repo cat snapshot latest
  vsm-mover -r /srv/repo cat tree latest:/etc")]
pub struct Args {
    /// Type of the object
    #[arg(value_name = "TYPE")]
    what: What,
    /// Id of the object, or its beginning; for a tree the snapshot and the folder, as ID:FOLDER
    #[arg(value_name = "ID")]
    id: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
enum What {
    Masterkey,
    Config,
    Pack,
    Blob,
    Snapshot,
    Index,
    Key,
    Lock,
    Tree,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open_to_read()?;
    let id = args.id.as_deref();
    let named = || id.context("the id of the object is missing; give it after the type");
    match args.what {
        What::Masterkey => indented(context, &repo.master_key_json())?,
        What::Config => indented(context, &repo.config().encode())?,
        What::Snapshot => {
            let stored = repo.find_snapshot(named()?, &SnapshotFilter::default())?;
            indented(context, &repo.load_file(File::new(FileType::Snapshot, stored.id))?)?;
        }
        What::Key => {
            let id = repo.find_id(FileType::Key, named()?)?;
            indented(context, &repo.store().read(File::new(FileType::Key, id), crate::limits::SMALL_FILE)?)?;
        }
        What::Lock => {
            let id = repo.find_id(FileType::Lock, named()?)?;
            indented(context, &repo.load_file(File::new(FileType::Lock, id))?)?;
        }
        What::Index => {
            let id = repo.find_id(FileType::Index, named()?)?;
            compact(context, repo.load_file(File::new(FileType::Index, id))?)?;
        }
        What::Pack => pack(context, &repo, repo.find_id(FileType::Pack, named()?)?)?,
        What::Blob => blob(context, &repo, named()?.parse()?)?,
        What::Tree => tree(context, &repo, named()?)?,
    }
    Ok(Outcome::Complete)
}

fn compact(context: &Context, mut json: Vec<u8>) -> Result<()> {
    if json.last() != Some(&b'\n') {
        json.push(b'\n');
    }
    Ok(context.out.write(&json)?)
}

fn indented(context: &Context, json: &[u8]) -> Result<()> {
    Ok(context.out.line(indent(&String::from_utf8_lossy(json)))?)
}

/// Indents JSON without parsing it, because a parser would not keep the order of the keys.
fn indent(json: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let new_line = |out: &mut String, depth| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut chars = json.trim().chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                if matches!(chars.peek(), Some('}' | ']')) {
                    out.extend(chars.next());
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Prints the stored bytes of a pack in pieces, because a pack may have gigabytes.
fn pack(context: &Context, repo: &Repository, id: Id) -> Result<()> {
    const PIECE: u64 = 4 << 20;
    let file = File::new(FileType::Pack, id);
    let size = repo.store().size(file)?;
    let mut hasher = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(PIECE.min(size - offset)).expect("at most a piece");
        let piece = repo.store().read_at(file, offset, length)?;
        hasher.update(&piece);
        context.out.write(&piece)?;
        offset += length as u64;
    }
    let actual = Id(hasher.finalize().into());
    if actual != id {
        bail!("pack {id} is damaged: its content hashes to {actual}");
    }
    Ok(())
}

fn blob(context: &Context, repo: &Repository, id: Id) -> Result<()> {
    let index = Index::load(repo)?;
    let ty = if index.first(BlobType::Data, id).is_some() { BlobType::Data } else { BlobType::Tree };
    Ok(context.out.write(&repo.load_blob(&index, ty, id)?)?)
}

fn tree(context: &Context, repo: &Repository, name: &str) -> Result<()> {
    let (snapshot, folder) = select::split_folder(name);
    let stored = repo.find_snapshot(snapshot, &SnapshotFilter::default())?;
    let index = Index::load(repo)?;
    let trees = TreeReader::new(repo, &index);
    let id = trees.folder(stored.tree()?, folder.as_bytes())?;
    compact(context, trees.load(id)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn json_is_indented_as_by_go() {
        let json = r#"{"a":[1,{"b":"x,{\"\\"}],"c":[],"d":{}}"#;
        let expected =
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,{\\\"\\\\\"\n    }\n  ],\n  \"c\": [],\n  \"d\": {}\n}";
        assert_eq!(super::indent(json), expected);
    }
}
