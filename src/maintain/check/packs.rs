//! The second step of a check: the pack files that the index lists exist and have the size that the
//! index implies.

use super::context::Check;
use crate::format::BlobType;
use crate::format::pack;
use crate::id::Id;
use crate::repo::Result;
use crate::repo::index::Location;
use std::collections::{HashMap, HashSet};

/// The sums of the index entries of one pack.
#[derive(Default)]
struct Indexed {
    bytes: u64,
    data: bool,
    tree: bool,
}

impl Check<'_> {
    /// Compares the index with the pack files that exist.
    pub fn packs(&mut self) -> Result<()> {
        self.report.packs = self.listed.len() as u64;
        let empty = pack::header_size([]);
        let mut indexed: HashMap<Id, Indexed> = self.index.packs().iter().map(|&id| (id, Indexed::default())).collect();
        for location in self.index.iter() {
            let pack = indexed.entry(location.pack).or_default();
            pack.bytes += u64::from(location.blob.length) + pack::header_size([&location.blob]) - empty;
            pack.data |= location.blob.ty == BlobType::Data;
            pack.tree |= location.blob.ty == BlobType::Tree;
        }
        let mut ids: Vec<&Id> = indexed.keys().collect();
        ids.sort_unstable();
        for &id in ids {
            let Indexed { bytes, data, tree } = indexed[&id];
            let expected = bytes + empty;
            match self.listed.get(&id).copied() {
                None => {
                    self.lost.packs.insert(id);
                    self.problem(
                        format!("pack {id}"),
                        "the index lists it, but the file does not exist; its blobs are lost",
                    );
                }
                Some(size) if size != expected => {
                    self.report.broken_packs.push(id);
                    let why = format!("it has {size} bytes, but the index implies {expected}");
                    self.problem(format!("pack {id}"), why);
                }
                Some(_) => {}
            }
            if data && tree {
                self.report.suggest_prune = true;
                self.hint(format!("pack {id} holds both data and trees, as old versions of restic wrote it"));
            }
        }
        if !self.report.broken_packs.is_empty() {
            let broken: HashSet<Id> = self.report.broken_packs.iter().copied().collect();
            let is_cut = |location: &Location| {
                let size = self.listed.get(&location.pack);
                broken.contains(&location.pack) && size.is_none_or(|size| location.blob.end() > *size)
            };
            self.lost.blobs.extend(self.index.iter().filter(is_cut).map(|cut| (cut.pack, cut.blob.id)));
        }
        let unindexed = self.listed.keys().filter(|id| !indexed.contains_key(id)).count();
        self.report.unindexed = unindexed as u64;
        if unindexed > 0 {
            self.report.suggest_prune = true;
            self.hint(format!(
                "{unindexed} packs are in no index: harmless leftovers of interrupted backups, which a prune removes"
            ));
        }
        Ok(())
    }
}
