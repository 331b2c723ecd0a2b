//! Reads a tree that is too large for memory: its sealed form is authenticated while it is spilled
//! to disk, compared with its id there, and then opened piece by piece as its nodes are read.

use crate::aside::Aside;
use crate::crypto::{Key, NONCE, OVERHEAD, Pieces, SealError, TAG};
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::format::tree::Nodes;
use crate::hash::Sha256;
use crate::id::Id;
use crate::limits;
use crate::repo::blob_bounds::{check_envelope, damaged};
use crate::repo::error::{Error, Result};
use crate::repo::index::{Index, Location};
use crate::repo::repository::Repository;
use crate::store::{File, FileType};
use std::io::{self, BufRead, Read, Write};
use zstd::stream::read::Decoder;

/// Bytes of a large tree that are sealed, opened or compressed at a time: whole blocks of the
/// cipher.
pub(in crate::repo) const PIECE: usize = 64 << 10;

/// A tree that has been compared with its id, and is not held in memory.
pub struct LargeTree {
    blob: PackedBlob,
    sealed: Aside,
    key: Key,
}

impl LargeTree {
    /// The blob, with its location in its pack.
    pub fn blob(&self) -> PackedBlob {
        self.blob
    }

    pub(in crate::repo) fn into_sealed(self) -> Aside {
        self.sealed
    }

    pub(in crate::repo) fn into_plaintext(self) -> io::Result<impl Read + Send + 'static> {
        Plaintext::new(&self.key, &self.blob, self.sealed.into_reader())
    }
}

/// Whether a blob is a tree that is too large for memory.
pub fn is_large(blob: &PackedBlob) -> bool {
    blob.ty == BlobType::Tree && blob.plain_length() > limits::TREE_IN_MEMORY
}

impl Repository {
    /// A large tree, from the first of its copies that can be read.
    pub fn load_large_tree(&self, index: &Index, id: Id) -> Result<LargeTree> {
        let mut failure = Error::BlobMissing { ty: BlobType::Tree, id };
        for location in index.find(BlobType::Tree, id) {
            match self.put_aside(&location) {
                Ok(tree) => return Ok(tree),
                Err(error) => failure = failure.or_hope(error),
            }
        }
        Err(failure)
    }

    /// Opens a copy of a tree to be read node by node.
    pub(super) fn open_large(&self, location: &Location) -> Result<Nodes<'static>> {
        let plaintext = self.put_aside(location)?.into_plaintext();
        let plaintext = plaintext.map_err(|error| Error::aside_lost(format!("tree {}", location.blob.id), error))?;
        Ok(Nodes::from_source(plaintext).put_aside_in(self.settings.aside.as_deref()))
    }

    /// Spills the sealed form of a tree to disk, and checks that its plaintext has the tree's id.
    /// Reads a damaged tree a second time: the network may be at fault.
    fn put_aside(&self, location: &Location) -> Result<LargeTree> {
        match self.fetch_aside(location) {
            Err(error) if error.is_damage() => self.fetch_aside(location),
            outcome => outcome,
        }
    }

    fn fetch_aside(&self, location: &Location) -> Result<LargeTree> {
        check_envelope(location)?;
        let (id, length) = (location.blob.id, u64::from(location.blob.length));
        let file = File::new(FileType::Pack, location.pack);
        let mut download = self.store.download(file, u64::from(location.blob.offset), length)?;
        let mut aside = Aside::new(self.settings.aside.as_deref());
        let full = |error| Error::aside(format!("tree {id}"), self.settings.aside.as_deref(), error);
        let mut copy = |bytes: &mut [u8]| -> Result<()> {
            download.read(bytes)?;
            aside.write_all(bytes).map_err(full)
        };
        // Nothing is decompressed before it is authenticated.
        let (mut nonce, mut tag, mut piece) = ([0; NONCE], [0; TAG], vec![0; PIECE]);
        copy(&mut nonce)?;
        let (mut pieces, mut left) = (self.key.pieces(&nonce), length - OVERHEAD as u64);
        while left > 0 {
            let part = &mut piece[..usize::try_from(left.min(PIECE as u64)).expect("at most a piece")];
            copy(part)?;
            pieces.pass(part);
            left -= part.len() as u64;
        }
        copy(&mut tag)?;
        pieces.authenticate(&tag).map_err(|error| damaged(location, error.to_string()))?;
        let tree = LargeTree { blob: location.blob, sealed: aside, key: self.key.clone() };
        self.compare_aside(location, &tree.sealed)?;
        Ok(tree)
    }

    /// [`Repository::compare`] with a sealed form that was spilled to disk.
    pub(in crate::repo) fn compare_aside(&self, location: &Location, sealed: &Aside) -> Result<()> {
        self.compare(location, Lost { of: sealed.reader(), id: location.blob.id })
    }

    /// Opens a sealed blob piece by piece, and compares its plaintext with its length and id. If
    /// `sealed` fails with an [`Error`], returns that error.
    pub fn compare(&self, location: &Location, sealed: impl Read) -> Result<()> {
        let plaintext = Plaintext::new(&self.key, &location.blob, sealed);
        let compared = plaintext.and_then(|plaintext| plaintext.compare(&location.blob));
        compared.map_err(|error| error.downcast().unwrap_or_else(|error| damaged(location, error.to_string())))
    }
}

/// The spill file of a tree: a failure to read it is not damage of the tree.
struct Lost<R> {
    of: R,
    id: Id,
}

impl<R: Read> Read for Lost<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let lost = |error| io::Error::other(Error::aside_lost(format!("tree {}", self.id), error));
        self.of.read(out).map_err(lost)
    }
}

/// The plaintext of a blob whose sealed form comes piece by piece.
enum Plaintext<R: Read> {
    Stored(Opened<R>),
    Compressed(Decoder<'static, Opened<R>>),
}

impl<R: Read> Read for Plaintext<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Plaintext::Stored(opened) => opened.read(out),
            Plaintext::Compressed(decoder) => decoder.read(out),
        }
    }
}

impl<R: Read> Plaintext<R> {
    fn new(key: &Key, blob: &PackedBlob, mut sealed: R) -> io::Result<Plaintext<R>> {
        let mut nonce = [0; NONCE];
        sealed.read_exact(&mut nonce)?;
        let left = u64::from(blob.length).saturating_sub(OVERHEAD as u64);
        let opened =
            Opened { sealed, left, pieces: Some(key.pieces(&nonce)), ciphertext: Vec::new(), piece: Vec::new(), at: 0 };
        if blob.uncompressed == 0 {
            return Ok(Plaintext::Stored(opened));
        }
        let mut decoder = Decoder::with_buffer(opened)?;
        decoder.window_log_max(limits::TREE_WINDOW_LOG)?;
        Ok(Plaintext::Compressed(decoder))
    }

    /// Reads all of the plaintext, and compares it with the blob's length and id.
    fn compare(mut self, blob: &PackedBlob) -> io::Result<()> {
        let expected = blob.plain_length();
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            match self.read(&mut piece)? {
                0 => break,
                got => {
                    hash.update(&piece[..got]);
                    length += got as u64;
                }
            }
            if length > expected {
                break;
            }
        }
        if length != expected {
            return Err(io::Error::other(format!("it holds {length} bytes, not {expected}")));
        }
        let opened = match self {
            Plaintext::Stored(opened) => opened,
            Plaintext::Compressed(decoder) => decoder.finish(),
        };
        opened.end()?;
        match Id(hash.finish()) {
            actual if actual == blob.id => Ok(()),
            actual => Err(io::Error::other(format!("its content hashes to {actual}"))),
        }
    }
}

/// A sealed message that is opened while it is read.
struct Opened<R> {
    /// The message after its nonce.
    sealed: R,
    /// Bytes of ciphertext that are left before the tag.
    left: u64,
    /// `None` once the tag has been compared.
    pieces: Option<Pieces>,
    ciphertext: Vec<u8>,
    /// The piece that was opened last; its bytes before `at` have been read.
    piece: Vec<u8>,
    at: usize,
}

impl<R: Read> Opened<R> {
    /// Fails unless all has been read and is authentic.
    fn end(mut self) -> io::Result<()> {
        match self.fill_buf()? {
            [] => Ok(()),
            _ => Err(io::Error::other("data follows its last frame")),
        }
    }
}

impl<R: Read> BufRead for Opened<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.piece.len() {
            return Ok(&self.piece[self.at..]);
        }
        self.piece.clear();
        self.at = 0;
        let length = usize::try_from(self.left.min(PIECE as u64)).expect("at most a piece");
        if length > 0 {
            self.ciphertext.resize(length, 0);
            self.sealed.read_exact(&mut self.ciphertext)?;
            self.left -= length as u64;
            let pieces = self.pieces.as_mut().expect("the tag comes at the end");
            pieces.open(&self.ciphertext, &mut self.piece);
        } else if let Some(pieces) = self.pieces.take() {
            let mut tag = [0; TAG];
            self.sealed.read_exact(&mut tag)?;
            pieces.authenticate(&tag).map_err(|error: SealError| io::Error::other(error.to_string()))?;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(out)?;
        self.consume(got);
        Ok(got)
    }
}
