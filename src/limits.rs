//! The limits of sizes, counts and memory, each with its reason.

/// Default memory budget of a process, in bytes, excluding key derivation. The process takes more
/// if the index, or a pack for each connection to a bucket, needs it.
pub const MEMORY: u64 = 128 << 20;

/// Memory that one key derivation may take, in bytes. rustic's keys need 128 MiB (N=2^17, r=8); a
/// key file that asks for more than twice that is hostile or a mistake.
pub const KDF_MEMORY: u64 = 256 << 20;
/// Largest memory of one part of a key derivation for two parts to be computed concurrently, in
/// bytes. Parts of our keys and of restic's need 32 MiB.
pub const KDF_BESIDE: u64 = 40 << 20;

/// Key files tried per opening; restic's own limit.
pub const KEYS_TRIED: usize = 20;

/// Largest config, key or lock file: a few hundred bytes in practice.
pub const SMALL_FILE: u64 = 1 << 20;

/// Largest snapshot file. The bound is generous because snapshots list paths, tags and excludes.
pub const SNAPSHOT_FILE: u64 = 16 << 20;

/// Largest index file, and largest plaintext of one. restic aims for 8 MiB, and calls an index of
/// more than 459,199 blobs (39 bytes each, compressed) oversized; its plain JSON has about 70 MiB.
pub const INDEX_FILE: u64 = 128 << 20;

/// Largest plaintext of a data blob that is read. restic and rustic cut at 8 MiB; larger blobs
/// occur because rustic's chunk sizes can be configured.
pub const DATA_BLOB: u64 = 64 << 20;

/// Largest plaintext of a tree blob that is held in memory as a whole, by `cat` and by commands
/// that copy blobs: a directory of about two million entries, or one file of 6 TiB. Commands that
/// read a tree node by node hold at most one field of this size, and not the content list of a
/// file; for them, trees are bounded only by the format's 4 GiB.
pub const TREE_BLOB: u64 = 1 << 30;
/// Largest plaintext of a tree that is read as a whole, in bytes: about six thousand entries. A
/// larger tree is spilled to disk, and read node by node.
pub const TREE_IN_MEMORY: u64 = 2 << 20;
/// Largest zstd window of a tree that is decompressed in pieces, as a power of two of bytes: zstd's
/// own bound, which its highest level needs. Each frame declares its window, and only that memory
/// is taken: 512 KiB for our frames and restic's.
pub const TREE_WINDOW_LOG: u32 = 27;

/// Target size of packs, in bytes; restic's default. A pack is closed when it has reached this
/// size, so it may be larger by the chunks that are stored together.
pub const PACK_SIZE: u64 = 16 << 20;
/// The pack sizes restic allows.
pub const PACK_SIZES: std::ops::RangeInclusive<u64> = 4 << 20..=128 << 20;
/// Bytes by which a pack exceeds its target size: 2 MiB on average with random data, whose chunks
/// are large, and seldom more than this.
pub const PACK_EXCESS: u64 = 4 << 20;

/// Number of blobs, and age in seconds, at which a running backup saves an index file; restic's
/// rules.
pub const INDEX_BLOBS: usize = 50_000;
pub const INDEX_AGE_SECONDS: u64 = 600;

/// Files in the queue of the readers: enough for the uneven pace of the walk, and few enough that
/// their nodes take little memory.
pub const FILE_QUEUE: usize = 512;

/// Longest path of one system call, in bytes: Linux's PATH_MAX without its final zero byte. A
/// longer path is resolved in several steps.
pub const PATH: usize = 4095;

/// Longest path below a restore's target, in bytes: 4,096 names of the 255 bytes that Linux takes.
/// Opening an entry takes time in proportion to its depth.
pub const RESTORE_PATH: usize = 1 << 20;

/// Bytes that the plan of a restore may take, in memory and in spill files: about ten million files
/// of one blob each, or one file of 35 TiB.
pub const RESTORE_PLAN: u64 = 1 << 30;

/// Number of repeated trees after which a restore counts all entries before it continues to plan.
/// Equal and empty directories are common, but a hostile snapshot can repeat trees endlessly.
pub const REPEATED_TREES: u64 = 10_000;

/// Largest gap, in bytes, that a restore reads and discards to coalesce two requests.
pub const RESTORE_GAP: u64 = 1 << 20;

/// Bytes of a buffer that are kept for its next use. Nearly all chunks fit. The memory of larger
/// ones is freed, because each thread has one or more buffers.
pub const KEPT_BUFFER: usize = 4 << 20;

/// Largest memory that is reserved at once for a declared size, in bytes, so that a false size in
/// an index or a frame costs no more than this.
pub const RESERVED: u64 = 16 << 20;

/// Bytes of a pack, and of plaintext, that a thread of a restore or check processes at a time,
/// unless one blob is larger. Hashes are computed in pairs; with fewer blobs, more of them have no
/// partner: with 4 MiB, half of all bytes.
pub const OPENED_TOGETHER: u64 = 6 << 20;
/// Largest number of blobs in these bytes, because the bookkeeping of a tiny blob is larger than
/// the blob.
pub const OPENED_BLOBS: usize = 4096;

/// Consecutive final errors of the store that end a restore or a survey. The store is then
/// considered unreachable, and each further blob or repository would wait for all retries again.
pub const STORE_ERRORS: u32 = 4;

/// Files that a restore keeps open for further blobs.
pub const RESTORE_OPEN_FILES: usize = 128;

/// Directories of the target that a restore keeps open. With the files, the tasks (three
/// descriptors each at most) and the connections to the store, that stays below the 1,024
/// descriptors that a process has by default.
pub const RESTORE_OPEN_DIRS: usize = 128;

/// Largest number of tasks of a restore in flight on the target.
pub const RESTORE_TASKS: usize = 64;

/// Tasks of a restore that are queued for the target, and the bytes that they and those in flight
/// hold: 64 files of 128 KiB.
pub const RESTORE_QUEUE: usize = 1024;
pub const RESTORE_QUEUED_BYTES: usize = 8 << 20;

/// Largest piece of a file that is queued, in bytes. A larger piece is written by the thread that
/// has read it: two such writes at a time reach 400 MB/s if each takes 5 ms.
pub const RESTORE_QUEUED_PIECE: usize = 1 << 20;
