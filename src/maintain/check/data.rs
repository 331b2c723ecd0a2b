//! The fourth step of a check: reads every byte of all packs, or of some of them.
//!
//! A pack that fails is read again before it counts as broken, because the network may be to blame.

use super::context::Check;
use super::pack_read::{ListedPack, Verdict};
use super::subset::Subset;
use crate::id::Id;
use crate::repo::{PackReader, Reading, Result};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

impl Check<'_> {
    /// Reads packs. A pack that is in no index is skipped: nothing needs it.
    pub fn data(&mut self, subset: Subset) -> Result<()> {
        let ids = self.choose(subset);
        let mut verdicts: Vec<(Id, Verdict)> = Vec::new();
        let reading = Reading::beside(self.repo, &self.index)?;
        for group in self.index.groups(&ids) {
            let next = AtomicUsize::new(0);
            let read = self.pool.broadcast(|_| {
                let mut reader = PackReader::new(self.repo, &reading);
                let mine = std::iter::from_fn(|| group.packs().get(next.fetch_add(1, Ordering::Relaxed)));
                let read = |&id| {
                    let pack = ListedPack { id, size: self.listed[&id], blobs: &group.blobs(id) };
                    Ok((id, self.read(&pack, &mut reader)?))
                };
                mine.map(read).collect()
            });
            verdicts.extend(read.into_iter().collect::<Result<Vec<Vec<_>>>>()?.into_iter().flatten());
        }
        verdicts.sort_unstable_by_key(|&(id, _)| id);
        verdicts.into_iter().for_each(|(id, verdict)| self.judge(id, verdict));
        Ok(())
    }

    /// The packs to be read, largest first, so that no thread reads a large pack alone at the end.
    fn choose(&mut self, subset: Subset) -> Vec<Id> {
        let indexed: HashSet<Id> = self.index.packs().iter().copied().collect();
        let packs = self.listed.iter().map(|(&id, &size)| (id, size)).collect();
        let mut packs = subset.choose(packs);
        packs.retain(|&(id, _)| indexed.contains(&id));
        packs.sort_unstable_by_key(|&(id, size)| (Reverse(size), id));
        self.count(packs.len() as u64, packs.iter().map(|(_, size)| size).sum());
        self.report.packs_read = packs.len() as u64;
        packs.into_iter().map(|(id, _)| id).collect()
    }

    /// Reads a pack, and once again if it fails.
    fn read(&self, pack: &ListedPack<'_>, reader: &mut PackReader<'_>) -> Result<Verdict> {
        let mut read = || pack.read(self.repo, self.progress, reader);
        let mut verdict = read()?;
        if !verdict.errors.is_empty() {
            let first = std::mem::replace(&mut verdict, read()?).errors.join("; ");
            if verdict.errors.is_empty() {
                let id = pack.id;
                self.hint(format!("pack {id} could be read only at the second attempt; the first failed: {first}"));
            }
        }
        self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        Ok(verdict)
    }

    /// Reports the errors of a pack.
    fn judge(&mut self, id: Id, verdict: Verdict) {
        if verdict.errors.is_empty() {
            return;
        }
        self.report.broken_packs.push(id);
        self.report.suggest_repair_index |= verdict.index_differs;
        self.out_of_reach.fetch_add(verdict.out_of_reach.into(), Ordering::Relaxed);
        self.lost.blobs.extend(verdict.lost.into_iter().map(|blob| (id, blob)));
        verdict.errors.into_iter().for_each(|error| self.problem(format!("pack {id}"), error));
    }
}
