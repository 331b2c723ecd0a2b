//! The volumes that are backed up: made from fixed seeds, so that every machine has the same bytes.

use crate::random::Random;
use crate::tool::PASSWORD;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use vsm::format::BlobType;
use vsm::format::index_file::{self, IndexedPack};
use vsm::format::pack::PackedBlob;
use vsm::id::Id;
use vsm::repo::{Password, Repository, Settings};
use vsm::store::{self, FileType};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// The content of a volume to back up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    Random,
    VmImage,
    /// The image with 1 % of its 4 KiB pages overwritten.
    VmImageChanged,
    SmallFiles,
    TinyFiles,
    Sparse,
    Text,
    Zeros,
    /// One small file, for a repository whose index lists the blobs of a terabyte.
    LargeIndex,
    /// Like [`Data::Random`], but small enough to pass a slow link in seconds.
    LessRandom,
    /// Like [`Data::VmImage`], but small enough to pass a slow link in seconds.
    LessVmImage,
    /// Source files, of some KiB each.
    Sources,
    /// A small tree, for volumes on which each operation takes long.
    FewFiles,
}

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Data::Random => "4 GiB random",
            Data::VmImage => "4 GiB VM image",
            Data::VmImageChanged => "VM image, 1 % of its pages changed",
            Data::SmallFiles => "172,000 small files",
            Data::TinyFiles => "300,000 tiny files",
            Data::Sparse => "20 GiB sparse with 500 MiB of data",
            Data::Text => "1 GiB text",
            Data::Zeros => "4 GiB zeros",
            Data::LargeIndex => "one file beside 1,000,000 known blobs",
            Data::LessRandom => "768 MiB random",
            Data::LessVmImage => "1 GiB VM image",
            Data::Sources => "32,000 source files",
            Data::FewFiles => "4,242 files",
        }
    }

    /// The number of blobs that the repository's index lists before the backup.
    pub fn known_blobs(self) -> usize {
        if self == Data::LargeIndex { 1_000_000 } else { 0 }
    }

    /// The name of its directory.
    pub fn directory(self) -> &'static str {
        match self {
            Data::Random => "random",
            Data::VmImage => "vm-image",
            Data::VmImageChanged => "vm-image-changed",
            Data::SmallFiles => "small-files",
            Data::TinyFiles => "tiny-files",
            Data::Sparse => "sparse",
            Data::Text => "text",
            Data::Zeros => "zeros",
            Data::LargeIndex => "large-index",
            Data::LessRandom => "less-random",
            Data::LessVmImage => "less-vm-image",
            Data::Sources => "sources",
            Data::FewFiles => "few-files",
        }
    }

    /// Creates the volume in `root` unless it exists. An interrupted attempt starts from scratch.
    pub fn make(self, root: &Path) -> io::Result<()> {
        let (done, part) = (root.join(self.directory()), root.join("part"));
        if done.exists() {
            return Ok(());
        }
        eprintln!("making {}", self.name());
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        let image = part.join("image");
        match self {
            Data::Random => fill(&image, 4 * GIB, |at, out| random(1, at).fill(out)),
            Data::VmImage => fill(&image, 4 * GIB, vm_extent),
            Data::VmImageChanged => {
                Data::VmImage.make(root)?;
                fs::copy(root.join(Data::VmImage.directory()).join("image"), &image)?;
                change_pages(&image)
            }
            Data::SmallFiles => small_files(&part, 172_000),
            Data::TinyFiles => tiny_files(&part),
            Data::Sparse => sparse(&image),
            Data::Text => fill(&image, GIB, |at, out| text(&mut random(7, at), out)),
            Data::Zeros => fill(&image, 4 * GIB, |_, out| out.fill(0)),
            Data::LargeIndex => fill(&image, MIB as u64, |at, out| random(8, at).fill(out)),
            Data::LessRandom => fill(&image, 3 * GIB / 4, |at, out| random(1, at).fill(out)),
            Data::LessVmImage => fill(&image, GIB, vm_extent),
            Data::Sources => sources(&part),
            Data::FewFiles => small_files(&part, 4_242),
        }?;
        fs::rename(part, done)
    }
}

/// Adds index files with `count` blobs to a repository in a folder. The packs of these blobs do not
/// exist.
pub fn add_known_blobs(repository: &Path, count: usize) {
    let location = repository.to_str().and_then(|path| path.parse().ok()).expect("a folder");
    let store = store::open(&location, &store::Options::default()).expect("a store");
    let repository =
        Repository::open(store, &Password::new(PASSWORD), None, Settings::default()).expect("a repository");
    let mut random = random(9, 0);
    let mut id = || {
        let mut id = [0; 32];
        random.fill(&mut id);
        Id(id)
    };
    // Packs of 16 MiB, and index files as large as restic makes them.
    let (blobs_in_pack, packs_in_file) = (16, 3125);
    for _ in 0..count / (blobs_in_pack * packs_in_file) {
        let mut pack = || {
            let blob = |number| PackedBlob {
                ty: BlobType::Data,
                id: id(),
                offset: number * MIB as u32,
                length: MIB as u32,
                uncompressed: 2 * MIB as u32,
            };
            let blobs = (0..blobs_in_pack as u32).map(blob).collect();
            IndexedPack { blobs, id: id() }
        };
        let packs: Vec<IndexedPack> = (0..packs_in_file).map(|_| pack()).collect();
        repository.save_written(FileType::Index, |out| index_file::encode(&packs, out)).expect("an index file");
    }
}

/// An independent random stream for each seed and place.
fn random(seed: u64, place: u64) -> Random {
    Random(Random(seed << 56 ^ place).next())
}

/// A file made MiB by MiB.
fn fill(path: &Path, size: u64, extent: impl Fn(u64, &mut [u8])) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; MIB];
    for number in 0..size / MIB as u64 {
        extent(number, &mut buffer);
        file.write_all(&buffer)?;
    }
    file.sync_all()
}

/// One MiB of a virtual machine's disk: 40 % database pages, 18 % logs, 21 % program text, 7 %
/// media and 14 % zeros, which together compress about 2.4:1.
fn vm_extent(number: u64, out: &mut [u8]) {
    let mut random = random(2, number);
    match random.below(100) {
        0..40 => out
            .chunks_mut(8 * KIB)
            .enumerate()
            .for_each(|(page, out)| database_page(&mut random, number << 7 | page as u64, out)),
        40..58 => log(&mut random, out),
        58..79 => program(&mut random, out),
        79..86 => random.fill(out),
        _ => out.fill(0),
    }
}

/// Rows of numbers, times, a key that looks random and a short text; a fifth of the page is free.
fn database_page(random: &mut Random, number: u64, out: &mut [u8]) {
    out.fill(0);
    out[..8].copy_from_slice(&number.to_be_bytes());
    let end = out.len() * 4 / 5;
    for (row, out) in out[64..end].chunks_exact_mut(96).enumerate() {
        out[..8].copy_from_slice(&(number * 64 + row as u64).to_be_bytes());
        out[8..16].copy_from_slice(&(1_700_000_000_000 + random.below(1 << 36)).to_be_bytes());
        random.fill(&mut out[16..60]);
        let name = WORDS[random.below(WORDS.len() as u64) as usize].as_bytes();
        out[64..64 + name.len()].copy_from_slice(name);
        out[80] = random.below(4) as u8;
    }
}

const WORDS: [&str; 64] = [
    "request",
    "response",
    "volume",
    "snapshot",
    "controller",
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "not",
    "error",
    "warning",
    "restore",
    "backup",
    "claim",
    "storage",
    "class",
    "namespace",
    "pod",
    "node",
    "default",
    "return",
    "value",
    "index",
    "config",
    "driver",
    "status",
    "update",
    "create",
    "delete",
    "watch",
    "list",
    "object",
    "bucket",
    "prefix",
    "key",
    "token",
    "secret",
    "time",
    "size",
    "count",
    "bytes",
    "read",
    "write",
    "open",
    "close",
    "begin",
    "end",
    "result",
    "state",
    "phase",
    "failed",
    "completed",
    "pending",
    "running",
    "queue",
    "worker",
    "thread",
    "process",
    "memory",
    "limit",
    "quota",
];

/// Appends a word: three times in four one of the list, its first ones most often, and otherwise
/// random letters.
fn word(random: &mut Random, out: &mut Vec<u8>) {
    if random.below(4) == 0 {
        let mut letters = random.next();
        for _ in 0..3 + letters % 9 {
            letters = letters.rotate_right(5);
            out.push(b'a' + (letters & 31).min(25) as u8);
        }
    } else {
        let place = random.below(64).min(random.below(64));
        out.extend_from_slice(WORDS[place as usize].as_bytes());
    }
}

fn lines(random: &mut Random, out: &mut [u8], line: impl Fn(&mut Random, &mut Vec<u8>)) {
    let mut text = Vec::with_capacity(out.len() + 512);
    while text.len() < out.len() {
        line(random, &mut text);
        text.push(b'\n');
    }
    out.copy_from_slice(&text[..out.len()]);
}

fn text(random: &mut Random, out: &mut [u8]) {
    lines(random, out, |random, text| {
        for _ in 0..6 + random.below(10) {
            word(random, text);
            text.push(b' ');
        }
    });
}

fn log(random: &mut Random, out: &mut [u8]) {
    lines(random, out, |random, text| {
        let (second, process) = (random.below(86_400), random.below(400));
        let request = random.next();
        text.extend_from_slice(
            format!(
                "2026-11-{:02}T{second:05}Z host-{} app[{process}]: level=info request={request:016x} ",
                second % 28,
                process % 7
            )
            .as_bytes(),
        );
        for _ in 0..2 + random.below(6) {
            word(random, text);
            text.push(b'=');
            text.extend_from_slice(random.below(100_000).to_string().as_bytes());
            text.push(b' ');
        }
    });
}

fn program(random: &mut Random, out: &mut [u8]) {
    lines(random, out, |random, text| {
        text.resize(text.len() + 4 * random.below(5) as usize, b' ');
        for piece in ["", " = ", "(", ", ", ");"] {
            text.extend_from_slice(piece.as_bytes());
            word(random, text);
            if random.below(3) == 0 {
                text.push(b'_');
                word(random, text);
            }
        }
    });
}

fn change_pages(image: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(image)?;
    let pages = file.metadata()?.len() / 4096;
    let mut page = [0; 4096];
    for number in 0..pages / 100 {
        let mut random = random(3, number);
        let at = random.below(pages);
        random.fill(&mut page);
        file.write_all_at(&page, at * 4096)?;
    }
    file.sync_all()
}

/// Sizes as in a tree of sources, documents and libraries: 15 KiB on average, most of them below
/// 8 KiB, and a few of some MiB with a quarter of all bytes. One entry in 50 is a link.
fn small_files(root: &Path, count: u64) -> io::Result<()> {
    let mut content = vec![0; 8 * MIB];
    for number in 0..count {
        let mut random = random(4, number);
        let directory = root.join(format!("{:03}/{:02}", number / 8 % 430, number / 3440 % 50));
        if number % 8 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let path = directory.join(format!("file-{number}.txt"));
        if random.below(50) == 0 {
            symlink(format!("../{:02}/file-{}.txt", number % 50, number / 2), path)?;
            continue;
        }
        // Exponentially distributed, in 12 steps from 128 bytes on.
        let size = match random.below(700) {
            0 => 512 * KIB as u64 + random.below(5 * MIB as u64),
            _ => (128 << random.below(12).min(random.below(12) + 2)) + random.below(4096),
        };
        let content = &mut content[..size as usize];
        match random.below(10) {
            0 => random.fill(content),
            1..6 => program(&mut random, content),
            _ => text(&mut random, content),
        }
        fs::write(path, content)?;
    }
    Ok(())
}

/// Program text, 8 KiB on average, 16 files to a directory.
fn sources(root: &Path) -> io::Result<()> {
    let mut content = vec![0; 64 * KIB];
    for number in 0..32_000u64 {
        let mut random = random(10, number);
        let directory = root.join(format!("{:02}/{:02}", number / 16 % 40, number / 640));
        if number % 16 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let size = (512 << random.below(6)) + random.below(4096);
        let content = &mut content[..size as usize];
        program(&mut random, content);
        fs::write(directory.join(format!("source-{number}.rs")), content)?;
    }
    Ok(())
}

fn tiny_files(root: &Path) -> io::Result<()> {
    for number in 0..300_000u64 {
        let directory = root.join(format!("{:03}", number / 300));
        if number % 300 == 0 {
            fs::create_dir(&directory)?;
        }
        let mut content = vec![0; 20 + random(5, number).below(80) as usize];
        random(6, number).fill(&mut content);
        fs::write(directory.join(format!("tiny-{number}")), content)?;
    }
    Ok(())
}

fn sparse(image: &Path) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(MIB, File::create(image)?);
    file.get_ref().set_len(20 * GIB)?;
    let mut extent = vec![0; MIB];
    for number in 0..500 {
        let at = random(8, number).below(20 * KIB as u64);
        // Not an extent of zeros: all zeros of this volume are holes.
        vm_extent(
            (0..).map(|k| number + 500 * k).find(|&k| random(2, k).below(100) < 86).expect("endless"),
            &mut extent,
        );
        file.seek(SeekFrom::Start(at * MIB as u64))?;
        file.write_all(&extent)?;
    }
    file.into_inner()?.sync_all()
}
