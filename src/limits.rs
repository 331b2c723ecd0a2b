//! Every bound in one place, each with its reason. What exceeds one is refused by name.

/// Memory that a process takes unless told otherwise, in bytes: key derivation apart, and more where
/// an index, or a pack for each connection to a bucket, needs it.
pub const MEMORY: u64 = 128 << 20;

/// Memory one key derivation may take, in bytes. rustic's keys need 128 MiB (N=2^17, r=8); a key file that asks for more than
/// twice that is hostile or a mistake.
pub const KDF_MEMORY: u64 = 256 << 20;
/// The most a part of it may take for two to be computed side by side, in bytes: those of our keys and of restic's need 32 MiB.
pub const KDF_BESIDE: u64 = 40 << 20;

/// Key files tried per opening; restic's own limit.
pub const KEYS_TRIED: usize = 20;

/// Largest config, key or lock file: a few hundred bytes in practice.
pub const SMALL_FILE: u64 = 1 << 20;

/// Largest snapshot file. Snapshots list paths, tags and excludes, so a generous bound.
pub const SNAPSHOT_FILE: u64 = 16 << 20;

/// Largest index file, and largest plaintext of one. restic's design aims for 8 MiB, and calls an index of more than 459,199 blobs
/// (39 bytes each, compressed) oversized; plain JSON of that many blobs has about 70 MiB.
pub const INDEX_FILE: u64 = 128 << 20;

/// Largest plaintext of a data blob that is read. restic and rustic cut at 8 MiB; rustic's chunk sizes can be configured, so that larger ones occur.
pub const DATA_BLOB: u64 = 64 << 20;

/// Largest plaintext of a tree blob that is held as a whole, by `cat` and by what copies blobs: a directory of about two million
/// entries, or one file of 6 TiB. Who reads nodes one by one holds one field of
/// so many bytes at most, and none of a file's content; trees have no bound but the format's 4 GiB.
pub const TREE_BLOB: u64 = 1 << 30;
/// Plaintext of a tree up to which it is read as a whole, in bytes: about six thousand entries. A larger one is put aside, and read
/// node by node.
pub const TREE_IN_MEMORY: u64 = 2 << 20;
/// The most that a frame of a tree may refer back when it is read piece by piece, as a power of two of bytes: zstd's own bound, which
/// its highest level needs. The memory for it is taken as a frame asks for it: 512 KiB for ours and restic's.
pub const TREE_WINDOW_LOG: u32 = 27;

/// Pack size aimed at, in bytes; restic's default. A pack closes when it has reached this, so it may be larger by the chunks
/// that are stored together.
pub const PACK_SIZE: u64 = 16 << 20;
/// The pack sizes restic allows.
pub const PACK_SIZES: std::ops::RangeInclusive<u64> = 4 << 20..=128 << 20;
/// How much larger a pack gets, in bytes: 2 MiB on average with random data, whose chunks are large, and seldom more than this.
pub const PACK_EXCESS: u64 = 4 << 20;

/// Blobs per index file, and age in seconds, at which it is saved while a backup runs; restic's rules.
pub const INDEX_BLOBS: usize = 50_000;
pub const INDEX_AGE_SECONDS: u64 = 600;

/// Files waiting to be read. Enough to hide the walk's uneven pace, few enough that their nodes take no memory to speak of.
pub const FILE_QUEUE: usize = 512;

/// Longest path of one system call, in bytes: Linux's PATH_MAX without its final zero byte. A
/// longer one is resolved in stretches.
pub const PATH: usize = 4095;

/// Longest path below a restore's target, in bytes: 4,096 names of the 255 bytes that Linux takes.
/// Opening an entry takes time in proportion to its depth.
pub const RESTORE_PATH: usize = 1 << 20;

/// Bytes that the plan of a restore may take, in memory and put aside: about ten million files of one blob
/// each, or one file of 35 TiB.
pub const RESTORE_PLAN: u64 = 1 << 30;

/// Directories with a tree that came before, after which a restore counts all entries before it plans on. Copies of
/// directories and empty ones are common; endless repetition is not.
pub const REPEATED_TREES: u64 = 10_000;

/// The most unwanted bytes that a restore reads rather than ask twice.
pub const RESTORE_GAP: u64 = 1 << 20;

/// Bytes of a buffer that are kept for its next use. Nearly all chunks fit; what a larger one needed is given back, for there is one
/// buffer and more for each thread.
pub const KEPT_BUFFER: usize = 4 << 20;

/// Memory that is reserved at once on the word of an index, in bytes; a false word costs no more than that.
pub const RESERVED: u64 = 16 << 20;

/// Bytes of a pack, and of plaintext, that a restore or check has in hand at a time, unless one blob has more. Hashes are computed two at
/// a time, and the more blobs there are the less is left for one alone: with 4 MiB it was half of all bytes.
pub const OPENED_TOGETHER: u64 = 6 << 20;
/// The most blobs of these bytes: what is kept of each is more than a tiny one has.
pub const OPENED_BLOBS: usize = 4096;

/// Final errors of the store in a row, with no success between them, that end a restore or a survey: it is gone, and every further
/// blob or repository would wait out all retries again.
pub const STORE_ERRORS: u32 = 4;

/// Files that a restore keeps open for further blobs.
pub const RESTORE_OPEN_FILES: usize = 128;

/// Directories of the target that a restore keeps open. With the files, the tasks (three
/// descriptors each at most) and the connections to the store, that stays below the 1,024
/// descriptors that a process has by default.
pub const RESTORE_OPEN_DIRS: usize = 128;

/// The most tasks of a restore that are in flight on the target.
pub const RESTORE_TASKS: usize = 64;

/// Tasks of a restore that are queued for the target, and the bytes that they and those in flight
/// hold: 64 files of 128 KiB.
pub const RESTORE_QUEUE: usize = 1024;
pub const RESTORE_QUEUED_BYTES: usize = 8 << 20;

/// Bytes from which a piece of a file is not queued, but written by the thread that has read it:
/// 2 of them at a time are 400 MB/s if each takes 5 ms.
pub const RESTORE_QUEUED_PIECE: usize = 1 << 20;
