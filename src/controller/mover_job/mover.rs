//! A mover: its volume, its work, its secrets.

use crate::controller::config::MoverSettings;
use crate::kubernetes::naming::Naming;
use crate::volume_mode::VolumeMode;
use crate::work::Work;
use k8s_openapi::ByteString;
use std::collections::BTreeMap;

/// The mount path of a file system, and the device path of a block volume, in the container.
pub const MOUNT_PATH: &str = "/data";
pub const DEVICE_PATH: &str = "/dev/volume";

/// The key of the work description in its ConfigMap.
pub const WORK_FILE: &str = "work.json";

/// The name of the container.
pub const CONTAINER: &str = "mover";

/// Finalizer that keeps a mover's Job and pods until their result is recorded.
pub const FINALIZER: &str = "datamover.oadp.openshift.io/outcome";

/// How a mover uses its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A backup reads it.
    ReadOnly,
    /// A restore fills it.
    Writable,
}

/// The volume of a mover.
#[derive(Clone, Debug, PartialEq)]
pub struct MoverVolume {
    /// The claim, in the namespace of the Job.
    pub claim: String,
    pub mode: VolumeMode,
    pub access: Access,
}

/// One mover.
#[derive(Clone, Debug)]
pub struct MoverSpec<'s> {
    /// The metadata of the Job, its Secret and its ConfigMap.
    pub naming: Naming,
    /// `None`: the mover works on the repository alone.
    pub volume: Option<MoverVolume>,
    pub work: Work,
    /// File names and contents.
    pub secrets: BTreeMap<String, ByteString>,
    pub settings: &'s MoverSettings,
}
