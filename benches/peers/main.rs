//! Ours against restic and rustic: the same work, in turn, on the same medium, in one run.
//!
//! `cargo bench --bench peers` does all of it, which takes some hours; `-- --rounds 1 --only random,tiny-files` a part. Needs root
//! (a tmpfs is mounted for what must not wait for a disk), 24 GiB of memory and 40 GB of disk. Peers are installed by
//! `tests/peers/install rustic-release`. Every restored tree is compared with its source, and restic checks what we wrote, in the first round.
//!
//! Whatever has been measured with this very binary of ours is kept in `target/bench/rows`, and not measured again: a run that was cut short
//! goes on, and parts add up. The medians are printed; with `--publish` they take the place of the last ones in the documents.

mod data;
mod medium;
mod model;
mod report;
mod tool;
mod work;

#[path = "../../tests/common/link.rs"]
mod link;
#[path = "../../tests/common/listening.rs"]
mod listening;
#[path = "../../tests/common/pass_through.rs"]
mod pass_through;
#[path = "../../tests/common/random.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod random;
#[path = "../../tests/common/slow.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod slow;
#[path = "../../tests/common/versitygw.rs"]
mod versitygw;

use clap::Parser;
use data::Data;
use link::Link;
use medium::{MEDIA, Medium, Repository};
use report::Row;
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use slow::Slow;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tool::{Cost, Place, TOOLS, Tool};
use work::Work;

#[derive(Parser)]
struct Arguments {
    /// Times that everything is done; medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Data by the names of their directories; all unless said.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where repositories and volumes are; all unless said.
    #[arg(long, value_delimiter = ',', value_parser = Medium::parse)]
    media: Vec<Medium>,
    /// Put the table and its picture into the documents.
    #[arg(long)]
    publish: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is done with each volume, beside its first backup.
fn plan(data: Data) -> &'static [Work] {
    match data {
        Data::Random => &[Work::Check, Work::Restore],
        Data::VmImage => &[Work::Touched, Work::Check, Work::Restore, Work::Changed],
        Data::SmallFiles => &[Work::Unchanged, Work::Check, Work::Restore],
        Data::TinyFiles => &[Work::Unchanged],
        Data::LessRandom | Data::LessVmImage => &[Work::Check, Work::ColdRestore],
        Data::Sources => &[Work::Unchanged, Work::Check, Work::ColdRestore, Work::Prune, Work::Snapshots],
        Data::FewFiles => &[Work::Unchanged, Work::Restore],
        Data::Sparse | Data::Text | Data::Zeros | Data::LargeIndex => &[],
        Data::VmImageChanged => unreachable!("it comes second, after the image"),
    }
}

const ALL: [Data; 12] = [
    Data::Random,
    Data::VmImage,
    Data::SmallFiles,
    Data::TinyFiles,
    Data::Sparse,
    Data::Text,
    Data::Zeros,
    Data::LargeIndex,
    Data::LessRandom,
    Data::LessVmImage,
    Data::Sources,
    Data::FewFiles,
];

/// What a medium is tried with.
fn volumes_for(medium: Medium) -> &'static [Data] {
    match medium.repository {
        Repository::Tmpfs if medium.delay.is_some() => &[Data::FewFiles],
        Repository::Tmpfs => &ALL[..8],
        Repository::S3 | Repository::Disk => &[Data::Random, Data::VmImage, Data::SmallFiles],
        Repository::Link { .. } => &[Data::LessRandom, Data::LessVmImage, Data::Sources],
    }
}

fn main() {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let peers = std::env::var_os("VSM_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from)
        .join("bin");
    assert!(peers.join("rustic").exists(), "no peers in {peers:?}: run tests/peers/install rustic-release first");
    let chosen = |data: &Data| arguments.only.is_empty() || arguments.only.iter().any(|name| name == data.directory());
    let volumes = root.join("data");
    fs::create_dir_all(&volumes).expect("a directory");

    let memory = Tmpfs::mount(root.join("tmpfs"));
    let kept = Kept { file: root.join("rows"), binary: tool::fingerprint() };
    let mut rows = kept.load();
    let media = if arguments.media.is_empty() { MEDIA.to_vec() } else { arguments.media.clone() };
    for medium in media {
        let base = if medium.repository == Repository::Disk { root.join("disk") } else { memory.0.clone() };
        for &data in volumes_for(medium).iter().filter(|data| chosen(data)) {
            data.make(&volumes).expect("room for the volume");
            for round in 0..arguments.rounds {
                // Nobody is always first, and none always after the same.
                for turn in 0..TOOLS.len() {
                    let tool = TOOLS[(turn + round) % TOOLS.len()];
                    // Behind a link the proof costs nothing.
                    let local = medium.link().is_none() && medium.delay.is_none();
                    if tool == Tool::OursUnverified && !local {
                        continue;
                    }
                    let done = |row: &&Row| row.medium == medium && row.data == data && row.tool == tool;
                    if rows.iter().filter(done).filter(|row| row.work == Work::Backup).count() > round {
                        continue;
                    }
                    let scratch = base.join("run");
                    let _ = fs::remove_dir_all(&scratch);
                    fs::create_dir_all(&scratch).expect("a directory");
                    let new = run(medium, data, tool, round == 0, &volumes, &scratch, &peers);
                    new.iter().for_each(Row::print);
                    kept.add(&new);
                    rows.extend(new);
                    fs::remove_dir_all(&scratch).expect("it can be removed");
                }
            }
        }
    }
    // However they were measured: by medium and data as above.
    rows.sort_by_key(|row| {
        (MEDIA.iter().position(|&medium| medium == row.medium), ALL.iter().position(|data| *data == row.data))
    });
    let table = report::table(&rows);
    println!("\n{table}");
    if arguments.publish {
        report::publish(&rows, &TOOLS.map(|tool| tool.version(&peers)));
    }
}

/// The rows of all runs, one to a line after the fingerprint of the binary that was measured.
struct Kept {
    file: PathBuf,
    binary: String,
}

impl Kept {
    fn load(&self) -> Vec<Row> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once('\t').filter(|(binary, _)| *binary == self.binary))
            .map(|(_, row)| Row::parse(row, &ALL, &TOOLS).unwrap_or_else(|| panic!("not a row: {row}")))
            .collect()
    }

    /// All rows of a tool's run at once, so that no half of one is kept.
    fn add(&self, rows: &[Row]) {
        let lines: String = rows.iter().map(|row| format!("{}\t{}\n", self.binary, row.line())).collect();
        let mut file = File::options().create(true).append(true).open(&self.file).expect("the kept rows");
        file.write_all(lines.as_bytes()).expect("room for them");
    }
}

/// One tool with a repository of its own, from the first backup to the last restore.
fn run(medium: Medium, data: Data, tool: Tool, first: bool, volumes: &Path, scratch: &Path, peers: &Path) -> Vec<Row> {
    let source = volumes.join(data.directory());
    let repository = scratch.join("repository");
    let log = scratch.join("requests");
    let start_server = || {
        // As object stores do: a connection is used again.
        let options = ["--keep-alive", "--access-log", log.to_str().expect("a path")];
        versitygw::start(&peers.join("versitygw"), &repository, &scratch.join("log"), &options)
    };
    let (server, link, connections) = match medium.repository {
        Repository::Tmpfs | Repository::Disk => (None, None, None),
        Repository::S3 => (Some(start_server()), None, None),
        Repository::Link { profile, connections } => {
            let server = start_server();
            let link = Link::to(server.port, profile);
            (Some(server), Some(link), connections)
        }
    };
    let port = link.as_ref().map(Link::port).or(server.as_ref().map(|server| server.port));
    let place = match port {
        Some(port) => Place::s3(tool, peers, scratch, port, connections),
        None => Place::folder(tool, peers, scratch, &repository),
    };
    let requests_so_far = || fs::read_to_string(&log).map_or(0, |log| log.lines().count());
    place.init();
    if data.known_blobs() > 0 {
        data::add_known_blobs(&repository, data.known_blobs());
    }
    let mut rows = Vec::new();
    let mut requests = requests_so_far();
    let mut add = |work: Work, (cost, operations): (Cost, usize)| {
        let so_far = requests_so_far();
        let requests_now = so_far - std::mem::replace(&mut requests, so_far) + operations;
        let row = Row { medium, data, work, tool, cost, repository: size(&repository), requests: requests_now };
        rows.push(row);
    };
    touch_memory(scratch);
    warm(&source);
    let back_up = |from: &Path| on_volume(medium, from, scratch, |from| place.backup(from));
    add(Work::Backup, back_up(&source));
    // The proof costs nothing when nothing is read or all is known.
    let works = if tool == Tool::OursUnverified { &[] } else { plan(data) };
    for &work in works {
        let cost = match work {
            Work::Backup => unreachable!("it came first"),
            Work::Unchanged => back_up(&source),
            Work::Touched => {
                touch(&source.join("image"));
                back_up(&source)
            }
            Work::Changed => {
                let changed = Data::VmImageChanged;
                changed.make(volumes).expect("room for the volume");
                let changed = volumes.join(changed.directory());
                warm(&changed);
                back_up(&changed)
            }
            Work::Check => (place.check(), 0),
            Work::Prune => (place.prune(), 0),
            Work::Snapshots => (place.snapshots(), 0),
            Work::Restore | Work::ColdRestore => {
                if work == Work::ColdRestore {
                    place.forget_cache();
                }
                let target = scratch.join("restored");
                fs::create_dir(&target).expect("a directory");
                touch_memory(scratch);
                let cost = on_volume(medium, &target, scratch, |target| place.restore(target));
                if first {
                    let from = if medium.delay.is_some() { volume_at(scratch) } else { source.clone() };
                    demand_same(&source, &restored(tool, &from, &target));
                }
                fs::remove_dir_all(target).expect("it can be removed");
                cost
            }
        };
        add(work, cost);
    }
    // Of blobs that were known before there is no more than an index.
    if first && tool == Tool::Ours && data.known_blobs() == 0 {
        let direct = match &server {
            Some(server) => Place::s3(Tool::Restic, peers, scratch, server.port, None),
            None => place.by(Tool::Restic),
        };
        direct.check();
    }
    rows
}

/// Does something with a volume that has just been mounted, if it is one of the network: what that
/// cost, and the operations that the file system was asked for.
fn on_volume(medium: Medium, volume: &Path, scratch: &Path, work: impl FnOnce(&Path) -> Cost) -> (Cost, usize) {
    let Some(delay) = medium.delay else { return (work(volume), 0) };
    let mount = volume_at(scratch);
    fs::create_dir_all(&mount).expect("a directory");
    let slow = Slow::mount(volume, &mount, delay);
    let cost = work(&mount);
    let operations = slow.counts().values().sum::<u64>();
    (cost, usize::try_from(operations).expect("a number of operations"))
}

/// Where a volume of the network is mounted.
fn volume_at(scratch: &Path) -> PathBuf {
    scratch.join("volume")
}

/// Where a tool put what was backed up as `.`.
fn restored(tool: Tool, source: &Path, target: &Path) -> PathBuf {
    match tool {
        Tool::Rustic => {
            let below = target.join(source.strip_prefix("/").expect("absolute"));
            if below.exists() { below } else { target.to_owned() }
        }
        _ => target.to_owned(),
    }
}

fn demand_same(source: &Path, restored: &Path) {
    let status = Command::new("diff").args(["-r", "--no-dereference"]).arg(source).arg(restored).status();
    assert!(status.expect("diff starts").success(), "{restored:?} is not {source:?}");
}

/// Reads everything once, so that all tools find it in memory.
fn warm(path: &Path) {
    let entries = fs::read_dir(path).expect("a directory");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            warm(&entry.path());
        } else if kind.is_file() {
            warm_file(&File::open(entry.path()).expect("the file")).expect("it can be read");
        }
    }
}

/// Reads what is not in holes, and nothing else stays in memory: the first tool that reads the holes would leave their zeros there for
/// the others, and nobody has them from a volume that was just mounted.
fn warm_file(mut file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.blocks() * 512 < metadata.len() {
        fadvise(file, 0, None, Advice::DontNeed)?;
    }
    let mut at = 0;
    loop {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(data))?;
        seek(file, SeekFrom::Start(data))?;
        io::copy(&mut Read::by_ref(&mut file).take(at - data), &mut io::sink())?;
    }
}

/// Uses as much memory as a run will, and frees it. A virtual machine gives free pages back to its host, and whoever is first to
/// touch them again waits for the host: that must not be one of the tools.
fn touch_memory(scratch: &Path) {
    let path = scratch.join("touched");
    let mut file = File::create(&path).expect("a file");
    io::copy(&mut io::repeat(0).take(5 << 30), &mut file).expect("room for it");
    fs::remove_file(path).expect("it can be removed");
}

fn touch(file: &Path) {
    let file = File::options().write(true).open(file).expect("the file");
    file.set_modified(std::time::SystemTime::now()).expect("its time");
}

/// Bytes of all files below a directory.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Memory as a file system, unmounted in the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Tmpfs {
        fs::create_dir_all(&at).expect("a directory");
        // What a killed run left mounted.
        let _ = Command::new("umount").arg("--quiet").arg(&at).status();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=18g", "bench"]).arg(&at).status();
        assert!(status.expect("mount starts").success(), "cannot mount a tmpfs: root is needed");
        Tmpfs(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
