//! How a volume is consumed: `volumeMode` of a PersistentVolumeClaim.

use std::fmt;

/// The two values of `volumeMode` (`core/v1`, PersistentVolumeMode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumeMode {
    /// Mounted as a directory; the default of a claim that names no mode.
    #[default]
    Filesystem,
    /// A raw block device.
    Block,
}

impl VolumeMode {
    /// The mode of this name; `None` for any other text.
    pub fn parse(name: &str) -> Option<VolumeMode> {
        [VolumeMode::Filesystem, VolumeMode::Block].into_iter().find(|mode| mode.name() == name)
    }

    /// The name that Kubernetes uses.
    pub fn name(self) -> &'static str {
        match self {
            VolumeMode::Filesystem => "Filesystem",
            VolumeMode::Block => "Block",
        }
    }
}

impl fmt::Display for VolumeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_parsed_from_its_name_and_from_nothing_else() {
        for mode in [VolumeMode::Filesystem, VolumeMode::Block] {
            assert_eq!(VolumeMode::parse(mode.name()), Some(mode));
        }
        assert_eq!((VolumeMode::parse("block"), VolumeMode::parse("")), (None, None));
    }
}
