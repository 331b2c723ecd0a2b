//! Merges index files into an index: in memory, or in runs that are spilled to disk.

use super::merged::{Index, bytes, slot};
use super::sorted::{Entry, Runs, Sorted};
use crate::format::index_file::IndexedPack;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Minimum size of a spilled run, in bytes: each run costs a buffer when runs are merged, so their
/// number must be small.
const LEAST_RUN: u64 = 2 << 20;

/// An index that is being merged.
#[derive(Default)]
pub(super) struct Building {
    pub packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    pub entries: [Vec<Entry>; 2],
    /// The spilled entries: data blobs, then tree blobs.
    pub runs: Option<[Runs; 2]>,
}

impl Building {
    pub fn add(&mut self, IndexedPack { id, blobs }: IndexedPack) {
        let next = u32::try_from(self.packs.len()).expect("fewer than 2^32 packs");
        let pack = *self.numbers.entry(id).or_insert_with(|| {
            self.packs.push(id);
            next
        });
        for PackedBlob { ty, id, offset, length, uncompressed } in blobs {
            self.entries[slot(ty)].push(Entry { id, pack, offset, length, uncompressed });
        }
    }

    pub fn memory(&self) -> u64 {
        bytes(self.entries.iter().map(Vec::len).sum(), self.packs.len())
    }

    /// Spills the entries in memory, unless they are smaller than [`LEAST_RUN`].
    pub fn spill(&mut self, directory: &Path) -> io::Result<()> {
        if bytes(self.entries.iter().map(Vec::len).sum(), 0) < LEAST_RUN {
            return Ok(());
        }
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert([Runs::new(directory)?, Runs::new(directory)?]),
        };
        runs.iter_mut().zip(&mut self.entries).try_for_each(|(runs, entries)| runs.add(entries, &self.packs))
    }

    pub fn finish(self) -> Index {
        let Building { packs, entries, .. } = self;
        let entries = entries.map(|entries| Sorted::new(entries, &packs));
        Index::new(packs, entries)
    }

    /// [`Building::finish`] after a spill: spills the remaining entries, too, and merges all runs.
    pub fn finish_spilled(mut self, mut runs: [Runs; 2], directory: &Path) -> io::Result<Index> {
        runs.iter_mut().zip(&mut self.entries).try_for_each(|(runs, entries)| runs.add(entries, &self.packs))?;
        let Building { packs, entries, numbers, .. } = self;
        drop((entries, numbers));
        let [data, trees] = runs;
        let entries = [data.merge(directory, &packs)?, trees.merge(directory, &packs)?];
        Ok(Index::new(packs, entries))
    }
}

impl Index {
    /// An index of these packs; a pack may come several times.
    pub fn from_packs(packs: Vec<IndexedPack>) -> Index {
        let mut building = Building::default();
        packs.into_iter().for_each(|pack| building.add(pack));
        building.finish()
    }
}
