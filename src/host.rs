//! Facts about this process and its machine: host name, cores, and the names of users and groups.
//!
//! Names are read from `/etc/passwd` and `/etc/group` only, as by any static binary. A scratch
//! image has neither file, so that its snapshots contain no names.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::HashMap;

/// The name of the host.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The number of cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Prevents core dumps, because the memory contains keys and passwords. The limit is one byte, not
/// zero: programs that the kernel pipes core dumps to ignore a limit of zero (core(5)).
pub fn forbid_core_dumps() {
    // Lowering a limit cannot fail.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}

/// The name of the user of this process; empty if the user has none.
pub fn username() -> String {
    Names::users().get(rustix::process::getuid().as_raw()).to_owned()
}

/// Names of users or groups by number.
pub struct Names(HashMap<u32, String>);

impl Names {
    pub fn users() -> Names {
        Names::parse(&std::fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    pub fn groups() -> Names {
        Names::parse(&std::fs::read_to_string("/etc/group").unwrap_or_default())
    }

    /// The name of a number; empty if it has none.
    pub fn get(&self, number: u32) -> &str {
        self.0.get(&number).map_or("", String::as_str)
    }

    /// Parses lines of `name:x:number:…`. The first line of a number counts.
    fn parse(text: &str) -> Names {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            if let (Some(name), _, Some(Ok(number))) = (fields.next(), fields.next(), fields.next().map(str::parse)) {
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Names(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts() {
        let names = Names::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nme:x:7:\n");
        assert_eq!((names.get(0), names.get(7), names.get(8)), ("root", "me", ""));
    }
}
