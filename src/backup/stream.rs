//! A stream as a source: standard input, or the standard output of a command.

use super::assemble::{Dir, Position, Slot};
use super::file::FileWork;
use super::options::Input;
use super::run::{Run, source_error};
use super::source::Standing;
use crate::clock;
use crate::format::node::{Node, NodeType, mode};
use crate::progress::Progress;
use crate::repo::Result;
use crossbeam_channel::Sender;
use rustix::fd::OwnedFd;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The poll interval for the exit of a command that has closed its output.
const POLL: Duration = Duration::from_millis(20);

/// The producer of a stream. A command that is still running when this is dropped is killed.
pub struct Producer(Option<Running>);

struct Running {
    child: Child,
    /// The command's name, as messages show it.
    name: String,
}

/// Opens the stream, and starts the command if the input is one.
pub fn open(input: &Input) -> io::Result<(OwnedFd, Producer)> {
    match input {
        Input::Stdin => Ok((rustix::io::dup(io::stdin())?, Producer(None))),
        Input::Command(words) => start(words),
    }
}

fn start(words: &[OsString]) -> io::Result<(OwnedFd, Producer)> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no command is given"))?;
    let name = program.to_string_lossy().into_owned();
    // The command inherits our standard error, so that its messages reach the user. Its standard
    // input is empty, as with restic.
    let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned
        .map_err(|error| io::Error::new(error.kind(), format!("the command {name:?} cannot be started: {error}")))?;
    let output = child.stdout.take().expect("it is piped");
    Ok((output.into(), Producer(Some(Running { child, name }))))
}

impl Producer {
    /// The name of the stream in messages.
    pub fn describe(&self) -> String {
        match &self.0 {
            None => "standard input".to_owned(),
            Some(running) => format!("the command {:?}", running.name),
        }
    }

    /// Waits until the command has ended, and fails if it failed. Returns early if the run is
    /// interrupted.
    pub fn finish(mut self, progress: &Progress) -> io::Result<()> {
        let Some(running) = &mut self.0 else { return Ok(()) };
        while !progress.is_interrupted() {
            if let Some(status) = running.child.try_wait()? {
                return judge(&running.name, status);
            }
            clock::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(running) = &mut self.0
            && matches!(running.child.try_wait(), Ok(None))
        {
            // Errors do not matter: the command has ended meanwhile, or its output is not needed
            // any more.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

fn judge(name: &str, status: ExitStatus) -> io::Result<()> {
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    Err(io::Error::other(format!("the command {name:?} {how}, so no snapshot was made of its output")))
}

/// The names of the directories and of the file that a stream is stored as. A path without any name
/// is an error.
pub fn names(path: &str) -> Result<(Vec<&str>, &str)> {
    let mut names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect();
    let last = names.pop().ok_or_else(|| source_error(format!("{path:?} is not a valid file name")))?;
    Ok((names, last))
}

/// An open stream, and the names that it is stored as.
pub struct Stream<'s> {
    pub fd: OwnedFd,
    /// The name of the stream in messages.
    pub source: &'s str,
    /// The directories and the file, as [`names`] returns them.
    pub names: (Vec<&'s str>, &'s str),
}

/// Sends a stream to the readers.
pub fn feed(run: &Run<'_>, stream: Stream<'_>, root: Arc<Dir>, files: &Sender<FileWork>) -> Result<()> {
    let Stream { fd, source, names: (above, last) } = stream;
    let mut dir = root;
    for name in above {
        let node = Node { mode: mode::DIR | 0o755, ..invented(run, name, NodeType::Dir) };
        let up = only_slot(&dir, name);
        dir = Dir::new(PathBuf::from(name), Some(node), None, Standing::Found, Some(up));
    }
    let node = Node { mode: 0o644, ..invented(run, last, NodeType::File) };
    let slot = only_slot(&dir, last);
    // The readers have ended only if the run is stopped.
    let _ = files.send(FileWork::stream(fd, source, node, slot));
    Ok(())
}

/// The slot of the only entry of a directory.
fn only_slot(dir: &Arc<Dir>, name: &str) -> Slot {
    Slot { part: dir.part(vec![name.into()], Position::Last), number: 0 }
}

/// A node for an entry that does not exist in any file system.
fn invented(run: &Run<'_>, name: &str, ty: NodeType) -> Node {
    let time = run.options.time;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Node { mtime: time, atime: time, ctime: time, uid, gid, ..Node::new(name, ty) }
}
