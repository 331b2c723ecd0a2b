//! Selects the packs that a check reads.

use crate::clock;
use crate::id::Id;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    All,
    /// Part `number` of `parts`, from 1 on, by the first byte of a pack's id: all parts together
    /// are all packs.
    Part {
        number: u16,
        parts: u16,
    },
    /// This share of the packs, drawn at random.
    Percent(f64),
    /// Packs of about this number of bytes, drawn at random.
    Bytes(u64),
}

impl Subset {
    pub(super) fn choose(self, mut packs: Vec<(Id, u64)>) -> Vec<(Id, u64)> {
        packs.sort_unstable();
        let total: u64 = packs.iter().map(|(_, size)| size).sum();
        let percent = match self {
            Subset::All => return packs,
            Subset::Part { number, parts } => {
                packs.retain(|(id, _)| u16::from(id.0[0]) % parts == number - 1);
                return packs;
            }
            Subset::Percent(percent) => percent,
            Subset::Bytes(bytes) => 100.0 * bytes as f64 / total.max(1) as f64,
        };
        let count = ((packs.len() as f64 * percent / 100.0) as usize).clamp(1.min(packs.len()), packs.len());
        for at in 0..count {
            let rest = (packs.len() - at) as u64;
            let other = at + usize::try_from(u64::from_le_bytes(clock::random_bytes()) % rest).expect("below a length");
            packs.swap(at, other);
        }
        packs.truncate(count);
        packs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_packs_and_samples_have_the_requested_size() {
        let packs: Vec<(Id, u64)> = (0..200u8).map(|n| (Id::of(&[n]), 100)).collect();
        let mut parts: Vec<_> =
            (1..=7).flat_map(|number| Subset::Part { number, parts: 7 }.choose(packs.clone())).collect();
        parts.sort_unstable();
        assert_eq!(parts, Subset::All.choose(packs.clone()));
        let count = |subset: Subset| {
            let mut drawn = subset.choose(packs.clone());
            drawn.sort_unstable();
            drawn.dedup();
            drawn.len()
        };
        assert_eq!(count(Subset::Percent(10.0)), 20);
        assert_eq!(count(Subset::Percent(0.01)), 1);
        assert_eq!(count(Subset::Bytes(5000)), 50);
        assert_eq!(count(Subset::Bytes(u64::MAX)), 200);
        assert_eq!(Subset::Percent(50.0).choose(vec![]), []);
    }
}
