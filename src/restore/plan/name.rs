//! Names of entries, concatenated in one buffer.

/// The position of a name in such a buffer.
#[derive(Clone, Copy, Default)]
pub struct Name {
    pub start: u32,
    pub length: u16,
}

impl Name {
    /// Appends the last component of a path to the buffer.
    pub fn keep(names: &mut Vec<u8>, path: &[u8]) -> Name {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let start = count(names.len());
        names.extend_from_slice(name);
        Name { start, length: u16::try_from(name.len()).expect("the walk leaves out longer ones") }
    }

    pub fn of(self, names: &[u8]) -> &[u8] {
        &names[self.start as usize..][..usize::from(self.length)]
    }
}

pub fn count(length: usize) -> u32 {
    u32::try_from(length).expect("the plan's memory is bounded far below 2^32 entries")
}
