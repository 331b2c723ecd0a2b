use super::*;
use crate::crypto::kdf::KdfError;
use crate::format::{BlobType, FormatError};
use crate::id::Id;
use crate::memory::TooLittle;
use crate::store::File;
use std::io;

/// A list of errors with the reason and exit code each must have. The patterns form an exhaustive
/// `match`, so that a new variant does not compile until it has a row here.
macro_rules! table {
    ($type:ty: $($pattern:pat, $error:expr, $reason:ident, $code:literal;)*) => {{
        fn _every_variant_has_a_row(error: &$type) {
            match error {
                $($pattern => {})*
            }
        }
        let rows: Vec<($type, Reason, u8)> = vec![$(($error, Reason::$reason, $code),)*];
        rows
    }};
}

fn text() -> String {
    "x".into()
}

fn file(ty: FileType) -> File {
    File::new(ty, Id::of(b"x"))
}

fn failure() -> io::Error {
    io::Error::other("x")
}

fn format_error() -> FormatError {
    FormatError::new("tree", "x")
}

fn assert_rows<E: std::fmt::Debug>(rows: Vec<(E, Reason, u8)>, of: impl Fn(E) -> Error) {
    for (error, reason, code) in rows {
        let shown = format!("{error:?}");
        let error = of(error);
        assert_eq!((error.reason(), error.reason().exit_code()), (reason, code), "{shown}");
    }
}

/// Exit codes: those of restic's `doc/075_scripting.rst` (10, 11, 12, 130), and 13 for errors that
/// a retry cannot fix.
#[test]
fn every_error_of_a_repository_has_its_reason() {
    use repo::Error as E;
    let (ty, id, location) = (BlobType::Data, Id::of(b"x"), text);
    let rows = table! { E:
        E::Store(_), E::Store(StoreError::NoBucket { bucket: text(), location: text() }), BucketMissing, 13;
        E::Memory(_), E::Memory(TooLittle { limit: 1, needed: 2 }), TooLittleMemory, 13;
        E::Aside { .. }, E::Aside { directory: "/tmp".into(), source: failure() }, TooLittleMemory, 13;
        E::TreeAside { .. }, E::TreeAside { what: text(), directory: "/tmp".into(), source: failure() }, TooLittleMemory, 13;
        E::TreeLost { .. }, E::TreeLost { what: text(), source: failure() }, InternalError, 1;
        E::NoRepository { .. }, E::NoRepository { location: location() }, RepositoryMissing, 10;
        E::EmptyConfig { .. }, E::EmptyConfig { location: location() }, RepositoryDamaged, 13;
        E::WrongPassword { .. }, E::WrongPassword { location: location(), tried: 1 }, WrongPassword, 12;
        E::NoKeys { .. }, E::NoKeys { location: location() }, NoUsableKey, 12;
        E::Key { .. }, E::Key { file: file(FileType::Key), source: KdfError::Salt(1) }, NoUsableKey, 12;
        E::Refused { .. }, E::Refused { location: location(), reason: text() }, RepositoryRefused, 1;
        E::InitialisedTwice { .. }, E::InitialisedTwice { location: location() }, RepositoryRefused, 1;
        E::Locked { .. }, E::Locked { reason: text() }, RepositoryLocked, 11;
        E::LockLost { .. }, E::LockLost { reason: text() }, LockLost, 1;
        E::WrongHash { .. }, E::WrongHash { file: file(FileType::Index), actual: id }, RepositoryDamaged, 13;
        E::Damaged { .. }, E::Damaged { file: file(FileType::Index), source: format_error() }, RepositoryDamaged, 13;
        E::Unauthentic { .. }, E::Unauthentic { file: file(FileType::Index) }, RepositoryDamaged, 13;
        E::BlobMissing { .. }, E::BlobMissing { ty, id }, RepositoryDamaged, 13;
        E::BlobDamaged { .. }, E::BlobDamaged { ty, id, pack: file(FileType::Pack), why: text() }, RepositoryDamaged, 13;
        E::BlobTooLarge { .. }, E::BlobTooLarge { ty, id, size: 2, max: 1 }, RepositoryUnsupported, 13;
        E::VerifyFailed { .. }, E::VerifyFailed { what: text() }, MachineFaulty, 1;
        E::Unreachable { .. }, E::Unreachable { problems: 1 }, InternalError, 1;
        E::Uninvited { .. }, E::Uninvited { file: file(FileType::Index) }, InternalError, 1;
        E::NotRepacked { .. }, E::NotRepacked { ty, id }, InternalError, 1;
        E::PackSize { .. }, E::PackSize { pack: id, size: 1, expected: 2 }, RepositoryDamaged, 13;
        E::Tree { .. }, E::Tree { id, source: format_error() }, RepositoryDamaged, 13;
        E::NoSuchSnapshot(_), E::NoSuchSnapshot(text()), SnapshotMissing, 13;
        E::NoSuchPath { .. }, E::NoSuchPath { path: text() }, NothingRestored, 13;
        E::Inconsistent { .. }, E::Inconsistent { path: text(), why: text() }, RepositoryDamaged, 13;
        E::Source(_), E::Source(failure()), VolumeUnreadable, 1;
        E::EmptySnapshot, E::EmptySnapshot, VolumeUnreadable, 1;
        E::Stopped, E::Stopped, InternalError, 1;
        E::Panicked, E::Panicked, InternalError, 1;
        E::Thread { .. }, E::Thread { purpose: "x", source: failure() }, InternalError, 1;
        E::Interrupted, E::Interrupted, Interrupted, 130;
    };
    assert_rows(rows, Error::Repo);
}

#[test]
fn every_error_of_a_store_has_its_reason() {
    use StoreError as E;
    let located = || (text(), text());
    let not_found = |ty| E::NotFound { file: file(ty), location: text() };
    let rows = table! { E:
        E::NotFound { .. }, not_found(FileType::Pack), RepositoryDamaged, 13;
        E::AlreadyExists { .. }, E::AlreadyExists { file: File::CONFIG, location: text() }, RepositoryRefused, 1;
        E::Short { .. }, E::Short { file: File::CONFIG, offset: 0, wanted: 2, got: 1 }, RepositoryDamaged, 13;
        E::TooLarge { .. }, E::TooLarge { file: File::CONFIG, size: 2, max: 1 }, RepositoryDamaged, 13;
        E::Aside { .. }, E::Aside { source: std::io::Error::other("gone") }, InternalError, 1;
        E::Location { .. }, E::Location { location: text(), reason: text() }, BadConfiguration, 1;
        E::Option { .. }, E::Option { option: text(), reason: text() }, BadConfiguration, 1;
        E::NoBucket { .. }, E::NoBucket { bucket: text(), location: text() }, BucketMissing, 13;
        E::Denied { .. }, { let (action, location) = located(); E::Denied { action, location, reason: text() } }, StoreFailed, 1;
        E::Interrupted { .. }, { let (action, location) = located(); E::Interrupted { action, location } }, Interrupted, 130;
        E::Failed { .. }, { let (action, location) = located(); E::Failed { action, location, source: text().into() } }, StoreFailed, 1;
    };
    assert_rows(rows, |error| Error::Repo(error.into()));
    for (ty, reason) in [
        (FileType::Config, Reason::RepositoryDamaged),
        (FileType::Key, Reason::RepositoryDamaged),
        (FileType::Lock, Reason::LockLost),
        (FileType::Snapshot, Reason::SnapshotMissing),
        (FileType::Index, Reason::RepositoryDamaged),
    ] {
        assert_eq!(of_store(&not_found(ty)), reason, "{ty:?}");
    }
}

#[test]
fn every_error_of_a_restore_has_its_reason() {
    use restore::Error as E;
    let rows = table! { E:
        E::Repo(_), E::Repo(repo::Error::Stopped), InternalError, 1;
        E::Target { .. }, E::Target { action: "write", path: text(), source: failure() }, TargetFailed, 1;
        E::Full { .. }, E::Full { path: text(), source: failure() }, TargetFull, 13;
        E::TooManyEntries { .. }, E::TooManyEntries { entries: 2, max: 1 }, TooLittleMemory, 13;
        E::PlanTooLarge { .. }, E::PlanTooLarge { max: 1 }, TooLittleMemory, 13;
        E::Changed { .. }, E::Changed { path: text(), why: text() }, StoreFailed, 1;
        E::DeleteEverything, E::DeleteEverything, InternalError, 1;
        E::DeviceTooSmall { .. }, E::DeviceTooSmall { device: text(), has: 1, needs: 2 }, TargetTooSmall, 13;
        E::NotAnImage { .. }, E::NotAnImage { device: text() }, OtherVolumeMode, 13;
        E::NotForDevice { .. }, E::NotForDevice { option: "--delete", device: text() }, TargetFailed, 1;
        E::ImageIncomplete { .. }, image_incomplete(true), RepositoryDamaged, 13;
        E::ImageUnusable { .. }, E::ImageUnusable { path: text(), why: text(), device: text() }, RepositoryDamaged, 13;
        E::NotAsWritten { .. }, E::NotAsWritten { device: text(), why: text() }, TargetFailed, 1;
        E::RootDamaged { .. }, E::RootDamaged { why: text() }, RepositoryDamaged, 13;
        E::NotRestored { .. }, E::NotRestored { path: text() }, NothingRestored, 13;
        E::Unreached { .. }, E::Unreached { why: text() }, StoreFailed, 1;
        E::NothingTaken { .. }, E::NothingTaken { target: text(), entries: 1, why: text() }, TargetFailed, 1;
        E::NothingUsable { .. }, E::NothingUsable { entries: 1 }, RepositoryDamaged, 13;
        E::NotOnDisk { .. }, E::NotOnDisk { path: text(), source: failure() }, TargetFailed, 1;
        E::Panicked { .. }, E::Panicked { during: "fetching", message: text() }, InternalError, 1;
        E::NoTarget { .. }, E::NoTarget { path: text() }, VolumeMissing, 13;
    };
    assert_rows(rows, Error::Restore);
    // The same variants also cover a store that does not answer, and a full volume.
    assert_eq!(Error::Restore(image_incomplete(false)).reason(), Reason::StoreFailed);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        let full = E::NotOnDisk { path: text(), source: kind.into() };
        assert_eq!(Error::Restore(full).reason(), Reason::TargetFull);
    }
}

fn image_incomplete(damaged: bool) -> restore::Error {
    restore::Error::ImageIncomplete { device: text(), lost: 1, size: 2, pieces: 1, why: text(), damaged }
}

#[test]
fn every_error_of_a_mover_has_its_reason() {
    type E = Error;
    let repository = text;
    let rows = table! { E:
        E::Repo(_), E::Repo(repo::Error::Stopped), InternalError, 1;
        E::Restore(_), E::Restore(restore::Error::DeleteEverything), InternalError, 1;
        E::NoVolume { .. }, E::NoVolume { path: text() }, VolumeMissing, 13;
        E::NoSuchBackup { .. }, E::NoSuchBackup { repository: repository(), tags: text() }, SnapshotMissing, 13;
        E::SeveralBackups { .. }, E::SeveralBackups { repository: repository(), tags: text(), count: 2, ids: text() }, SnapshotAmbiguous, 13;
        E::OtherMode { .. }, E::OtherMode { snapshot: text(), has: VolumeMode::Block, wants: VolumeMode::Filesystem }, OtherVolumeMode, 13;
        E::NothingRestored { .. }, E::NothingRestored { snapshot: text() }, NothingRestored, 13;
        E::NotAbsent { .. }, E::NotAbsent { repository: repository() }, RepositoryDamaged, 13;
    };
    assert_rows(rows, |error| error);
}
