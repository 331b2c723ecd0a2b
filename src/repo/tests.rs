//! Tests of sealing and of documents with faulty memory, and a new repository for other tests.

use super::writer::{WriteMode, Writer};
use super::{Error, Index, InitOptions, Password, Repository, Settings, init};
use crate::format::{BlobType, Version};
use crate::id::Id;
use crate::store::FileType;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// The bit that is flipped in the next sealed blob of this thread.
    static FLIP: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Flips a bit, as faulty memory may do between sealing and upload.
pub(super) fn tamper(sealed: &mut [u8]) {
    if let Some(bit) = FLIP.take() {
        let bit = bit % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
    }
}

pub(crate) fn new_repository(settings: Settings) -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let location = dir.path().join("repo").to_str().unwrap().parse().unwrap();
    let store = crate::store::open(&location, &crate::store::Options::default()).unwrap();
    let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
    let repo = init(store, &Password::new("password"), options, settings).unwrap();
    (dir, repo)
}

#[test]
fn a_bit_flipped_between_sealing_and_upload_is_detected() {
    let text = b"compressible text, compressible text, compressible text, compressible text".as_slice();
    let noise = crate::clock::random_bytes::<200>();
    for plaintext in [text, &noise] {
        let id = Id::of(plaintext);
        let (_dir, repo) = new_repository(Settings::default());
        let mut out = b"kept".to_vec();
        for bit in 0..plaintext.len() * 8 {
            FLIP.set(Some(bit));
            let outcome = repo.seal_blob(BlobType::Data, id, plaintext, &mut out);
            assert!(matches!(outcome, Err(Error::VerifyFailed { .. })), "bit {bit}");
            assert_eq!(out, b"kept");
        }
        assert!(repo.seal_blob(BlobType::Data, id, plaintext, &mut out).is_ok());
        let (_dir, trusting) = new_repository(Settings { extra_verify: false, ..Settings::default() });
        FLIP.set(Some(99));
        assert!(trusting.seal_blob(BlobType::Data, id, plaintext, &mut out).is_ok(), "the blob is not verified");
    }
}

#[test]
fn a_document_with_a_flipped_bit_is_not_uploaded() {
    let (_dir, repo) = new_repository(Settings::default());
    FLIP.set(Some(333));
    let json = || b"{\"packs\":[]}".to_vec();
    assert!(matches!(repo.save_file(FileType::Index, json()), Err(Error::VerifyFailed { .. })));
    assert!(repo.store().list(FileType::Index).unwrap().is_empty());
    repo.save_file(FileType::Index, json()).unwrap();
}

#[test]
fn a_flipped_bit_stops_the_writer_and_uploads_nothing() {
    let (_dir, repo) = new_repository(Settings::default());
    let repo = Arc::new(repo);
    let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
    FLIP.set(Some(333));
    assert!(matches!(writer.store_chunks(&[b"x"]), Err(Error::VerifyFailed { .. })));
    writer.finish().unwrap();
    assert!(repo.store().list(FileType::Pack).unwrap().is_empty());
}
