//! One regular file of a snapshot onto a block device.
//!
//! A device need not read as zeros where nothing was written, so every byte of the image is put there: zeros are discarded or zeroed by
//! the device where it can, and written where it cannot. Bytes after the image are left alone.

use super::error::{Error, Result};
use super::fetch::{self, Sink};
use super::file::write_at;
use super::origin::{self, Origin};
use super::plan::{Plan, State, Use};
use super::prepare::read_at;
use super::{Options, Report, target_error};
use crate::format::node::Node;
use crate::id::Id;
use crate::progress::{Action, Phase, Progress};
use crate::repo::{Index, Repository, TreeReader};
use rayon::prelude::*;
use rustix::fd::OwnedFd;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom, fadvise, fallocate, fsync, seek};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// Zeroing by the device pays from here on, and wants whole blocks.
const ZEROING_MIN: u64 = 64 << 10;
const ALIGNMENT: u64 = 4096;

struct Device<'d> {
    plan: &'d Plan,
    fd: OwnedFd,
    name: String,
    progress: &'d Progress,
    /// What the device takes to make zeros, tried from the cheapest on.
    discards: AtomicBool,
    zeroes: AtomicBool,
}

/// Writes the one file that `origin` is onto the device.
pub fn run(
    repo: &Repository,
    index: &Index,
    trees: &TreeReader<'_>,
    origin: Origin,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let name = options.target.display().to_string();
    let node = origin::single_file(trees, origin)?.ok_or_else(|| Error::NotAnImage { device: name.clone() })?;
    let plan = match Plan::of_file(index, &node) {
        Ok(plan) if plan.memory() <= options.plan_memory => plan,
        Ok(_) => return Err(Error::PlanTooLarge { max: options.plan_memory }),
        Err(why) => {
            progress.problem(Phase::Restore, node.display_name(), why);
            return Ok(Report { total_files: 1, total_bytes: node.size, ..Report::default() });
        }
    };
    let image = &plan.files[0];
    // Exclusive: a device that is mounted or part of another must not change under it.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&options.target, flags, Mode::empty())
        .map_err(|errno| target_error("open", &options.target, errno))?;
    let has = seek(&fd, SeekFrom::End(0)).map_err(|errno| target_error("measure", &options.target, errno))?;
    if has < image.size {
        return Err(Error::DeviceTooSmall { device: name, has, needs: image.size });
    }
    progress.files_total.store(1, Ordering::Relaxed);
    progress.bytes_total.store(image.size, Ordering::Relaxed);
    let mut report = Report { total_files: 1, total_bytes: image.size, ..Report::default() };
    if options.dry_run {
        return Ok(report);
    }
    let device = Device { plan: &plan, fd, name, progress, discards: true.into(), zeroes: true.into() };
    fetch::run(repo, index, &plan, &device, progress)?;
    fsync(&device.fd).map_err(|errno| target_error("sync", &options.target, errno))?;
    if options.verify {
        device.verify(index)?;
    }
    device.tell(&node, has, &mut report);
    Ok(report)
}

impl Device<'_> {
    fn tell(&self, node: &Node, has: u64, report: &mut Report) {
        let image = &self.plan.files[0];
        if image.state() == State::Failed {
            return;
        }
        (report.files_restored, report.bytes_restored) = (1, image.size);
        self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        self.progress.item(Action::Restored, || node.display_name(), image.size);
        if has > image.size {
            let name = &self.name;
            self.progress.warning(&format!(
                "{name} is larger than the image; its last {} bytes are as they were",
                has - image.size
            ));
        }
    }

    fn fail(&self, why: &str) {
        if self.plan.files[0].set_state(State::Failed) != State::Failed {
            self.progress.problem(Phase::Restore, self.name.clone(), why);
        }
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
    fn verify(&self, index: &Index) -> Result<()> {
        // Advice only: if it is not taken, the bytes are compared all the same.
        let _ = fadvise(&self.fd, 0, None, Advice::DontNeed);
        self.plan.uses.par_iter().filter(|_| !self.progress.is_interrupted()).for_each(|needed| {
            let blob = self.plan.location(index, needed).blob;
            let mut bytes = vec![0; usize::try_from(blob.plain_length()).unwrap_or(0)];
            match read_at(&self.fd, &mut bytes, needed.offset) {
                Ok(_) if Id::of(&bytes) == blob.id => {}
                Ok(_) => {
                    self.fail(&format!("{} does not read back as it was written at byte {}", self.name, needed.offset))
                }
                Err(errno) => self.fail(&format!("{} cannot be read back: {errno}", self.name)),
            }
        });
        if self.progress.is_interrupted() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

impl Sink for Device<'_> {
    fn wants(&self, _: &Use) -> bool {
        true
    }

    fn write(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<()> {
        let outcome =
            if all_zero { self.zero(plaintext, needed.offset) } else { write_at(&self.fd, plaintext, needed.offset) };
        // There is nothing else to go on with.
        outcome.map_err(|errno| Error::Target { action: "write to", path: self.name.clone(), source: errno.into() })?;
        self.progress.bytes_done.fetch_add(plaintext.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn lack(&self, _: &Use, why: &str) {
        self.fail(why);
    }
}
