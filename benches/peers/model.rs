//! A lower bound for the time of a run: every byte is copied, hashed, compressed and sealed once,
//! at the measured rate of one core, spread over the machine's cores.
//!
//! Rates per byte are those of `benches/stages.rs` and `benches/chunker` on the machine of
//! `docs/internals/performance.md`. The rates of zstd were measured on the data itself, at the
//! quick level where that level pays. A medium counts with the kernel's time to copy from and to
//! it. The cost of a file beside its bytes is an estimate from its system calls. Waiting,
//! allocation and idle cores count as nothing, because they are avoidable.

use crate::data::Data;
use crate::link::Profile;
use crate::work::Work;

/// Nanoseconds per byte of one core.
const READ: f64 = 0.17;
const SEARCH: f64 = 0.10;
const HASH: f64 = 0.31;
const SEAL: f64 = 0.15;
const OPEN: f64 = 0.15;
/// With the first touch of a page of memory.
const WRITE: f64 = 0.35;
/// To open, stat, read and close a file; to stat one; to make one with its metadata. Microseconds
/// of one core.
const READ_FILE: f64 = 11.0;
const LOOK: f64 = 6.0;
const MAKE_FILE: f64 = 45.0;
/// To expand, parse and store the 180 bytes of a blob in an index: an estimate, in nanoseconds of
/// one core.
const KNOWN_BLOB: f64 = 300.0;
/// Key derivation, on two cores.
const START: f64 = 0.10;

/// The size and the compressibility of a volume.
struct Volume {
    bytes: f64,
    /// Those of `bytes` that are neither in holes nor zero.
    content: f64,
    files: f64,
    /// Nanoseconds per byte.
    compress: f64,
    expand: f64,
    /// Bytes stored for each byte of content.
    stored: f64,
}

fn volume(data: Data) -> Volume {
    const GIB: f64 = (1u64 << 30) as f64;
    let volume =
        |bytes, content, files, compress, expand, stored| Volume { bytes, content, files, compress, expand, stored };
    match data {
        Data::Random => volume(4.0 * GIB, 4.0 * GIB, 1.0, 0.17, 0.04, 1.0),
        Data::VmImage | Data::VmImageChanged => volume(4.0 * GIB, 3.5 * GIB, 1.0, 2.3, 0.46, 0.47),
        Data::SmallFiles => volume(3.9 * GIB, 3.9 * GIB, 172_000.0, 3.4, 0.85, 0.44),
        Data::TinyFiles => volume(0.02 * GIB, 0.02 * GIB, 300_000.0, 0.17, 0.04, 1.3),
        Data::Sparse => volume(0.49 * GIB, 0.49 * GIB, 1.0, 2.3, 0.46, 0.47),
        Data::Text => volume(GIB, GIB, 1.0, 3.6, 0.75, 0.43),
        Data::Zeros => volume(4.0 * GIB, 0.0, 1.0, 0.0, 0.0, 0.0),
        Data::LargeIndex => volume(0.001 * GIB, 0.001 * GIB, 1.0, 0.17, 0.04, 1.0),
        Data::LessRandom => volume(0.75 * GIB, 0.75 * GIB, 1.0, 0.17, 0.04, 1.0),
        Data::LessVmImage => volume(GIB, 0.86 * GIB, 1.0, 2.3, 0.46, 0.47),
        Data::Sources => volume(0.31 * GIB, 0.31 * GIB, 32_000.0, 3.4, 0.85, 0.3),
        Data::FewFiles => volume(0.1 * GIB, 0.1 * GIB, 4_242.0, 3.4, 0.85, 0.44),
    }
}

/// Seconds on this many cores.
pub fn seconds(data: Data, work: Work, cores: usize) -> f64 {
    let Volume { bytes, content, files, compress, expand, stored } = volume(data);
    let known = bytes * (READ + SEARCH) + content * HASH;
    let new = content * (compress + expand + stored * (SEAL + OPEN + HASH + WRITE));
    let opened = content * (expand + HASH + stored * (READ + OPEN));
    let nanoseconds = match work {
        Work::Backup => known + new + files * 1e3 * READ_FILE + data.known_blobs() as f64 * KNOWN_BLOB,
        // Nearly every chunk has a page that changed.
        Work::Changed => known + new,
        Work::Touched => known,
        Work::Unchanged => files * 1e3 * LOOK,
        Work::Check => opened + content * stored * HASH,
        Work::Restore | Work::ColdRestore => opened + content * WRITE + files * 1e3 * MAKE_FILE,
        Work::Prune | Work::Snapshots => 0.0,
    };
    START + nanoseconds / 1e9 / cores as f64
}

/// The sequential round trips that a work needs. To open the repository takes three: the
/// connection, the config and the key. The lock, which `snapshots` does not take, needs three: it
/// is written, looked up and finally removed. To read takes two: a listing and the listed files. A
/// backup also writes an index file and the snapshot.
fn round_trips(work: Work) -> f64 {
    let (open, lock, read, write) = (3.0, 3.0, 2.0, 2.0);
    match work {
        Work::Snapshots => open + read,
        Work::Check | Work::Prune => open + lock + read + 1.0,
        Work::Restore | Work::ColdRestore => open + lock + read + 2.0,
        Work::Backup | Work::Unchanged | Work::Touched | Work::Changed => open + lock + read + write,
    }
}

/// Seconds behind a link: the time of the transfer or that of the processors, whichever is longer,
/// plus the round trips.
pub fn link_seconds(data: Data, work: Work, cores: usize, link: (Profile, usize)) -> f64 {
    let (Profile { round_trip, each, shared, .. }, connections) = link;
    let Volume { content, stored, .. } = volume(data);
    let bytes = match work {
        Work::Unchanged | Work::Touched | Work::Prune | Work::Snapshots => 0.0,
        _ => content * stored,
    };
    let link = bytes / shared.min(each * connections as f64);
    link.max(seconds(data, work, cores)) + round_trips(work) * round_trip.as_secs_f64()
}
