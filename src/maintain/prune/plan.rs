//! Decides what happens to each pack: a pure function of the index, of the blobs that the snapshots
//! need, and of the files that exist.
//!
//! The rules are restic's. Of the copies of a blob, the copy in the pack with the largest share of
//! needed data is kept. A pack that an interrupted prune has written is needed completely, so the
//! next prune continues from there. A pack without kept blobs is removed. A pack that also has
//! other blobs is repacked, the most wasteful packs first, until the waste is within the limit.
//! Packs with both data and trees, packs of uncompressed trees, and small packs if there are many,
//! are repacked, too.

use crate::format::pack;
use crate::format::{BlobType, Version};
use crate::id::Id;
use crate::maintain::blobs::BlobSet;
use crate::repo::Index;
use crate::repo::index::Placed;
use serde::Serialize;
use std::collections::HashMap;

/// The limits of a prune.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub max_unused: Limit,
    /// Bytes of packs that may be repacked.
    pub max_repack: Option<u64>,
    /// Packs with fewer bytes count as small; by default, packs much smaller than nearly all
    /// others.
    pub small: Option<u64>,
    /// Repack only packs of trees.
    pub cacheable_only: bool,
    /// Also repack data that is not compressed.
    pub uncompressed: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_unused: Limit::Percent(5.0),
            max_repack: None,
            small: None,
            cacheable_only: false,
            uncompressed: false,
        }
    }
}

/// The amount of unused data that may stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Unlimited,
    Bytes(u64),
    /// A share of all the data that stays; below 100.
    Percent(f64),
}

impl Limit {
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a share")]
    fn bytes(self, used: u64) -> u64 {
        match self {
            Limit::Unlimited => u64::MAX,
            Limit::Bytes(bytes) => bytes,
            Limit::Percent(percent) => (percent / (100.0 - percent) * used as f64) as u64,
        }
    }
}

/// Small packs are repacked if there are at least this many. Fewer are not worth it, and every
/// prune would move the last small pack again.
const SMALL_PACKS: usize = 10;
/// restic's smallest pack size. A pack of at least four fifths of it is not small.
const SMALLEST_TARGET: u64 = 4 << 20;

/// A number of blobs and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub blobs: u64,
    /// Bytes of their sealed forms.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u32) {
        self.blobs += 1;
        self.bytes += u64::from(bytes);
    }
}

/// A pack that the index lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    pub id: Id,
    /// Bytes of its file; `None` if the file does not exist.
    pub listed: Option<u64>,
    /// The blobs that are kept.
    pub used: Amount,
    pub unused: Amount,
    /// Bytes of its header, with its envelope and its length field.
    pub header: u64,
    pub data: bool,
    pub trees: bool,
    pub uncompressed: bool,
}

impl Pack {
    /// The size that its file should have according to the index.
    pub fn expected(&self) -> u64 {
        self.used.bytes + self.unused.bytes + self.header
    }

    fn is_of_data(&self) -> bool {
        self.data && !self.trees
    }
}

/// The decision about a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// Its kept blobs are written to new packs, and it is removed.
    Repack,
    /// The pack is removed.
    Remove,
    /// Its file does not exist, and nothing needs it; it is removed from the index.
    Forget,
}

/// The decisions about all packs, and their statistics.
#[derive(Debug)]
pub struct Plan {
    /// The fate of each pack, by its position in the index.
    pub fates: Vec<Fate>,
    /// Pack files that the index does not list.
    pub unindexed: Vec<Id>,
    pub stats: Stats,
}

/// The reason why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A pack has needed blobs, but its file does not exist.
    Missing(Id),
    /// A pack has needed blobs, but its file has the wrong size.
    Size { pack: Id, size: u64, expected: u64 },
}

/// The statistics of a prune. Names and meanings are restic's; bytes are those of sealed blobs, and
/// of whole files that the index does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub blobs: Blobs,
    pub bytes: Bytes,
    pub packfiles: Packs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blobs {
    pub used: u64,
    /// Further copies of used blobs.
    pub duplicate: u64,
    pub unused: u64,
    pub total: u64,
    /// Blobs in packs that are repacked, and those of them that are dropped.
    pub repack: u64,
    pub repack_remove: u64,
    /// Blobs in packs that are removed without repacking.
    pub remove: u64,
    pub remove_total: u64,
    pub remaining: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    pub used: u64,
    pub duplicate: u64,
    pub unused: u64,
    pub unreferenced: u64,
    /// Bytes of packs that contain uncompressed blobs after the prune.
    pub uncompressed: u64,
    pub total: u64,
    pub repack: u64,
    pub repack_remove: u64,
    pub remove: u64,
    pub remove_total: u64,
    pub remaining: u64,
    pub remaining_unused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packs {
    pub used: u64,
    pub unused: u64,
    pub partly_used: u64,
    pub unreferenced: u64,
    pub total: u64,
    pub keep: u64,
    pub repack: u64,
    pub remove: u64,
    pub remove_total: u64,
}

/// The packs of an index, and which copy of each blob is kept.
pub struct Weighed<'i> {
    pub packs: Vec<Pack>,
    pub kept: BlobSet<'i>,
    /// Copies that are not kept, because another copy of the blob is.
    pub duplicate: Amount,
}

/// Chooses which copy of each needed blob is kept, and sums up the packs accordingly.
pub fn weigh<'i>(index: &'i Index, needed: &BlobSet<'i>, listed: &HashMap<Id, u64>) -> Weighed<'i> {
    let empty = Amount::default();
    let header = pack::header_size([]);
    let new = |&id: &Id| Pack {
        id,
        listed: listed.get(&id).copied(),
        used: empty,
        unused: empty,
        header,
        data: false,
        trees: false,
        uncompressed: false,
    };
    let mut packs: Vec<Pack> = index.packs().iter().map(new).collect();
    // First, all copies of needed blobs count as kept.
    for Placed { first, pack, blob, .. } in index.walk() {
        let pack = &mut packs[pack];
        if needed.has(blob.ty, first) { &mut pack.used } else { &mut pack.unused }.add(blob.length);
        pack.header += pack::header_size([&blob]) - header;
        *if blob.ty == BlobType::Data { &mut pack.data } else { &mut pack.trees } = true;
        pack.uncompressed |= blob.uncompressed == 0;
    }
    let rank = |pack: &Pack| {
        let sound = pack.listed == Some(pack.expected());
        // Shares are in units of 2^-32, so that rounding does not matter.
        let share = (u128::from(pack.used.bytes) << 32) / u128::from(pack.expected().max(1));
        (sound, share, pack.used.bytes, pack.id)
    };
    let ranks: Vec<_> = packs.iter().map(rank).collect();
    let kept = BlobSet::new(index);
    let mut duplicate = empty;
    // The best copy so far of the current blob.
    let mut best: Option<Placed> = None;
    let keep = |best: Option<Placed>| {
        if let Some(copy) = best {
            kept.insert_at(copy.blob.ty, copy.position);
        }
    };
    for copy in index.walk().filter(|copy| needed.has(copy.blob.ty, copy.first)) {
        let same = best.filter(|best| (best.blob.ty, best.first) == (copy.blob.ty, copy.first));
        let Some(other) = same else {
            keep(best.replace(copy));
            continue;
        };
        let (better, worse) = if ranks[copy.pack] >= ranks[other.pack] { (copy, other) } else { (other, copy) };
        best = Some(better);
        let (pack, length) = (&mut packs[worse.pack], worse.blob.length);
        pack.used.blobs -= 1;
        pack.used.bytes -= u64::from(length);
        pack.unused.add(length);
        duplicate.add(length);
    }
    keep(best);
    Weighed { packs, kept, duplicate }
}

/// Decides about every pack of a repository of this version.
pub fn decide(
    packs: &[Pack],
    duplicate: Amount,
    unindexed: &[(Id, u64)],
    options: &Options,
    version: Version,
) -> Result<Plan, Vec<Fault>> {
    let faults: Vec<Fault> = packs.iter().filter(|pack| pack.used.blobs > 0).filter_map(fault).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let small = options.small.unwrap_or_else(|| usual_small(packs));
    let must_compress =
        |pack: &Pack| can_compress(version) && pack.uncompressed && (!pack.is_of_data() || options.uncompressed);
    let is_whole = |pack: &Pack| pack.unused.blobs == 0 && !(pack.data && pack.trees) && !must_compress(pack);
    let mut fates = vec![Fate::Keep; packs.len()];
    let (mut candidates, mut small_candidates) = (Vec::new(), Vec::new());
    for (number, pack) in packs.iter().enumerate() {
        match pack.listed {
            None => fates[number] = Fate::Forget,
            Some(_) if pack.used.blobs == 0 => fates[number] = Fate::Remove,
            Some(_) if options.cacheable_only && pack.is_of_data() => {}
            Some(size) if is_whole(pack) && size >= small => {}
            Some(_) if is_whole(pack) => small_candidates.push(number),
            Some(_) => candidates.push(number),
        }
    }
    if small_candidates.len() >= SMALL_PACKS {
        candidates.append(&mut small_candidates);
    }
    // Trees first, then small packs, then the most wasteful packs: unused by used bytes, without a
    // division.
    candidates.sort_by(|&a, &b| {
        let (a, b) = (&packs[a], &packs[b]);
        let key = |pack: &Pack| (pack.is_of_data(), pack.expected() >= small);
        let waste =
            |one: &Pack, other: &Pack| u128::from(one.unused.bytes) * u128::from(other.used.bytes + other.header);
        key(a).cmp(&key(b)).then_with(|| waste(b, a).cmp(&waste(a, b))).then_with(|| a.id.cmp(&b.id))
    });
    let sum = |amount: fn(&Pack) -> u64| packs.iter().map(amount).sum::<u64>();
    let removed = |fates: &[Fate]| {
        let goes = |(_, fate): &(&Pack, &Fate)| matches!(fate, Fate::Remove | Fate::Forget);
        packs.iter().zip(fates).filter(goes).map(|(pack, _)| pack.unused.bytes).sum::<u64>()
    };
    let tolerated = options.max_unused.bytes(sum(|pack| pack.used.bytes));
    let mut remaining_unused = sum(|pack| pack.unused.bytes) - removed(&fates);
    let mut repacked = 0;
    for number in candidates {
        let pack = &packs[number];
        let enough = remaining_unused < tolerated && pack.expected() >= small;
        let too_much = options.max_repack.is_some_and(|max| repacked + pack.expected() >= max);
        if too_much || (enough && pack.is_of_data() && !must_compress(pack)) {
            continue;
        }
        fates[number] = Fate::Repack;
        repacked += pack.expected();
        remaining_unused -= pack.unused.bytes;
    }
    let stats = add_up(packs, &fates, duplicate, unindexed, version);
    Ok(Plan { fates, unindexed: unindexed.iter().map(|(id, _)| *id).collect(), stats })
}

fn can_compress(version: Version) -> bool {
    version == Version::V2
}

fn fault(pack: &Pack) -> Option<Fault> {
    match pack.listed {
        None => Some(Fault::Missing(pack.id)),
        Some(size) if size != pack.expected() => Some(Fault::Size { pack: pack.id, size, expected: pack.expected() }),
        Some(_) => None,
    }
}

/// The default limit for small packs: four fifths of the third percentile of the pack sizes, or of
/// the smallest pack size if that is larger. If no pack is much smaller than the others, none is
/// small.
fn usual_small(packs: &[Pack]) -> u64 {
    let mut sizes: Vec<u64> = packs.iter().map(Pack::expected).collect();
    sizes.sort_unstable();
    sizes.get(sizes.len() * 3 / 100).map_or(0, |&third| third.max(SMALLEST_TARGET) * 4 / 5)
}

fn add_up(packs: &[Pack], fates: &[Fate], duplicate: Amount, unindexed: &[(Id, u64)], version: Version) -> Stats {
    let mut stats = Stats::default();
    let Stats { blobs, bytes, packfiles } = &mut stats;
    for (pack, fate) in packs.iter().zip(fates) {
        let Pack { used, unused, .. } = pack;
        blobs.used += used.blobs;
        bytes.used += used.bytes;
        blobs.unused += unused.blobs;
        bytes.unused += unused.bytes;
        if *fate != Fate::Forget {
            *match (used.blobs, unused.blobs) {
                (0, _) => &mut packfiles.unused,
                (_, 0) => &mut packfiles.used,
                _ => &mut packfiles.partly_used,
            } += 1;
        }
        match fate {
            Fate::Keep => packfiles.keep += 1,
            Fate::Repack => {
                packfiles.repack += 1;
                blobs.repack += used.blobs + unused.blobs;
                bytes.repack += pack.expected();
                blobs.repack_remove += unused.blobs;
                bytes.repack_remove += unused.bytes;
            }
            Fate::Remove | Fate::Forget => {
                packfiles.remove += u64::from(*fate == Fate::Remove);
                blobs.remove += unused.blobs;
                bytes.remove += unused.bytes;
            }
        }
        if can_compress(version) && pack.uncompressed && *fate == Fate::Keep {
            bytes.uncompressed += pack.expected();
        }
    }
    blobs.duplicate = duplicate.blobs;
    bytes.duplicate = duplicate.bytes;
    blobs.unused -= duplicate.blobs;
    bytes.unused -= duplicate.bytes;
    bytes.unreferenced = unindexed.iter().map(|(_, size)| size).sum();
    packfiles.unreferenced = unindexed.len() as u64;
    blobs.total = blobs.used + blobs.duplicate + blobs.unused;
    bytes.total = bytes.used + bytes.duplicate + bytes.unused + bytes.unreferenced;
    blobs.remove_total = blobs.remove + blobs.repack_remove;
    bytes.remove_total = bytes.remove + bytes.repack_remove + bytes.unreferenced;
    blobs.remaining = blobs.total - blobs.remove_total;
    bytes.remaining = bytes.total - bytes.remove_total;
    bytes.remaining_unused = bytes.duplicate + bytes.unused - bytes.remove - bytes.repack_remove;
    packfiles.total = packfiles.used + packfiles.partly_used + packfiles.unused + packfiles.unreferenced;
    packfiles.remove_total = packfiles.unreferenced + packfiles.remove;
    stats
}
