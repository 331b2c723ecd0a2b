//! How much may pass between this run and its buckets in a second: what the options say, and what a directory says while it runs.
//!
//! The directory is a ConfigMap that is mounted into a pod, or any other: a file for each limit, looked at again and again.

use super::args::{self, Limit, TrafficArgs};
use super::output::Output;
use crate::clock;
use crate::store::traffic::{Pace, Traffic};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the directory is looked at.
const WATCH: Duration = Duration::from_secs(2);

/// One limit.
struct Watched {
    /// Its file's.
    name: &'static str,
    parse: fn(&str) -> Result<Limit, String>,
    pace: fn(&Traffic) -> &Pace,
    /// What holds without a file.
    otherwise: Limit,
    /// What came of the last look at its file.
    seen: Result<Option<String>, String>,
}

/// The limits of a run that begins. They change with the directory as long as somebody has them.
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
    /// Takes what has changed. What cannot be read or understood is told once, and changes nothing.
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
            Err(why) => out.warn(format_args!("warning: the limit in {} stays as it was: {why}", path.display())),
        }
        self.seen = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputFormat;

    #[test]
    fn a_file_comes_before_an_option_and_nonsense_changes_nothing() {
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
