//! The command `demo`: backs up, checks and restores a sample volume with a repository in a folder.
//!
//! The demonstration creates a sample volume, or reads a directory of the user. It backs the volume
//! up, checks the repository, changes the sample, backs it up again, restores and compares it, and
//! prints how stock restic opens the repository. Each step runs this program with the options that
//! it prints.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::clock;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover demo
  vsm-mover demo /etc --work-dir /tmp/vsm-demo")]
pub struct Args {
    /// Directory to back up instead of a sample volume; it is only read
    path: Option<PathBuf>,
    /// Put the repository, the sample and the restored copy into this new directory [default: one
    /// below $TMPDIR or /tmp]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

const PASSWORD: &str = "demo";

/// The directories of one demonstration.
struct Story<'c> {
    context: &'c Context,
    repository: PathBuf,
    source: PathBuf,
    restored: PathBuf,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let unique = u32::from_le_bytes(clock::random_bytes());
    let work = args.work_dir.unwrap_or_else(|| std::env::temp_dir().join(format!("vsm-demo-{unique:08x}")));
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let work = fs::canonicalize(&work)?;
    let own_sample = args.path.is_none();
    let story = Story {
        context,
        repository: work.join("repository"),
        source: args.path.map_or_else(|| Ok(work.join("volume")), fs::canonicalize)?,
        restored: work.join("restored"),
    };
    if own_sample {
        story.say(
            "Create a sample volume: a database, logs, pictures, a sparse disk image, links, a name that is not UTF-8",
        )?;
        make_sample(&story.source)?;
    }
    let source = path_text(&story.source)?;
    let restored = path_text(&story.restored)?;
    story.step("Initialize a repository", &["init"])?;
    let first = story.step("Back up the volume", &["backup", "--volume", source, "--host", "demo"])?;
    story.tell_backup(&first)?;
    story.step("Read and verify all data of the repository", &["check", "--read-data"])?;
    if own_sample {
        story.say("Change a part of the database, append to a log, and delete a picture")?;
        change_sample(&story.source)?;
    }
    let second =
        story.step("Back up again: only new data is stored", &["backup", "--volume", source, "--host", "demo"])?;
    story.tell_backup(&second)?;
    let restore = ["restore", "latest", "--volume", "--target", restored];
    story.tell_restore(&story.step("Restore the volume into a new directory", &restore)?)?;
    story.say("Compare types, sizes, modes, owners, times, link targets and every byte:")?;
    let compared = compare(&story.source, &story.restored)?;
    story.note(&format!("{compared} entries compared, no difference"))?;
    story.step("Read and verify all data again", &["check", "--read-data"])?;
    story.say("Stock restic can open the repository, too:")?;
    let restic = format!("{}RESTIC_PASSWORD={PASSWORD} restic -r {}", without_others(), story.repository.display());
    story.note(&format!("{restic} snapshots"))?;
    story.note(&format!("{restic} restore latest --target /tmp/by-restic"))?;
    story.say(&format!("All files are in {}; remove this directory when you no longer need it.", work.display()))?;
    Ok(Outcome::Complete)
}

/// The beginning of a shell command that hides the user's password and repository from restic.
fn without_others() -> String {
    let others = ["RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND", "RESTIC_REPOSITORY_FILE"];
    let set: Vec<String> =
        others.iter().filter(|name| std::env::var_os(name).is_some()).map(|name| format!("-u {name} ")).collect();
    if set.is_empty() { String::new() } else { format!("env {}", set.concat()) }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8, which this demo needs to show its commands", path.display()))
}

impl Story<'_> {
    fn say(&self, text: &str) -> Result<()> {
        Ok(self.context.out.line(format_args!("\n{text}"))?)
    }

    fn note(&self, text: &str) -> Result<()> {
        Ok(self.context.out.line(format_args!("    {text}"))?)
    }

    /// Runs this program with the arguments, and prints the command line. Returns the last JSON
    /// line of its output.
    fn step(&self, title: &str, arguments: &[&str]) -> Result<Value> {
        self.say(title)?;
        self.note(&format!("$ vsm-mover -r {} {}", self.repository.display(), arguments.join(" ")))?;
        let started = clock::moment();
        let mut command = Command::new(std::env::current_exe()?);
        // The user's repository, password and host do not apply to the demonstration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"RESTIC_")) {
            command.env_remove(name);
        }
        let output = command
            .arg("--repo")
            .arg(&self.repository)
            .arg("--json")
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .output()?;
        if !output.status.success() {
            bail!("the command failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        self.note(&format!("done in {:.2} s", clock::moment().since(started).as_secs_f64()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null))
    }

    fn tell_backup(&self, summary: &Value) -> Result<()> {
        let mib = |key: &str| mebibytes(summary, key);
        self.note(&format!(
            "{} files, {:.1} MiB; {:.1} MiB of it new, stored as {:.1} MiB; snapshot {}",
            summary["total_files_processed"],
            mib("total_bytes_processed"),
            mib("data_added"),
            mib("data_added_packed"),
            summary["snapshot_id"].as_str().unwrap_or("?").get(..8).unwrap_or("?"),
        ))
    }

    fn tell_restore(&self, summary: &Value) -> Result<()> {
        self.note(&format!(
            "{} files and directories, {:.1} MiB",
            summary["files_restored"],
            mebibytes(summary, "bytes_restored")
        ))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn mebibytes(summary: &Value, key: &str) -> f64 {
    summary[key].as_u64().unwrap_or(0) as f64 / f64::from(1 << 20)
}

/// Pseudo-random bytes, the same for the same seed (splitmix64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn make_sample(root: &Path) -> Result<()> {
    let join = |name: &str| root.join(name);
    for dir in ["base/16384", "log", "media", "etc/empty"] {
        fs::create_dir_all(join(dir))?;
    }
    // 32 MiB of database pages: half of each is rows, half is free space.
    let pages = (0..4096u64).flat_map(|page| [noise(page, 4096), vec![0; 4096]]).flatten().collect::<Vec<u8>>();
    fs::write(join("base/16384/2619"), pages)?;
    fs::write(join("log/server.log"), log_lines(0..200_000))?;
    for picture in 0..8 {
        fs::write(join(&format!("media/{picture}.jpg")), noise(1000 + picture, 2 << 20))?;
    }
    for file in 0..2000 {
        let dir = join(&format!("etc/{:02}", file % 50));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("{file}.conf")), format!("setting = {file}\n"))?;
    }
    let image = fs::File::create(join("disk.img"))?;
    image.set_len(1 << 30)?;
    for extent in 0..8u64 {
        image.write_all_at(&noise(2000 + extent, 1 << 20), (extent * 127) << 20)?;
    }
    symlink("base/16384/2619", join("current"))?;
    fs::hard_link(join("media/0.jpg"), join("media/cover.jpg"))?;
    use std::os::unix::ffi::OsStrExt;
    fs::write(
        root.join(std::ffi::OsStr::from_bytes(b"latin1-\xe4\xf6\xfc \"quoted\"\n")),
        b"a name that is not UTF-8\n",
    )?;
    fs::set_permissions(join("log"), fs::Permissions::from_mode(0o2750))?;
    Ok(fs::set_permissions(root, fs::Permissions::from_mode(0o1770))?)
}

fn log_lines(range: std::ops::Range<u32>) -> String {
    range
        .map(|line| format!("2026-01-01T00:00:{:02}Z request {line} served in {} ms\n", line % 60, line * 7919 % 1000))
        .collect()
}

fn change_sample(root: &Path) -> Result<()> {
    let database = fs::OpenOptions::new().write(true).open(root.join("base/16384/2619"))?;
    for page in 0..16u64 {
        database.write_all_at(&noise(9000 + page, 4096), page * 8192)?;
    }
    fs::write(root.join("log/server.log"), log_lines(0..210_000))?;
    Ok(fs::remove_file(root.join("media/7.jpg"))?)
}

/// Compares two trees without the engine; the first difference is an error.
fn compare(left: &Path, right: &Path) -> Result<u64> {
    let (a, b) = (fs::symlink_metadata(left)?, fs::symlink_metadata(right)?);
    let facts = |meta: &fs::Metadata| {
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec(), meta.rdev(), links, size)
    };
    if facts(&a) != facts(&b) {
        bail!(
            "{} and {} differ in their metadata: {:?} and {:?}",
            left.display(),
            right.display(),
            facts(&a),
            facts(&b)
        );
    }
    if a.is_symlink() && fs::read_link(left)? != fs::read_link(right)? {
        bail!("{} and {} point to different targets", left.display(), right.display());
    }
    if a.is_file() && !same_content(left, right)? {
        bail!("{} and {} have different content", left.display(), right.display());
    }
    let mut compared = 1;
    if a.is_dir() {
        let names = |dir: &Path| -> Result<std::collections::BTreeSet<std::ffi::OsString>> {
            Ok(fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<std::io::Result<_>>()?)
        };
        let (a, b) = (names(left)?, names(right)?);
        if let Some(name) = a.symmetric_difference(&b).next() {
            bail!("{} is in only one of {} and {}", name.to_string_lossy(), left.display(), right.display());
        }
        for name in a {
            compared += compare(&left.join(&name), &right.join(&name))?;
        }
    }
    Ok(compared)
}

fn same_content(left: &Path, right: &Path) -> Result<bool> {
    use std::io::Read;
    let (mut a, mut b) = (fs::File::open(left)?, fs::File::open(right)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let got = a.read(&mut left)?;
        if got == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        if b.read_exact(&mut right[..got]).is_err() || left[..got] != right[..got] {
            return Ok(false);
        }
    }
}
