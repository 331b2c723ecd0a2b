//! The large data sets of the full tier: restic and ours back up each, and both check and restore
//! each repository. A large index is read by rustic, too.
//!
//! `tests/full` runs these tests one by one and collects their rows. Our program must stay within
//! [`MEMORY_MAX_KIB`].

use crate::common::compare::{self, Options};
use crate::common::loops::LoopFs;
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run, installed};
use crate::common::{Random, scratch};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use vsm::format::BlobType;
use vsm::format::pack::{self, PackedBlob};
use vsm::format::snapshot::Snapshot;
use vsm::format::time::Time;
use vsm::id::Id;
use vsm::repo::{Password, Repository, Settings};
use vsm::store::{FileType, layout};

const MIB: u64 = 1 << 20;
const TOOLS: [Peer; 2] = [Peer::Restic019, Peer::Vsm];

/// The memory limit of the engine.
const MEMORY_MAX_KIB: u64 = 192 << 10;

/// Additional bytes for each blob in the index.
const BLOB: u64 = 48;

/// Additional bytes for each chunk of a file, in JSON and in the structures that are made from it.
/// Chunks of zeros are the shortest.
const CHUNK: u64 = 67 + 2 * 32 + 32;
const SHORTEST_CHUNK: u64 = 512 << 10;

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn file_of_4_gib() {
    demand("a 4 GiB file", &[], |dir| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(dir.join("image")).expect("a file"));
        let mut random = Random(41);
        // Extents of 4 MiB as a volume has them: random, text-like, zero, and seen before.
        let text: Vec<u8> = (0..4 * MIB).map(|_| b"etaoin shrdlu\n"[random.below(14) as usize]).collect();
        for _ in 0..1024 {
            match random.below(8) {
                0..4 => out.write_all(&random.bytes(4 << 20)),
                4 | 5 => {
                    let from = random.below(4 * MIB) as usize;
                    out.write_all(&text[from..]).and_then(|()| out.write_all(&text[..from]))
                }
                6 => out.write_all(&vec![0; 4 << 20]),
                _ => out.write_all(&Random(random.below(4)).bytes(4 << 20)),
            }
            .expect("space");
        }
        out.flush().expect("space");
    });
}

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn small_files_200000() {
    demand("200,000 small files", &[], |dir| {
        let mut random = Random(42);
        for number in 0..200_000 {
            let parent = dir.join(format!("{:02}/{:02}", number % 40, number / 40 % 50));
            if number < 2000 {
                std::fs::create_dir_all(&parent).expect("directories");
            }
            let len = random.below(8192) as usize;
            std::fs::write(parent.join(format!("file {number}")), random.bytes(len)).expect("space");
        }
    });
}

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn sparse_file_of_20_gib() {
    demand("a 20 GiB sparse file with 500 MiB of data", &["--sparse"], |dir| sparse_file(dir, 20 << 30));
}

/// restic reads and hashes every zero of the file, which takes most of an hour.
#[test]
#[ignore = "the full tier: tests/full runs it"]
fn sparse_file_of_1_tib() {
    let most = MEMORY_MAX_KIB + (((1 << 40) / SHORTEST_CHUNK * CHUNK) >> 10);
    let what = "a 1 TiB sparse file with 500 MiB of data";
    demand_within(most, what, &["--sparse"], |dir| sparse_file(dir, 1 << 40));
}

/// A file with 500 MiB of data at random offsets.
fn sparse_file(dir: &Path, size: u64) {
    let mut file = File::create(dir.join("image")).expect("a file");
    file.set_len(size).expect("its length");
    let mut random = Random(43);
    for _ in 0..500 {
        file.seek(SeekFrom::Start(random.below(size - MIB))).expect("a place");
        file.write_all(&random.bytes(1 << 20)).expect("space");
    }
}

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn directory_of_100000() {
    demand("a directory of 100,000 entries", &[], |dir| {
        let mut random = Random(44);
        for number in 0..100_000 {
            let name = format!("{:016x} a name of a usual length {number}", random.next());
            std::fs::write(dir.join(name), number.to_string()).expect("space");
        }
    });
}

/// A repository after years of use. Its packs are holes of the right sizes, which only
/// `--read-data` would notice.
#[test]
#[ignore = "the full tier: tests/full runs it"]
fn ten_million_blobs() {
    const PACKS: u64 = 100_000;
    let repo = Repo::empty(2);
    let source = scratch();
    std::fs::create_dir(source.path().join("data")).expect("a directory");
    (0..20).for_each(|n| std::fs::write(source.path().join(format!("data/{n}")), n.to_string()).expect("a file"));
    repo.backup(Peer::Restic019, source.path(), "data", &[]);
    let opened = open(&repo);
    let first = opened.snapshots().expect("snapshots").0.remove(0).snapshot;
    for second in 1..1000 {
        let time = Time::utc(first.time.seconds + second, 0);
        opened.save_file(FileType::Snapshot, Snapshot { time, ..first.clone() }.encode()).expect("a snapshot");
    }
    add_packs(&repo, PACKS);
    let what = "10,000,000 blobs in 100,000 packs, 1,000 snapshots";
    let most = MEMORY_MAX_KIB + ((PACKS * BLOBS * BLOB) >> 10);
    let mut rows = Rows { what, text: String::new(), excess: Vec::new(), most };
    for words in [&["snapshots", "--json"][..], &["ls", "latest"], &["check"], &["prune", "--dry-run"]] {
        for peer in [Peer::Restic019, Peer::Rustic, Peer::Vsm] {
            let mut command = repo.command(peer);
            // rustic has no such option; `Repo::command` has made it quiet.
            command.args(words).args(if peer == Peer::Rustic { &[] as &[_] } else { &["--quiet"] });
            rows.add(&words.join(" "), peer, Peer::Restic019, command);
        }
    }
    rows.most = MEMORY_MAX_KIB;
    let mut command = repo.command(Peer::Vsm);
    command.args(["prune", "--dry-run", "--quiet", "--memory", "128M"]);
    rows.add("prune --dry-run --memory 128M", Peer::Vsm, Peer::Restic019, command);
    rows.leave();
}

fn open(repo: &Repo) -> Repository {
    let location = repo.path().to_str().expect("UTF-8").parse().expect("a location");
    let store = vsm::store::open(&location, &vsm::store::Options::default()).expect("a store");
    Repository::open(store, &Password::new(PASSWORD), None, Settings::default()).expect("it opens")
}

/// Blobs in each pack that [`add_packs`] makes, and bytes of each.
const BLOBS: u64 = 100;
const LENGTH: u64 = 1000;

/// Adds packs that no snapshot needs, a multiple of 500, and index files that name them. The packs
/// are holes of the right sizes.
pub fn add_packs(repo: &Repo, packs: u64) {
    let opened = open(repo);
    let mut random = Random(45);
    let mut id = || Id(random.bytes(32).try_into().expect("32 bytes"));
    let blob = |id| PackedBlob { ty: BlobType::Data, id, offset: 0, length: LENGTH as u32, uncompressed: 0 };
    let some: Vec<PackedBlob> = (0..BLOBS).map(|_| blob(Id::NULL)).collect();
    let size = BLOBS * LENGTH + pack::header_size(&some);
    for _ in 0..packs / 500 {
        let packs: Vec<String> = (0..500)
            .map(|_| {
                let pack = id();
                let file = repo.path().join(layout::path(vsm::store::File::new(FileType::Pack, pack)));
                std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
                File::create(file).and_then(|file| file.set_len(size)).expect("a pack");
                let blobs = (0..BLOBS)
                    .map(|n| format!(r#"{{"id":"{}","type":"data","offset":{},"length":{LENGTH}}}"#, id(), n * LENGTH));
                format!(r#"{{"id":"{pack}","blobs":[{}]}}"#, blobs.collect::<Vec<_>>().join(","))
            })
            .collect();
        let index = format!(r#"{{"packs":[{}]}}"#, packs.join(","));
        opened.save_file(FileType::Index, index.into_bytes()).expect("an index");
    }
}

fn demand(what: &str, sparse: &[&str], make: impl FnOnce(&Path)) {
    demand_within(MEMORY_MAX_KIB, what, sparse, make);
}

/// Makes the data, backs it up with each tool, and checks and restores each repository with both.
/// Prints each row, and fails at the end if ours used more memory than `most` KiB.
fn demand_within(most: u64, what: &str, sparse: &[&str], make: impl FnOnce(&Path)) {
    // Separate file systems: dropping one is faster by minutes than removing 200,000 files.
    let room = || LoopFs::with_options(28 << 30, &["-N", "300000"]);
    let source = room();
    std::fs::create_dir(source.path().join("data")).expect("a directory");
    make(&source.path().join("data"));
    let mut rows = Rows { what, text: String::new(), excess: Vec::new(), most };
    for writer in TOOLS {
        let repo = Repo::made_by(writer, 2);
        let mut command = repo.command(writer);
        command.current_dir(source.path()).args(["backup", "--quiet", "--host", HOST, "data"]);
        rows.add("backup", writer, writer, command);
        for reader in TOOLS {
            let mut command = repo.command(reader);
            command.args(["check", "--read-data", "--quiet"]);
            rows.add("check --read-data", reader, writer, command);
            let target = room();
            let mut command = repo.command(reader);
            command.args(["restore", "latest", "--quiet", "--target"]).arg(target.path());
            // Our restore keeps holes without an option.
            command.args(if reader == Peer::Vsm { &[] } else { sparse });
            rows.add("restore", reader, writer, command);
            let options = Options { root: true, holes: reader == Peer::Vsm };
            compare::assert_same(&source.path().join("data"), &target.path().join("data"), options);
        }
    }
    rows.leave();
}

struct Rows<'w> {
    what: &'w str,
    text: String,
    /// The rows of our runs that exceeded the limit.
    excess: Vec<String>,
    /// The limit in KiB.
    most: u64,
}

impl Rows<'_> {
    /// Runs a command, which must succeed, under a program that measures its peak memory.
    fn add(&mut self, operation: &str, by: Peer, of: Peer, command: Command) {
        let told = scratch();
        let told = told.path().join("peak");
        // rustic runs as its authors build it, not as it is quickly built for the other tests.
        let program =
            if by == Peer::Rustic { installed("rustic-release").into() } else { command.get_program().to_owned() };
        let mut measured = Command::new("/usr/bin/time");
        measured.arg("--format=%M").arg("--output").arg(&told).arg(program).args(command.get_args());
        measured.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            measured.current_dir(dir);
        }
        let start = Instant::now();
        Run::of(&mut measured).ok();
        let seconds = start.elapsed().as_secs_f64();
        let peak_kib: u64 = std::fs::read_to_string(&told).expect("a number").trim().parse().expect("a number");
        let (by_name, of_name) = (by.name(), of.name());
        let row =
            format!("| {} | {operation} | {by_name} | {of_name} | {seconds:.1} | {} |\n", self.what, peak_kib >> 10);
        print!("{row}");
        if by == Peer::Vsm && peak_kib > self.most {
            self.excess.push(row.clone());
        }
        self.text.push_str(&row);
    }

    fn leave(self) {
        assert!(self.excess.is_empty(), "more than {} MiB:\n{}", self.most >> 10, self.excess.concat());
        if let Some(file) = std::env::var_os("VSM_FULL_ROWS") {
            std::fs::write(file, self.text).expect("the rows");
        }
    }
}
