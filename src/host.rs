//! Who and where this process is, and the names of users and groups: what the machine says about itself.
//!
//! Names come from `/etc/passwd` and `/etc/group` only, as in any static binary: a scratch image has neither, and then no
//! names are stored.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::HashMap;

/// The host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets no crash put what is in memory, keys and passwords, into a file. One byte is a limit that also programs obey that the kernel hands
/// core dumps to (core(5)), who ignore that of none.
pub fn forbid_core_dumps() {
    // A limit may always be made smaller.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}

/// The name of the user this process runs as; empty if it has none.
pub fn username() -> String {
    Names::users().get(rustix::process::getuid().as_raw()).to_owned()
}

/// Names by number.
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

    /// Lines of `name:x:number:…`; the first line of a number counts.
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
