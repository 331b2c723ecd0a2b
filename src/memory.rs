//! Divides the memory budget of a process: computes the number of threads, buffers and packs that
//! fit.
//!
//! The memory of a process is its memory at rest, the index, and the working set. The working set
//! is sized to fit into the rest of the budget, for any number of cores, files or blobs. If the
//! user has set the budget, an index that leaves too little is spilled to disk, and a budget that
//! is too small even then is an error. Without a set budget the run takes the memory that it needs,
//! because a restore must not fail for lack of a setting.

use crate::host;
use crate::limits;

const MIB: u64 = 1 << 20;

/// The memory and the cores that one process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes for the whole process except key derivation. `None` is [`limits::MEMORY`], or more if
    /// the index, or a pack for each connection to a bucket, needs it.
    pub memory: Option<u64>,
    /// The number of cores to use.
    pub threads: usize,
}

/// The budget is smaller than the memory that the run needs at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a memory budget of {} MiB is too small: at least {} MiB are needed; increase --memory", limit.div_ceil(MIB), needed.div_ceil(MIB))]
pub struct TooLittle {
    pub limit: u64,
    pub needed: u64,
}

/// Memory at rest: the program, its stacks, the network's runtimes, the codecs' tables and the
/// memory that the allocator cannot return. Measured with a budget of 96 MiB, where a backup into a
/// bucket takes 71 MiB and a check that reads all data 81 MiB.
const AT_REST: u64 = 24 * MIB;
/// Minimum reservation for the index, because it grows during a backup; enough for 85,000 blobs.
const INDEX: u64 = 4 * MIB;
/// The smallest limit: the memory of a key derivation.
const LEAST_LIMIT: u64 = 64 * MIB;
/// Smaller limits count as this one: key derivation takes [`LEAST_LIMIT`] and the program's own
/// memory, and ends before the rest of the run begins.
const LEAST_TAKEN: u64 = 80 * MIB;
/// Memory of a thread of a backup: a few chunks, compressed and sealed, and the bytes that their
/// pack has not hashed yet.
const PER_THREAD: u64 = 12 * MIB;
/// Smallest working set: one thread and two slabs of 8 MiB. Packs for a bucket are added to it.
const LEAST: u64 = PER_THREAD + 16 * MIB;
/// Smallest set of packs in flight to a bucket: a data pack, and a small tree pack.
const PACKS: u64 = limits::PACK_SIZE + limits::PACK_EXCESS + limits::PACK_SIZE / 4;
/// Smallest working set without a limit: two threads.
const LEAST_UNLIMITED: u64 = LEAST + PER_THREAD;

/// Smallest portion of a pack that a thread reads at a time, in bytes: a blob of random data.
const LEAST_PORTION: u64 = MIB;
/// Memory of a thread that reads packs, in addition to the sealed and the decompressed portion: one
/// blob during its decompression.
const BESIDE_PORTION: u64 = 2 * MIB;
/// Memory of a walker of a backup: its stack, and the buffer for small files that it keeps.
const PER_WALKER: u64 = 64 << 10;
/// Largest memory of the walkers of a backup and of the small files that they read: 64 walkers and
/// 8 MiB of files. The number of active walkers adapts to the volume, and is small on a local disk.
const WALKERS: u64 = 12 * MIB;
/// Smallest memory of the walkers, which is a part of [`AT_REST`]: 16 walkers and 2 MiB of files.
const WALKERS_LEAST: u64 = WALKERS / 4;

/// The numbers of threads and buffers of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    pub threads: usize,
    /// Readers of large files.
    pub readers: usize,
    pub slabs: usize,
    /// Largest number of threads that stat entries and read small files.
    pub walkers: usize,
    /// Bytes of small files that are read concurrently.
    pub small_files: u64,
}

/// The packs of a backup that are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packs {
    /// Data packs, and tree packs, that may be open or in flight.
    pub data: usize,
    pub trees: usize,
    /// Bytes after which a tree pack is closed.
    pub tree_pack_size: u64,
    /// The memory of all of these packs.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { memory: None, threads: host::cores() }
    }
}

impl Budget {
    /// The bytes for the working set beside an index of `index` bytes and `held` bytes that are
    /// kept for the whole run.
    pub fn left(&self, index: u64, held: u64) -> Result<u64, TooLittle> {
        let taken = AT_REST + index.max(INDEX) + held;
        match self.limit() {
            _ if self.memory.is_some_and(|limit| limit < LEAST_LIMIT) => {
                Err(TooLittle { limit: self.memory.unwrap_or(0), needed: LEAST_LIMIT.max(taken + LEAST) })
            }
            Some(limit) if limit < taken + LEAST => Err(TooLittle { limit, needed: taken + LEAST }),
            Some(limit) => Ok(limit - taken),
            None => Ok(limits::MEMORY.saturating_sub(taken).max(LEAST_UNLIMITED)),
        }
    }

    /// The bytes of an index in memory above which it is spilled to disk; `None` without a limit.
    /// They leave enough for a backup into a bucket.
    pub fn index(&self) -> Option<u64> {
        self.limit().map(|limit| limit.saturating_sub(AT_REST + LEAST + PACKS).max(INDEX))
    }

    fn limit(&self) -> Option<u64> {
        self.memory.map(|limit| limit.max(LEAST_TAKEN))
    }

    /// The number of threads that may compress and seal with `left` bytes.
    pub fn writers(&self, left: u64) -> usize {
        threads(left, PER_THREAD, self.threads)
    }

    /// The packs of a backup that are kept in memory until they are uploaded: a data pack for each
    /// connection, because filling a pack takes a few percent of the time of its upload. At least
    /// two, so that one fills during the upload of the other. Under a limit, data packs take at
    /// most half of `left`.
    pub fn packs(&self, left: u64, pack_size: u64, connections: usize) -> Packs {
        let each = pack_size + limits::PACK_EXCESS;
        let most = connections.max(2);
        let is_plenty = self.memory.is_none() || left >= LEAST + each + pack_size;
        let (trees, tree_pack_size) = if is_plenty { (2, pack_size / 2) } else { (1, pack_size / 4) };
        let of_trees = trees as u64 * tree_pack_size;
        let data = match self.memory {
            Some(_) => count(left.saturating_sub(of_trees) / 2, each).clamp(1, most),
            None => most,
        };
        Packs { data, trees, tree_pack_size, bytes: data as u64 * each + of_trees }
    }

    /// Divides `left` bytes for a backup that reads up to `readers` files concurrently, into slabs
    /// of `slab` bytes.
    pub fn backup(&self, left: u64, readers: usize, slab: u64) -> Backup {
        // Two slabs come first, one to fill and one to process; then threads, then more slabs.
        let threads = self.writers(left - 2 * slab);
        let slabs = count(left - threads as u64 * PER_THREAD, slab).clamp(2, (2 * readers).max(2));
        let walking = match self.memory {
            Some(_) => (left - threads as u64 * PER_THREAD - slabs as u64 * slab).clamp(WALKERS_LEAST, WALKERS),
            None => WALKERS,
        };
        let walkers = count(walking, 3 * PER_WALKER);
        let small_files = walking - walkers as u64 * PER_WALKER;
        // A reader that waits for a slab holds another one.
        Backup { threads, readers: readers.clamp(1, slabs - 1), slabs, walkers, small_files }
    }
}

/// The number of threads that fit into `left` bytes if each takes `each` bytes: at least one, and
/// at most `most`.
pub fn threads(left: u64, each: u64, most: usize) -> usize {
    count(left, each).clamp(1, most.max(1))
}

/// The number of threads, at most `most`, that may read packs concurrently with `left` bytes, and
/// the portion of each. With little memory the portions are reduced before the number of threads,
/// because each thread keeps a connection busy.
pub fn reading(left: u64, most: usize) -> (usize, u64) {
    let threads = threads(left, 2 * LEAST_PORTION + BESIDE_PORTION, most);
    let each = left / threads as u64;
    let portion = each.saturating_sub(BESIDE_PORTION) / 2;
    (threads, portion.clamp(LEAST_PORTION, limits::OPENED_TOGETHER))
}

fn count(bytes: u64, each: u64) -> usize {
    usize::try_from(bytes / each).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packs of a backup into a bucket.
    fn kept(budget: Budget, index: u64, connections: usize) -> Packs {
        budget.packs(budget.left(index, 0).unwrap(), limits::PACK_SIZE, connections)
    }

    #[test]
    fn the_working_set_fits_the_budget_on_any_machine() {
        for memory in [64, 80, 96, 97, 128, 256, 1024].map(|mib| mib * MIB) {
            for threads in [1, 2, 4, 64, 512] {
                for readers in [1, 2, 16, 1000] {
                    let budget = Budget { memory: Some(memory), threads };
                    let kept = kept(budget, 0, 5);
                    for left in [budget.left(0, 0).unwrap(), budget.left(0, kept.bytes).unwrap()] {
                        let parts = budget.backup(left, readers, 8 * MIB);
                        let Backup { threads: used, readers, slabs, walkers, small_files } = parts;
                        let walking = walkers as u64 * PER_WALKER + small_files;
                        let taken = used as u64 * PER_THREAD + slabs as u64 * 8 * MIB + walking - WALKERS_LEAST;
                        assert!(walkers >= 16 && small_files >= 2 * MIB);
                        assert!(taken <= left, "{taken} of {left}: {memory} {threads} {readers}");
                        assert!(used >= 1 && used <= threads && readers >= 1 && readers < slabs);
                    }
                }
            }
        }
    }

    #[test]
    fn an_index_in_memory_leaves_enough_for_a_backup() {
        for memory in [64, 100, 128, 256, 1024, 100_000].map(|mib| mib * MIB) {
            let budget = Budget { memory: Some(memory), threads: 2 };
            let room = budget.index().unwrap();
            assert!(room >= INDEX && budget.left(room, PACKS).is_ok(), "{memory}");
        }
        assert_eq!(Budget { memory: None, threads: 2 }.index(), None);
    }

    #[test]
    fn the_default_budget_keeps_two_cores_busy() {
        let budget = Budget { memory: None, threads: 2 };
        let parts = |readers, slabs| Backup { threads: 2, readers, slabs, walkers: 64, small_files: 8 * MIB };
        let left = budget.left(INDEX, 0).unwrap();
        assert_eq!(budget.backup(left, 2, 8 * MIB), parts(2, 4));
        // Packs for a bucket take the memory of one reader. The size of the index makes no
        // difference.
        for index in [0, INDEX, 100 * MIB] {
            let kept = kept(budget, index, 5);
            assert_eq!(kept.data, 5);
            let left = budget.left(index, kept.bytes).unwrap();
            assert_eq!(budget.backup(left, 2, 8 * MIB), parts(1, 2));
        }
    }

    #[test]
    fn the_number_of_packs_follows_the_connections_within_the_limit() {
        let count = |memory, connections| kept(Budget { memory, threads: 2 }, 0, connections).data;
        assert_eq!([1, 5, 16].map(|connections| count(None, connections)), [2, 5, 16]);
        assert_eq!([64, 96, 128, 256, 512].map(|mib| count(Some(mib * MIB), 16)), [1, 1, 2, 5, 11]);
        assert_eq!(count(Some(1024 * MIB), 5), 5);
    }

    #[test]
    fn many_connections_read_small_portions() {
        let portion = |left: u64, most| reading(left * MIB, most);
        assert_eq!(portion(70, 5), (5, 6 * MIB));
        assert_eq!(portion(1000, 16), (16, 6 * MIB));
        for (left, most) in [(70, 16), (8, 5), (4, 2), (0, 1)] {
            let (threads, portion) = portion(left, most);
            let taken = threads as u64 * (2 * portion + BESIDE_PORTION);
            assert!(taken <= (left * MIB).max(2 * LEAST_PORTION + BESIDE_PORTION), "{left} {most}");
            assert!(threads == most.min((left as usize / 4).max(1)) && portion >= LEAST_PORTION, "{left} {most}");
        }
    }

    #[test]
    fn a_large_index_is_an_error_only_with_a_set_limit() {
        let budget = |memory| Budget { memory, threads: 2 };
        assert_eq!(budget(None).left(1 << 40, 0), Ok(LEAST_UNLIMITED));
        let error = budget(Some(128 * MIB)).left(100 * MIB, 0).unwrap_err();
        assert_eq!(error, TooLittle { limit: 128 * MIB, needed: 152 * MIB });
        assert_eq!(budget(Some(152 * MIB)).left(100 * MIB, 0), Ok(LEAST));
        let error = budget(Some(20 * MIB)).left(0, 0).unwrap_err();
        assert_eq!(error, TooLittle { limit: 20 * MIB, needed: 64 * MIB });
    }
}
