//! What a run may take, and what that means for its parts: how many threads, buffers and packs there are at a time.
//!
//! The process's memory is what it takes at rest, the index, and what passes through: the last is fitted into what the others leave of
//! the budget, whatever the number of cores, files or blobs. If somebody set the budget, an index that leaves too little is put
//! aside, and what leaves too little even so is an error; else the run takes what it needs to work well, because data must come back.

use crate::host;
use crate::limits;

const MIB: u64 = 1 << 20;

/// What one process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes for all of the process but key derivation; `None` for [`limits::MEMORY`], and more where an
    /// index, or a pack for each connection to a bucket, needs it.
    pub memory: Option<u64>,
    /// Cores to keep busy.
    pub threads: usize,
}

/// The budget does not even hold what cannot be made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} MiB of memory are too little here: {} MiB are needed at least; give --memory more", limit.div_ceil(MIB), needed.div_ceil(MIB))]
pub struct TooLittle {
    pub limit: u64,
    pub needed: u64,
}

/// The program, its stacks, the network's runtimes, the codecs' tables and what the allocator cannot
/// give back: measured at 96 MiB, where a backup into a bucket takes 71 and a check that reads all
/// data 81.
const AT_REST: u64 = 24 * MIB;
/// What is provided for an index: a smaller one grows with what is backed up. So much is 85,000 blobs.
const INDEX: u64 = 4 * MIB;
/// The smallest limit: what deriving a key takes.
const LEAST_LIMIT: u64 = 64 * MIB;
/// What a smaller one is taken for: to derive the key takes that and the program's own, and is over
/// before the rest begins.
const LEAST_TAKEN: u64 = 80 * MIB;
/// What a thread of a backup has in its hands: a few chunks, compressed, sealed, and what their pack has not hashed.
const PER_THREAD: u64 = 12 * MIB;
/// What passes through a run can be squeezed into this: one thread and two slabs of 8 MiB; packs for a bucket come on top.
const LEAST: u64 = PER_THREAD + 16 * MIB;
/// Packs on their way into a bucket: one of data, and a small one of trees.
const PACKS: u64 = limits::PACK_SIZE + limits::PACK_EXCESS + limits::PACK_SIZE / 4;
/// The same where nobody set a limit: two threads work side by side.
const LEAST_UNLIMITED: u64 = LEAST + PER_THREAD;

/// The smallest portion of a pack that a thread reads at a time, in bytes: a blob of random data.
const LEAST_PORTION: u64 = MIB;
/// What a thread that reads packs holds beside a portion, sealed and expanded: one blob between the
/// two.
const BESIDE_PORTION: u64 = 2 * MIB;
/// What a walker of a backup has at hand: its stack, and the buffer of a small file that it keeps.
const PER_WALKER: u64 = 64 << 10;
/// What the walkers of a backup and the small files that they read take at most: 64 walkers and
/// 8 MiB of files. They are as many as the volume answers faster with: few on a local disk.
const WALKERS: u64 = 12 * MIB;
/// The same where a limit leaves less; a part of what is at rest. 16 walkers and 2 MiB of files.
const WALKERS_LEAST: u64 = WALKERS / 4;

/// The parts of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    pub threads: usize,
    /// Readers of large files.
    pub readers: usize,
    pub slabs: usize,
    /// The most threads that look at entries and read small files.
    pub walkers: usize,
    /// Bytes of small files that are read at the same time.
    pub small_files: u64,
}

/// The packs of a backup that are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packs {
    /// Packs of data, and of trees, that may be open or on their way.
    pub data: usize,
    pub trees: usize,
    /// Bytes after which one of trees is closed.
    pub tree_pack_size: u64,
    /// What all of them take.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { memory: None, threads: host::cores() }
    }
}

impl Budget {
    /// What is left for what passes through, when an index takes `index` bytes and something else `held` for good.
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

    /// What an index may take in memory before it is put aside; `None`: all that it needs. It leaves enough for a backup into a bucket.
    pub fn index(&self) -> Option<u64> {
        self.limit().map(|limit| limit.saturating_sub(AT_REST + LEAST + PACKS).max(INDEX))
    }

    fn limit(&self) -> Option<u64> {
        self.memory.map(|limit| limit.max(LEAST_TAKEN))
    }

    /// How many threads may compress and seal with `left` for them.
    pub fn writers(&self, left: u64) -> usize {
        threads(left, PER_THREAD, self.threads)
    }

    /// The packs of a backup that are kept in memory until they have arrived. One of data for each
    /// connection: the next one fills in a few percent of the time that one takes to arrive. Two at
    /// least, so that one fills while the other is on its way. Under a limit, as many as half of what
    /// is left holds.
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

    /// A backup that reads `readers` files at a time, into slabs of `slab` bytes, with `left` for it all.
    pub fn backup(&self, left: u64, readers: usize, slab: u64) -> Backup {
        // One slab that is filled and one that is worked on, then threads, then more slabs.
        let threads = self.writers(left - 2 * slab);
        let slabs = count(left - threads as u64 * PER_THREAD, slab).clamp(2, (2 * readers).max(2));
        let walking = match self.memory {
            Some(_) => (left - threads as u64 * PER_THREAD - slabs as u64 * slab).clamp(WALKERS_LEAST, WALKERS),
            None => WALKERS,
        };
        let walkers = count(walking, 3 * PER_WALKER);
        let small_files = walking - walkers as u64 * PER_WALKER;
        // A reader that waits for a slab still holds one.
        Backup { threads, readers: readers.clamp(1, slabs - 1), slabs, walkers, small_files }
    }
}

/// How many threads may work at a time, with `each` bytes in their hands and `left` for all of them; at least one, and at most `most`.
pub fn threads(left: u64, each: u64, most: usize) -> usize {
    count(left, each).clamp(1, most.max(1))
}

/// How many threads may read packs side by side, `most` of them at best, and how large a portion each
/// may have in its hands, with `left` bytes for all of them. With little memory portions are small
/// before threads are few, because each thread keeps a connection busy.
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
    fn what_passes_through_fits_whatever_the_machine() {
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
    fn an_index_that_is_not_put_aside_leaves_enough() {
        for memory in [64, 100, 128, 256, 1024, 100_000].map(|mib| mib * MIB) {
            let budget = Budget { memory: Some(memory), threads: 2 };
            let room = budget.index().unwrap();
            assert!(room >= INDEX && budget.left(room, PACKS).is_ok(), "{memory}");
        }
        assert_eq!(Budget { memory: None, threads: 2 }.index(), None);
    }

    #[test]
    fn two_cores_are_kept_busy_by_default() {
        let budget = Budget { memory: None, threads: 2 };
        let parts = |readers, slabs| Backup { threads: 2, readers, slabs, walkers: 64, small_files: 8 * MIB };
        let left = budget.left(INDEX, 0).unwrap();
        assert_eq!(budget.backup(left, 2, 8 * MIB), parts(2, 4));
        // Also beside packs for a bucket, which take one reader's part, and whatever the index takes.
        for index in [0, INDEX, 100 * MIB] {
            let kept = kept(budget, index, 5);
            assert_eq!(kept.data, 5);
            let left = budget.left(index, kept.bytes).unwrap();
            assert_eq!(budget.backup(left, 2, 8 * MIB), parts(1, 2));
        }
    }

    #[test]
    fn packs_follow_the_connections_as_far_as_a_limit_allows() {
        let count = |memory, connections| kept(Budget { memory, threads: 2 }, 0, connections).data;
        assert_eq!([1, 5, 16].map(|connections| count(None, connections)), [2, 5, 16]);
        assert_eq!([64, 96, 128, 256, 512].map(|mib| count(Some(mib * MIB), 16)), [1, 1, 2, 5, 11]);
        assert_eq!(count(Some(1024 * MIB), 5), 5);
    }

    #[test]
    fn many_connections_are_read_in_small_portions() {
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
    fn a_large_index_is_an_error_only_for_who_set_a_limit() {
        let budget = |memory| Budget { memory, threads: 2 };
        assert_eq!(budget(None).left(1 << 40, 0), Ok(LEAST_UNLIMITED));
        let error = budget(Some(128 * MIB)).left(100 * MIB, 0).unwrap_err();
        assert_eq!(error, TooLittle { limit: 128 * MIB, needed: 152 * MIB });
        assert_eq!(budget(Some(152 * MIB)).left(100 * MIB, 0), Ok(LEAST));
        let error = budget(Some(20 * MIB)).left(0, 0).unwrap_err();
        assert_eq!(error, TooLittle { limit: 20 * MIB, needed: 64 * MIB });
    }
}
