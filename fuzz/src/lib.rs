//! Shared code of the fuzz targets: the processes and the bucket in memory of the tests'
//! simulation, with the fuzzer's draws, and a repository that is quick to open.

pub mod common {
    pub use crate::random::Random;

    pub mod peers {
        pub const PASSWORD: &str = "a password";
    }
}

/// The paths at which the modules of the tests look for each other.
pub mod engine {
    pub use crate::{acts, kept};
}

#[path = "../../tests/engine/acts.rs"]
pub mod acts;
#[path = "../../tests/engine/kept.rs"]
pub mod kept;
mod random;
#[path = "../../tests/engine/simulation/schedule.rs"]
pub mod schedule;
#[path = "../../tests/engine/simulation/world.rs"]
pub mod world;

use common::peers::PASSWORD;
use vsm::chunk::Polynomial;
use vsm::crypto::Key;
use vsm::crypto::kdf::{Params, SALT};
use vsm::format::Version;
use vsm::format::config::Config;
use vsm::format::key_file::{KeyFile, KeyOwner, encode_master};
use vsm::id::Id;
use vsm::store::{File, FileType};
use world::Files;

/// The polynomial of an example repository in restic's documents; any irreducible one would do.
const POLYNOMIAL: u64 = 0x25b4_6883_8dcb_75;

/// An empty repository with a key that takes no time to derive.
pub fn repository() -> Files {
    let master = Key::from_bytes(&std::array::from_fn(|index| index as u8 + 1));
    let params = Params { n: 2, r: 1, p: 1, salt: vec![7; SALT] };
    let mut data = Vec::new();
    params.derive(PASSWORD.as_bytes()).expect("a key").seal(&[1; 16], &encode_master(&master), &mut data);
    let key = KeyFile::new(KeyOwner::default(), &params, data).encode();
    let config = Config {
        version: Version::V2,
        id: Id::of(b"fuzz"),
        polynomial: Polynomial::new(POLYNOMIAL).expect("a polynomial"),
        extra: serde_json::Map::new(),
    };
    let mut sealed = Vec::new();
    master.seal(&[2; 16], &config.encode(), &mut sealed);
    Files::from([(File::CONFIG, sealed.into()), (File::new(FileType::Key, Id::of(&key)), key.into())])
}

/// A directory for one input, in `TMPDIR`, which `tests/fuzz` may place in memory.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}
