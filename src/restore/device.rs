//! Restores one regular file of a snapshot onto a block device.
//!
//! A device need not read as zeros where nothing was written, so every byte of the image is set:
//! the device discards or zeroes ranges of zeros if it can, and otherwise they are written. Bytes
//! after the image are left alone.
//!
//! If a piece of the image is missing, the others are written, which helps a rescue, and the
//! restore fails, because the image is all that was requested.

use super::close::close;
use super::context::Restoring;
use super::error::{Error, Result, is_lost};
use super::fetch::{self, Piece, Sink};
use super::image::Image;
use super::options::{Options, Overwrite};
use super::origin::{self, Origin};
use super::panics::caught;
use super::plan::memory::PlanBudget;
use super::plan::spill::Tables;
use super::plan::table::{Table, Use};
use super::positioned_io::{read_at, write_at};
use super::report::Report;
use super::zeros::Fill;
use crate::id::Id;
use crate::progress::{Action, Phase, Progress};
use crate::repo::{self, Index, TreeReader};
use rayon::prelude::*;
use rustix::fd::OwnedFd;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom, fadvise, fallocate, fsync, seek};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Minimum length and alignment in bytes of ranges that the device zeroes: it is slower for shorter
/// ones, and needs whole blocks.
const ZEROING_MIN: u64 = 64 << 10;
const ALIGNMENT: u64 = 4096;

struct Device<'d> {
    tables: &'d Tables,
    index: &'d Index,
    fd: OwnedFd,
    name: String,
    /// Bytes of the image.
    size: u64,
    progress: &'d Progress,
    /// Whether the device supports discarding and zeroing, tried in this order.
    discards: AtomicBool,
    zeroes: AtomicBool,
    lost: Mutex<Lost>,
}

/// The missing part of the image.
struct Lost {
    bytes: u64,
    pieces: u64,
    /// The first reason after which a retry may succeed, or else the first of all.
    why: Option<String>,
    /// The repository is damaged; otherwise the store could not be reached, and a retry may
    /// succeed.
    damaged: bool,
}

impl Lost {
    fn add(&mut self, bytes: u64, pieces: u64, why: &repo::Error) {
        self.bytes += bytes;
        self.pieces += pieces;
        let damaged = is_lost(why);
        if self.why.is_none() || self.damaged && !damaged {
            (self.why, self.damaged) = (Some(why.to_string()), damaged);
        }
    }
}

/// Writes the single file of `origin` onto the device.
pub fn run(restoring: &Restoring<'_>, trees: &TreeReader<'_>, origin: Origin) -> Result<Report> {
    let Restoring { index, options, progress, .. } = *restoring;
    let name = options.target.display().to_string();
    if let Some(option) = meaningless(options) {
        return Err(Error::NotForDevice { option, device: name });
    }
    let node = origin::single_file(trees, origin)?.ok_or_else(|| Error::NotAnImage { device: name.clone() })?;
    let unusable = |why| Error::ImageUnusable { path: node.display_name(), why, device: name.clone() };
    let budget = PlanBudget::of(restoring)?;
    let Image { tables, size, lost: bytes, pieces, why } = Image::plan(index, &node, budget)?.map_err(unusable)?;
    let mut lost = Lost { bytes: 0, pieces: 0, why: None, damaged: false };
    if let Some(why) = &why {
        progress.problem(Phase::Restore, &name, format!("{bytes} bytes of the image are in no index: {why}"));
        lost.add(bytes, pieces, why);
    }
    // Exclusive, because a device that is mounted or part of another must not change.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&options.target, flags, Mode::empty())
        .map_err(|errno| Error::target("open", &options.target, errno))?;
    let has = seek(&fd, SeekFrom::End(0)).map_err(|errno| Error::target("measure", &options.target, errno))?;
    if has < size {
        return Err(Error::DeviceTooSmall { device: name, has, needs: size });
    }
    progress.files_total.store(1, Ordering::Relaxed);
    progress.bytes_total.store(size, Ordering::Relaxed);
    let (discards, zeroes, lost) = (true.into(), true.into(), Mutex::new(lost));
    let device = Device { tables: &tables, index, fd, name, size, progress, discards, zeroes, lost };
    if !options.dry_run {
        device.each_table(|table| fetch::run(restoring, &table.uses, table.memory(), &device))?;
    }
    device.complete(node.display_name(), options)?;
    let report = Report { total_files: 1, total_bytes: size, ..Report::default() };
    if options.dry_run {
        return Ok(report);
    }
    progress.files_done.fetch_add(1, Ordering::Relaxed);
    progress.item(Action::Restored, || node.display_name(), size);
    if has > size {
        let (name, rest) = (options.target.display(), has - size);
        progress.warning(&format!("{name} is larger than the image; its last {rest} bytes are unchanged"));
    }
    Ok(Report { files_restored: 1, bytes_restored: size, ..report })
}

/// The first given option that does not apply to a device, which takes one whole file.
fn meaningless(options: &Options) -> Option<&'static str> {
    let given = [
        (!options.include.is_empty(), "--include"),
        (!options.exclude.is_empty(), "--exclude"),
        (options.delete, "--delete"),
        (options.overwrite != Overwrite::Always, "--overwrite other than `always`"),
        (options.volume, "--volume"),
    ];
    given.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
}

impl Device<'_> {
    /// Syncs the device, and fails unless it holds the whole image, which the snapshot has at
    /// `path`.
    fn complete(self, path: String, options: &Options) -> Result<()> {
        let not_on_disk = |errno: Errno| Error::NotOnDisk { path: self.name.clone(), source: errno.into() };
        if !options.dry_run {
            fsync(&self.fd).map_err(not_on_disk)?;
        }
        let (bytes, pieces, why, damaged) = {
            let lost = self.lost();
            (lost.bytes, lost.pieces, lost.why.clone(), lost.damaged)
        };
        if let Some(why) = why.as_ref().filter(|_| options.dry_run) {
            let why = format!("{bytes} of its {} bytes are missing: {why}", self.size);
            return Err(Error::ImageUnusable { path, why, device: self.name });
        }
        if let Some(why) = why {
            let (device, size) = (self.name, self.size);
            return Err(Error::ImageIncomplete { device, lost: bytes, size, pieces, why, damaged });
        }
        if options.verify && !options.dry_run {
            caught("the device was read back", || self.verify())?;
        }
        close(self.fd).map_err(|errno| Error::NotOnDisk { path: self.name, source: errno.into() })
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a range read as zeros.
    fn zero(&self, zeros: &[u8], offset: u64) -> rustix::io::Result<()> {
        let length = zeros.len() as u64;
        if length >= ZEROING_MIN && offset.is_multiple_of(ALIGNMENT) && length.is_multiple_of(ALIGNMENT) {
            let ways = [(&self.discards, FallocateFlags::PUNCH_HOLE), (&self.zeroes, FallocateFlags::ZERO_RANGE)];
            for (usable, way) in ways.into_iter().filter(|(usable, _)| usable.load(Ordering::Relaxed)) {
                match fallocate(&self.fd, way | FallocateFlags::KEEP_SIZE, offset, length) {
                    Ok(()) => return Ok(()),
                    Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::NODEV) => {
                        usable.store(false, Ordering::Relaxed)
                    }
                    Err(errno) => return Err(errno),
                }
            }
        }
        write_at(&self.fd, zeros, offset)
    }

    /// Reads the image back, from the device rather than from memory.
    fn verify(&self) -> Result<()> {
        // Only advice: if the kernel ignores it, the bytes are compared all the same.
        let _ = fadvise(&self.fd, 0, None, Advice::DontNeed);
        self.each_table(|table| table.uses.par_iter().try_for_each(|needed| self.verify_use(needed)))
    }

    fn verify_use(&self, needed: &Use) -> Result<()> {
        if self.progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let blob = needed.location(self.index).blob;
        let mut bytes = vec![0; usize::try_from(blob.plain_length()).unwrap_or(0)];
        let why = match read_at(&self.fd, &mut bytes, needed.offset) {
            Ok(_) if Id::of(&bytes) == blob.id => return Ok(()),
            Ok(_) => format!("data blob {} is not at byte {}", blob.id, needed.offset),
            Err(errno) => format!("byte {} cannot be read: {errno}", needed.offset),
        };
        Err(Error::NotAsWritten { device: self.name.clone(), why })
    }

    /// Calls `each` for the tables of the image, one by one.
    fn each_table(&self, each: impl Fn(&Table) -> Result<()>) -> Result<()> {
        (0..self.tables.len()).try_for_each(|at| each(&*self.tables.get(at)?))
    }
}

impl Sink for Device<'_> {
    fn wants(&self, _: usize, _: &Use) -> bool {
        true
    }

    fn write(&self, piece: Piece<'_>) -> Result<()> {
        let Piece { needed: Use { offset, .. }, bytes, fill } = piece;
        let outcome = match fill {
            Fill::Zeros => self.zero(bytes, offset),
            Fill::Data => write_at(&self.fd, bytes, offset),
        };
        // The image is the only file, so the restore ends.
        outcome.map_err(|errno| Error::Target { action: "write to", path: self.name.clone(), source: errno.into() })?;
        self.progress.bytes_done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        let (start, length) = (needed.offset, needed.location(self.index).blob.plain_length());
        let what = format!("{length} bytes from byte {start} on are not written: {why}");
        self.progress.problem(Phase::Restore, &self.name, what);
        self.lost().add(length, 1, why);
        Ok(())
    }
}
