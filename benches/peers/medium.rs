//! The media of the benchmarks: where the repository is stored, and how the volume is reached.

use crate::link::Profile;
use std::time::Duration;

/// A bucket in the region of the cluster.
const SAME_REGION: Profile = Profile { round_trip: Duration::from_millis(2), each: 80e6, shared: 1000e6 };
/// A bucket in another region of the provider.
const OTHER_REGION: Profile = Profile { round_trip: Duration::from_millis(30), each: 20e6, shared: 200e6 };
/// A bucket on another continent, or behind a site's uplink.
const FAR: Profile = Profile { round_trip: Duration::from_millis(100), each: 10e6, shared: 50e6 };

/// Where the repository is stored, and how the volume is reached.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Medium {
    pub name: &'static str,
    pub repository: Repository,
    /// Added to each operation of the file system that holds the volume.
    pub delay: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Repository {
    Tmpfs,
    Disk,
    /// An S3 server on the loopback address.
    S3,
    /// S3 behind a link, with a number of connections instead of each tool's own.
    Link {
        profile: Profile,
        connections: Option<usize>,
    },
}

/// The default number of connections of restic and of ours.
pub const CONNECTIONS: usize = 5;

pub const MEDIA: [Medium; 12] = [
    local("tmpfs", Repository::Tmpfs),
    local("s3", Repository::S3),
    local("disk", Repository::Disk),
    link("same region", SAME_REGION, None),
    link("same region, 16 connections", SAME_REGION, Some(16)),
    link("other region", OTHER_REGION, None),
    link("other region, 16 connections", OTHER_REGION, Some(16)),
    link("far", FAR, None),
    link("far, 16 connections", FAR, Some(16)),
    network("network volume, 0.3 ms", 300),
    network("network volume, 1 ms", 1000),
    network("network volume, 5 ms", 5000),
];

const fn local(name: &'static str, repository: Repository) -> Medium {
    Medium { name, repository, delay: None }
}

const fn link(name: &'static str, profile: Profile, connections: Option<usize>) -> Medium {
    Medium { name, repository: Repository::Link { profile, connections }, delay: None }
}

const fn network(name: &'static str, microseconds: u64) -> Medium {
    Medium { name, repository: Repository::Tmpfs, delay: Some(Duration::from_micros(microseconds)) }
}

impl Medium {
    /// Finds a medium by its name with dashes for spaces and commas, such as `far-16-connections`.
    pub fn parse(name: &str) -> Result<Medium, String> {
        let found = MEDIA.into_iter().find(|medium| medium.argument() == name);
        found.ok_or_else(|| format!("expected one of {}", MEDIA.map(|medium| medium.argument()).join(", ")))
    }

    fn argument(self) -> String {
        self.name.split([' ', ',']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// The link's profile, and the number of connections over it.
    pub fn link(self) -> Option<(Profile, usize)> {
        match self.repository {
            Repository::Link { profile, connections } => Some((profile, connections.unwrap_or(CONNECTIONS))),
            _ => None,
        }
    }
}
