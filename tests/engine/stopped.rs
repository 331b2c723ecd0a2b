//! A mover that is stopped ends in good order and in time, whatever its store does.

use super::work::Pod;
use crate::common::peers::{Peer, Repo, Running};
use crate::common::s3::{ACCESS, BUCKET, S3, SECRET};
use crate::common::{Random, files_below, wait_for};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A mover promises 20 s; the rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(40);

/// What a store does with requests.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Serves,
    /// Answers 503 SlowDown.
    Busy,
    /// Takes everything and answers nothing.
    Silent,
}

/// A TCP proxy before a store, whose mood can change.
struct Moody {
    port: u16,
    mood: Arc<Mutex<Mood>>,
}

impl Moody {
    fn before(server: u16) -> Moody {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let mood = Arc::new(Mutex::new(Mood::Serves));
        let moods = mood.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).expect("the server");
                let ends = [(&client, &server), (&server, &client)].map(|(from, to)| (clone(from), clone(to)));
                for (from, to) in ends {
                    let mood = moods.clone();
                    thread::spawn(move || carry(from, to, &mood));
                }
            }
        });
        Moody { port, mood }
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a descriptor")
}

/// Carries bytes one way while the store serves. A busy store answers the sender and closes.
fn carry(mut from: TcpStream, mut to: TcpStream, mood: &Mutex<Mood>) {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 62\r\nconnection: close\r\n\r\n\
                        <Error><Code>SlowDown</Code><Message>Gently.</Message></Error>";
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mood = *mood.lock().expect("no panic");
        let is_carried = match mood {
            Mood::Serves => to.write_all(&buffer[..length]).is_ok(),
            Mood::Busy => {
                let _ = from.write_all(BUSY.as_bytes());
                false
            }
            Mood::Silent => true,
        };
        if !is_carried {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// The packs that are in the bucket.
fn packs(s3: &S3, prefix: &str) -> Vec<PathBuf> {
    let data = s3.root().join(BUCKET).join(prefix).join("data");
    if data.exists() { files_below(&data) } else { Vec::new() }
}

/// Starts a backup of 256 MiB to `repo` and stops it after two packs, when the store gets
/// into a mood.
fn stopped(s3: &S3, repo: &Repo, prefix: &str, mood: Mood, limit: Option<&str>) {
    let moody = Moody::before(s3.port());
    let behind = s3.repo_by(moody.port, prefix);
    let pod = Pod::new(&behind);
    pod.secret("AWS_ACCESS_KEY_ID", ACCESS);
    pod.secret("AWS_SECRET_ACCESS_KEY", SECRET);
    pod.secret("AWS_DEFAULT_REGION", "us-east-1");
    let source = behind.beside("volume");
    std::fs::create_dir_all(&source).expect("a directory");
    std::fs::write(source.join("file"), Random(77).bytes(256 << 20)).expect("a file");
    let mut command = pod.command(&pod.backup(&source, "vsb:1"));
    // Slow enough for the signal to come in the middle.
    command.args(["--limit-upload", limit.unwrap_or("16384")]);
    let mut running = Running::start(command);
    wait_for("a pack, or bytes under way", || {
        running.must_run();
        (limit.is_some() || packs(s3, prefix).len() >= 2).then_some(())
    });
    if limit.is_some() {
        // The first packs are on their way, which takes minutes.
        thread::sleep(Duration::from_secs(3));
    }
    moody.becomes(mood);
    running.signal(Signal::TERM);
    let signalled = Instant::now();
    let run = running.finish().exits(130);
    assert!(signalled.elapsed() < IN_TIME, "{:?} after the signal\n{run}", signalled.elapsed());
    let report = pod.report_of(run);
    assert_eq!(report["outcome"]["failed"]["reason"], "Interrupted", "{report}");
    if mood == Mood::Serves {
        assert!(repo.list("locks").is_empty(), "the lock is removed");
    }
    // A store that does not serve keeps the lock.
    repo.run(Peer::Restic019, ["unlock", "--remove-all"]).ok();
    repo.check(Peer::Restic019).ok();
}

#[test]
fn a_mover_ends_in_time_while_its_store_answers_503() {
    let s3 = S3::new();
    stopped(&s3, &s3.repo("busy"), "busy", Mood::Busy, None);
    assert!(packs(&s3, "busy").len() >= 2);
}

#[test]
fn a_mover_ends_in_time_while_its_store_answers_nothing() {
    let s3 = S3::new();
    stopped(&s3, &s3.repo("silent"), "silent", Mood::Silent, None);
    assert!(packs(&s3, "silent").len() >= 2);
}

#[test]
fn a_mover_ends_in_time_under_a_low_upload_limit() {
    let s3 = S3::new();
    stopped(&s3, &s3.repo("limited"), "limited", Mood::Serves, Some("200"));
}

#[test]
fn packs_that_arrived_before_a_mover_was_stopped_are_indexed() {
    let s3 = S3::new();
    let repo = s3.repo("indexed");
    stopped(&s3, &repo, "indexed", Mood::Serves, None);
    let stored = packs(&s3, "indexed").len();
    let named = repo.run(Peer::Restic019, ["list", "packs", "--no-lock"]).ok().text().lines().count();
    assert_eq!(named, stored);
}
