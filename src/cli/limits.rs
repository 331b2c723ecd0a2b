//! Rate limits of the requests to buckets, from the options and from a directory that is watched.
//!
//! The directory has a file for each limit, for example a ConfigMap that is mounted into a pod. The
//! files are read periodically, so that the limits can change during a run.

use super::args::{self, Limit, TrafficArgs};
use super::output::Output;
use crate::clock;
use crate::store::traffic::{Pace, Traffic};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Poll interval of the directory.
const WATCH: Duration = Duration::from_secs(2);

/// One limit and its file.
struct Watched {
    /// The name of the file.
    name: &'static str,
    parse: fn(&str) -> Result<Limit, String>,
    pace: fn(&Traffic) -> &Pace,
    /// The limit without a file.
    otherwise: Limit,
    /// The result of the last read of the file.
    seen: Result<Option<String>, String>,
}

/// Starts the limits of a run. They follow the directory until the returned value is dropped.
pub fn start(options: &TrafficArgs, out: &Arc<Output>) -> Arc<Traffic> {
    let traffic = Arc::new(Traffic::default());
    let one = |name, parse, pace, otherwise| Watched { name, parse, pace, otherwise, seen: Ok(None) };
    let mut limits = [
        one("upload", args::rate as _, (|traffic| &traffic.upload) as fn(&Traffic) -> &Pace, options.limit_upload),
        one("download", args::rate, |traffic| &traffic.download, options.limit_download),
        one("requests", args::requests, |traffic| &traffic.requests, options.limit_requests),
    ];
    limits.iter().for_each(|limit| (limit.pace)(&traffic).set(limit.otherwise.0));
    let Some(directory) = options.limits.clone().filter(|directory| !directory.as_os_str().is_empty()) else {
        return traffic;
    };
    limits.iter_mut().for_each(|limit| limit.look(&directory, &traffic, out));
    let (of_run, out) = (Arc::downgrade(&traffic), out.clone());
    std::thread::spawn(move || {
        while let Some(traffic) = Weak::upgrade(&of_run) {
            limits.iter_mut().for_each(|limit| limit.look(&directory, &traffic, &out));
            drop(traffic);
            clock::sleep(WATCH);
        }
    });
    traffic
}

impl Watched {
    /// Applies a changed file. A file that cannot be read or parsed is reported once, and its limit
    /// stays.
    fn look(&mut self, directory: &Path, traffic: &Traffic, out: &Output) {
        let path = directory.join(self.name);
        let seen = match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        if seen == self.seen {
            return;
        }
        let limit = match &seen {
            Ok(Some(text)) => (self.parse)(text),
            Ok(None) => Ok(self.otherwise),
            Err(error) => Err(error.clone()),
        };
        match limit {
            Ok(limit) => (self.pace)(traffic).set(limit.0),
            Err(why) => out.warn(format_args!("warning: the limit in {} is not changed: {why}", path.display())),
        }
        self.seen = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputFormat;

    #[test]
    fn a_file_overrides_an_option_and_an_invalid_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (traffic, out) = (Traffic::default(), Output::new(OutputFormat::Text, 0));
        let mut limit = Watched {
            name: "upload",
            parse: args::rate,
            pace: |traffic| &traffic.upload,
            otherwise: Limit(Some(7)),
            seen: Ok(None),
        };
        for (text, expected) in [
            (Some("2M\n"), Some(2 << 20)),
            (Some("many"), Some(2 << 20)),
            (Some("10"), Some(10 << 10)),
            (Some("0"), None),
            (Some("1"), Some(1 << 10)),
            (Some(""), None),
            (None, Some(7)),
        ] {
            let file = directory.path().join("upload");
            match text {
                Some(text) => std::fs::write(file, text).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
            limit.look(directory.path(), &traffic, &out);
            assert_eq!(traffic.upload.get(), expected, "{text:?}");
        }
    }
}
