//! Benchmarks ours, restic and rustic: the same work, in turn, on the same medium, in one run.
//!
//! `cargo bench --bench peers` measures everything, which takes some hours;
//! `-- --rounds 1 --only random,tiny-files` measures a part. Needs root (to mount a tmpfs for the
//! measurements that must not wait for a disk), 24 GiB of memory and 40 GB of disk.
//! `tests/peers/install rustic-release` installs the peers. In the first round, every restored tree
//! is compared with its source, and restic checks the repositories that ours wrote.
//!
//! The measurements are stored in `target/bench/rows` and not repeated with the same binary of
//! ours: an interrupted run resumes, and partial runs add up. The medians are printed; with
//! `--publish` they replace the last ones in the documents.

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
    /// Number of rounds, of which the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Volumes to back up, by the names of their directories; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Media to measure on; all by default.
    #[arg(long, value_delimiter = ',', value_parser = Medium::parse)]
    media: Vec<Medium>,
    /// Write the tables and pictures into the documents.
    #[arg(long)]
    publish: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The work on each volume after its first backup.
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
        Data::VmImageChanged => unreachable!("the changed image is measured with the image"),
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

/// The volumes that are measured on a medium.
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
                // The order rotates, so that no tool always runs first or always after the same.
                for turn in 0..TOOLS.len() {
                    let tool = TOOLS[(turn + round) % TOOLS.len()];
                    // Behind a link or on a network volume, the extra verification costs no time.
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
    // In the order of media and volumes, not in that of the measurements.
    rows.sort_by_key(|row| {
        (MEDIA.iter().position(|&medium| medium == row.medium), ALL.iter().position(|data| *data == row.data))
    });
    let table = report::table(&rows);
    println!("\n{table}");
    if arguments.publish {
        report::publish(&rows, &TOOLS.map(|tool| tool.version(&peers)));
    }
}

/// The file of all rows, one on each line after the fingerprint of the measured binary.
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

    /// Appends all rows of a tool's run at once, so that no partial run is stored.
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
        // Connections are reused, as with an object store.
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
    // Without the extra verification, only the first backup is measured.
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
    // Known blobs exist in the index only, so a check of them fails.
    if first && tool == Tool::Ours && data.known_blobs() == 0 {
        let direct = match &server {
            Some(server) => Place::s3(Tool::Restic, peers, scratch, server.port, None),
            None => place.by(Tool::Restic),
        };
        direct.check();
    }
    rows
}

/// Runs `work` on a volume, which is freshly mounted if the medium is a network volume. Returns the
/// cost and the number of operations of that file system.
fn on_volume(medium: Medium, volume: &Path, scratch: &Path, work: impl FnOnce(&Path) -> Cost) -> (Cost, usize) {
    let Some(delay) = medium.delay else { return (work(volume), 0) };
    let mount = volume_at(scratch);
    fs::create_dir_all(&mount).expect("a directory");
    let slow = Slow::mount(volume, &mount, delay);
    let cost = work(&mount);
    let operations = slow.counts().values().sum::<u64>();
    (cost, usize::try_from(operations).expect("a number of operations"))
}

/// The mount point of a network volume.
fn volume_at(scratch: &Path) -> PathBuf {
    scratch.join("volume")
}

/// The directory below `target` into which a tool restores a source that was backed up as `.`.
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

/// Reads everything once, so that all tools find it in the page cache.
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

/// Reads the data of a file into the page cache, and drops everything else of it. Zeros of holes
/// must not be cached: they are not on a freshly mounted volume, and the first tool would cache
/// them for the others.
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

/// Uses as much memory as a run will, and frees it. A virtual machine returns free pages to its
/// host, and the first process that touches them again waits for the host: that must not be one of
/// the tools.
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

/// A mounted tmpfs; unmounted on drop.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Tmpfs {
        fs::create_dir_all(&at).expect("a directory");
        // A killed run leaves its tmpfs mounted.
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
