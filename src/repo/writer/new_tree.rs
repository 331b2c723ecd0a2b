//! Stores a tree while its nodes come. A large tree is compressed and sealed piece by piece, and
//! spilled to disk until its id is known.

use super::pipeline::Writer;
use crate::aside::Aside;
use crate::crypto::Pieces;
use crate::format::compression::frame;
use crate::format::content::{Content, JsonRef};
use crate::format::node::Node;
use crate::format::pack::PackedBlob;
use crate::format::tree::TreeWriter;
use crate::format::{BlobType, FormatError, Version};
use crate::hash::Sha256;
use crate::id::Id;
use crate::limits;
use crate::repo::error::{Error, Result};
use crate::repo::trees::large::PIECE;
use std::io::{self, Read, Write};
use zstd::stream::write::Encoder;

/// A tree whose nodes come in order.
#[derive(Default)]
pub struct NewTree {
    /// The JSON that has not been spilled.
    tree: TreeWriter,
    large: Option<Box<Large>>,
}

/// The beginning of a tree that is too large for memory.
struct Large {
    hash: Sha256,
    length: u64,
    sealed: Compressing,
}

/// Trees are compressed if the repository's format supports it.
enum Compressing {
    No(Sealing),
    Yes(Encoder<'static, Sealing>),
}

/// Seals the bytes written to it, and spills them to disk.
struct Sealing {
    pieces: Pieces,
    waiting: Vec<u8>,
    sealed: Vec<u8>,
    aside: Aside,
}

impl NewTree {
    /// Adds a node. The inner result is an error if its name does not come after the previous one.
    pub fn add(&mut self, writer: &Writer, node: &Node) -> Result<std::result::Result<(), FormatError>> {
        if node.content.as_ref().is_some_and(Content::is_aside) {
            return self.add_json(writer, &node.name, node.json().borrow());
        }
        let outcome = self.tree.add(node);
        relieve(&mut self.large, writer, self.tree.written()).map(|()| outcome)
    }

    /// [`NewTree::add`] for a node that is JSON already.
    pub fn add_json(
        &mut self,
        writer: &Writer,
        name: &[u8],
        json: JsonRef<'_>,
    ) -> Result<std::result::Result<(), FormatError>> {
        let outcome = self.tree.open_slot(name);
        if outcome.is_ok() {
            self.write(writer, json)?;
        }
        Ok(outcome)
    }

    /// Adds nodes that are JSON already, and in order.
    pub fn add_nodes(&mut self, writer: &Writer, nodes: JsonRef<'_>) -> Result<()> {
        if nodes.text.is_empty() {
            return Ok(());
        }
        self.tree.separate();
        self.write(writer, nodes)
    }

    fn write(&mut self, writer: &Writer, json: JsonRef<'_>) -> Result<()> {
        let NewTree { tree, large } = self;
        json.write(tree.written(), |written| relieve(large, writer, written))?;
        relieve(large, writer, tree.written())
    }

    /// Stores the tree unless the repository has it. Returns its id.
    pub fn finish(self, writer: &Writer) -> Result<Id> {
        let json = self.tree.finish();
        let Some(mut large) = self.large else { return writer.store_tree(&json) };
        large.write(&json).map_err(|error| cannot_spill(writer, error))?;
        large.store(writer)
    }

    /// Stores a tree whose plaintext comes from a source. Fails if it does not hash to `id`.
    pub(super) fn of_plaintext(writer: &Writer, id: Id, source: io::Result<impl Read>) -> Result<()> {
        let lost = |error| Error::aside_lost(format!("tree {id}"), error);
        let mut source = source.map_err(lost)?;
        let mut large = Large::new(writer).map_err(|error| cannot_spill(writer, error))?;
        let mut piece = vec![0; PIECE];
        loop {
            match source.read(&mut piece).map_err(lost)? {
                0 => {
                    return match large.store(writer)? {
                        stored if stored == id => Ok(()),
                        other => Err(lost(io::Error::other(format!("it hashes to {other} now")))),
                    };
                }
                got => large.write(&piece[..got]).map_err(|error| cannot_spill(writer, error))?,
            }
        }
    }
}

/// Spills the JSON of a tree if it exceeds the limit for memory.
fn relieve(large: &mut Option<Box<Large>>, writer: &Writer, written: &mut Vec<u8>) -> Result<()> {
    let held = if large.is_some() { PIECE } else { usize::try_from(limits::TREE_IN_MEMORY).expect("2 MiB") };
    if written.len() <= held {
        return Ok(());
    }
    let aside = |error| cannot_spill(writer, error);
    let large = match large {
        Some(large) => large,
        None => large.insert(Box::new(Large::new(writer).map_err(aside)?)),
    };
    large.write(written).map_err(aside)?;
    written.clear();
    written.shrink_to(held);
    Ok(())
}

/// The error of a new tree that is too large for memory and cannot be spilled to disk.
fn cannot_spill(writer: &Writer, error: io::Error) -> Error {
    Error::aside("the tree of a directory", writer.repo().settings().aside.as_deref(), error)
}

impl Large {
    fn new(writer: &Writer) -> io::Result<Large> {
        let repo = writer.repo();
        let nonce = repo.nonce();
        let mut aside = Aside::new(repo.settings().aside.as_deref());
        aside.write_all(&nonce)?;
        let sealing = Sealing { pieces: repo.key.pieces(&nonce), waiting: Vec::new(), sealed: Vec::new(), aside };
        let sealed = match repo.config().version {
            Version::V1 => Compressing::No(sealing),
            Version::V2 => Compressing::Yes(frame(sealing)?),
        };
        Ok(Large { hash: Sha256::new(), length: 0, sealed })
    }

    /// Finishes the tree and stores it. Returns its id.
    fn store(self, writer: &Writer) -> Result<Id> {
        let Large { hash, length, sealed } = self;
        let aside = |error| cannot_spill(writer, error);
        let is_compressed = matches!(sealed, Compressing::Yes(_));
        let sealing = match sealed {
            Compressing::No(sealing) => sealing,
            Compressing::Yes(encoder) => encoder.finish().map_err(aside)?,
        };
        let (id, sealed) = (Id(hash.finish()), sealing.finish().map_err(aside)?);
        let bytes = |size| {
            let too_large = Error::BlobTooLarge { ty: BlobType::Tree, id, size, max: u32::MAX.into() };
            u32::try_from(size).map_err(|_| too_large)
        };
        let uncompressed = if is_compressed { bytes(length)? } else { 0 };
        let blob = PackedBlob { ty: BlobType::Tree, id, offset: 0, length: bytes(sealed.len())?, uncompressed };
        writer.store_sealed_tree(blob, sealed)?;
        Ok(id)
    }

    fn write(&mut self, json: &[u8]) -> io::Result<()> {
        self.hash.update(json);
        self.length += json.len() as u64;
        match &mut self.sealed {
            Compressing::No(sealing) => sealing.write_all(json),
            Compressing::Yes(encoder) => encoder.write_all(json),
        }
    }
}

impl Sealing {
    fn seal(&mut self, length: usize) -> io::Result<()> {
        self.sealed.clear();
        self.pieces.seal(&self.waiting[..length], &mut self.sealed);
        self.waiting.drain(..length);
        self.aside.write_all(&self.sealed)
    }

    /// The sealed blob.
    fn finish(mut self) -> io::Result<Aside> {
        self.seal(self.waiting.len())?;
        let Sealing { pieces, mut aside, .. } = self;
        aside.write_all(&pieces.tag())?;
        Ok(aside)
    }
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.seal(self.waiting.len() / PIECE * PIECE)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
