//! Tests of backups with access to the stages: failures, few slabs, and bounded listings.

use super::assemble::{Dir, Position};
use super::fill::Filling;
use super::names::Gathered;
use super::parent::ParentNodes;
use super::pipeline::read_source;
use super::read::Reader;
use super::run::Run;
use super::small::Gatherer;
use super::source::{Kind, Resolved, Standing, Top};
use super::stack::{DirWork, Listed, Popped, Rest, Room, Scope, Stack, Work};
use super::stat::Observer;
use super::walk::Walk;
use super::*;
use crate::clock::Clock;
use crate::concurrency::Limit;
use crate::format::Version;
use crate::limits;
use crate::memory::Budget;
use crate::pattern::Case;
use crate::progress::{Action, Event};
use crate::repo::{InitOptions, Password, Settings};
use crate::store::folder::Folder;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// A repository, and a source of one directory with files in it.
struct Bed {
    temp: tempfile::TempDir,
    repo: Arc<Repository>,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(Settings::default())
    }

    fn with(settings: Settings) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let store = Arc::new(Folder::new(temp.path().join("repo"), 2));
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let repo = crate::repo::init(store, &Password::new("x"), options, settings).unwrap();
        fs::create_dir_all(temp.path().join("source/dir")).unwrap();
        for number in 0..20 {
            let content = crate::clock::random_bytes::<5000>();
            fs::write(temp.path().join(format!("source/dir/f{number}")), content).unwrap();
        }
        Bed { temp, repo: Arc::new(repo) }
    }

    fn options(&self, sources: &[&str]) -> Options {
        Options {
            source: Source::Paths(sources.iter().map(|name| self.temp.path().join(name)).collect()),
            hostname: "host".into(),
            tags: vec![],
            time: snapshot::now(),
            parent: ParentChoice::Group { host: true, paths: true, tags: false },
            exclude: Exclude::default(),
            one_file_system: false,
            ignore_ctime: false,
            ignore_inode: false,
            with_atime: false,
            device_ids: DeviceIds::Foreign,
            local_time: false,
            read_special: false,
            skip_if_unchanged: false,
            dry_run: false,
            read_concurrency: 2,
            scan: true,
        }
    }

    /// The source as a volume. Directories above it, in which other tests may work, are not part of
    /// the snapshot.
    fn volume(&self) -> Options {
        Options { source: Source::Volume(self.temp.path().join("source")), ..self.options(&[]) }
    }

    fn back_up(&self, options: &Options, progress: &Progress) -> Result<Report> {
        run(&self.repo, || Index::load(&self.repo), options, progress)
    }

    fn snapshots(&self) -> usize {
        self.repo.snapshots().unwrap().0.len()
    }
}

/// Each stage calls the listener of the progress, so a panic in the listener is a panic in that
/// stage.
#[test]
fn a_panic_in_a_worker_ends_the_run_with_an_error() {
    let bed = Bed::new();
    // A file is finished by the thread that stored its last chunk, a directory by the thread that
    // finished its last entry.
    for victim in ["f7", "f19", "dir", "source"] {
        let progress = Progress::new(move |event| {
            if let Event::Item { path, .. } = event {
                assert!(!path.ends_with(victim), "a panic that the test wants");
            }
        });
        let outcome = bed.back_up(&bed.options(&["source"]), &progress.with_items());
        assert!(matches!(outcome, Err(Error::Panicked)), "{victim}: {outcome:?}");
        assert_eq!(bed.snapshots(), 0, "{victim}");
    }
    assert_eq!(bed.back_up(&bed.options(&["source"]), &Progress::silent()).unwrap().problems, 0);
}

#[test]
fn a_walker_that_panics_does_not_hold_the_others() {
    let stack = Stack::new(Dir::root(), ParentNodes::None, Default::default());
    let taken = stack.pop(|| false).unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| stack.pop(|| false).is_none());
        let panicked = threads.spawn(move || {
            let _taken = taken;
            panic!("a panic that the test wants");
        });
        assert!(panicked.join().is_err());
        assert!(waiting.join().unwrap(), "the other walker does not wait for work of the one that panicked");
    });
}

#[test]
fn only_the_loss_of_all_named_paths_is_an_error() {
    let bed = Bed::new();
    let problems = Arc::new(Mutex::new(Vec::new()));
    let reported = problems.clone();
    let progress = Progress::new(move |event| {
        if let Event::Problem(problem) = event {
            reported.lock().unwrap().push(problem.item.clone());
        }
    });
    let missing = |name: &str| bed.temp.path().join(name).display().to_string();
    let report = bed.back_up(&bed.options(&["source", "gone"]), &progress).unwrap();
    assert_eq!((report.problems, bed.snapshots()), (1, 1));
    assert_eq!(*problems.lock().unwrap(), [missing("gone")]);
    for named in [&["gone"][..], &["gone", "lost"], &["gone", "gone"]] {
        let outcome = bed.back_up(&bed.options(named), &Progress::silent());
        assert!(matches!(outcome, Err(Error::Source(_))), "{named:?}: {outcome:?}");
        assert_eq!(bed.snapshots(), 1, "{named:?}");
    }
}

#[test]
fn the_second_backup_finds_every_file_unchanged() {
    let bed = Bed::new();
    let first = bed.back_up(&bed.volume(), &Progress::silent()).unwrap();
    assert_eq!((first.summary.files_new, first.parent), (20, None));
    let second = bed.back_up(&bed.volume(), &Progress::silent()).unwrap();
    assert_eq!((second.summary.files_unmodified, second.parent), (20, first.snapshot));
    assert_eq!(second.tree, first.tree);
    let skipping = Options { skip_if_unchanged: true, ..bed.volume() };
    assert_eq!(bed.back_up(&skipping, &Progress::silent()).unwrap().snapshot, None);
    assert_eq!(bed.snapshots(), 2);
}

/// Files and bytes of each source are counted once, even if a source is below another.
#[test]
fn progress_has_the_totals_of_the_source() {
    let bed = Bed::new();
    let progress = Progress::silent();
    bed.back_up(&bed.options(&["source", "source/dir/f3"]), &progress).unwrap();
    let totals = (progress.files_total.load(Ordering::Relaxed), progress.bytes_total.load(Ordering::Relaxed));
    assert_eq!(totals, (20, 100_000));
}

/// Between the resolution of the sources and the walk, an entry may be replaced by one of another
/// type.
#[test]
fn entries_named_below_a_path_that_is_no_longer_a_directory_are_lost() {
    let bed = Bed::new();
    let at = |name: &str| bed.temp.path().join(name);
    fs::write(at("file"), "not a directory").unwrap();
    std::os::unix::fs::symlink("file", at("link")).unwrap();
    for (name, kind) in [("file", Kind::Partial), ("link", Kind::Partial), ("file", Kind::Target)] {
        let target = Top { path: at(name).join("y"), kind: Kind::Target, below: Default::default() };
        let top = Top { path: at(name), kind, below: [(b"y".to_vec(), target)].into() };
        let named = 1 + usize::from(kind == Kind::Target);
        let resolved = Resolved { tops: [(name.into(), top)].into(), recorded: vec![], named, lost: 0 };
        let index = Arc::new(Index::load(&bed.repo).unwrap());
        let writer = Writer::new(bed.repo.clone(), index, WriteMode::Upload).unwrap();
        let (options, progress) = (bed.options(&[name]), Progress::silent());
        let outcome = read_source(&writer, &options, &progress, resolved, None);
        match kind {
            // `y` was the only named entry.
            Kind::Partial => assert!(matches!(outcome, Err(Error::Source(_))), "{name}"),
            Kind::Target | Kind::Found { .. } => {
                assert_eq!(outcome.unwrap().counts.files.into_inner(), 1, "{name}");
                assert_eq!(progress.problem_count(), 1, "{name}");
            }
        }
    }
}

/// One reader and the gatherer of small files run with the minimum of memory: neither keeps the
/// slab that the other waits for.
#[test]
fn large_and_small_files_are_read_with_two_slabs() {
    let budget = Budget { memory: Some(68 << 20), threads: 2 };
    let bed = Bed::with(Settings { budget, ..Settings::default() });
    for number in 0..40 {
        let content = crate::clock::random_bytes::<300_000>();
        let sizes = [(format!("a{number}"), 1), (format!("b{number}"), 4 + number % 8), (format!("c{number}"), 1)];
        for (name, repeats) in sizes {
            let parts: Vec<u8> = (0..repeats).flat_map(|part| content.iter().map(move |byte| byte ^ part)).collect();
            fs::write(bed.temp.path().join("source").join(name), parts).unwrap();
        }
    }
    let report = bed.back_up(&bed.options(&["source"]), &Progress::silent()).unwrap();
    assert_eq!((report.problems, report.summary.files_new), (0, 140));
}

/// A large file needs the slab in which a small file waits, and is read while the only walker
/// continues and never pauses.
#[test]
fn a_reader_that_waits_for_a_slab_gets_that_of_small_files() {
    let budget = Budget { memory: Some(68 << 20), threads: 1 };
    let bed = Bed::with(Settings { budget, ..Settings::default() });
    let at = |name: &str| bed.temp.path().join("source").join(name);
    let part = crate::clock::random_bytes::<300_000>();
    let large = (0..40).flat_map(|number| part.iter().map(move |byte| byte ^ number)).collect::<Vec<u8>>();
    assert!(large.len() > slab::SLAB_SIZE);
    fs::write(at("1-small"), part).unwrap();
    fs::write(at("2-large"), large).unwrap();
    fs::write(at("3-excluded"), "").unwrap();
    fs::write(at("4-excluded"), "").unwrap();

    // The walker stops in the listener at each excluded file, until the test sends it on.
    let (reached, at_excluded) = crossbeam_channel::unbounded();
    let (send_on, sent_on) = crossbeam_channel::unbounded();
    let (is_read, large_is_read) = crossbeam_channel::unbounded();
    let progress = Progress::new(move |event| match event {
        Event::Item { action: Action::Excluded, .. } => {
            reached.send(()).unwrap();
            sent_on.recv().unwrap();
        }
        Event::Item { path, .. } if path.ends_with("2-large") => is_read.send(()).unwrap(),
        _ => {}
    })
    .with_items();
    let mut options = Options { read_concurrency: 1, ..bed.options(&["source"]) };
    options.exclude.patterns.push("*-excluded", Case::Sensitive).unwrap();

    let resolved = source::resolve(&options.source, &progress).unwrap();
    let index = Arc::new(Index::load(&bed.repo).unwrap());
    let writer = Writer::new(bed.repo.clone(), index, WriteMode::Upload).unwrap();
    let observer = Observer::new(&options, None);
    let run = Run::new(&writer, &options, &progress, observer).unwrap();
    assert_eq!((run.parts.slabs, run.parts.readers), (2, 1));
    let stack = Stack::new(Dir::root(), ParentNodes::None, resolved.tops);
    let limit = Limit::new(1, 1, Clock::default());
    let (files, queue) = crossbeam_channel::bounded(limits::FILE_QUEUE);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.in_place_scope(|cpu| {
        let gatherer = Gatherer::new(&run, cpu, 1 << 20);
        let walk = Walk::new(&run, &stack, &gatherer, &limit);
        std::thread::scope(|threads| {
            let mut reader = Reader::new(&run, Filling::new(&run, cpu));
            threads.spawn(move || reader.read_all(&queue));
            walk.start(threads, &files);
            drop(files);
            at_excluded.recv().unwrap();
            while !run.slabs.is_short() || run.jobs.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
            send_on.send(()).unwrap();
            // The walk has not ended when the large file is read.
            at_excluded.recv().unwrap();
            large_is_read.recv().unwrap();
            send_on.send(()).unwrap();
        });
    });
    run.outcome().unwrap();
    assert_eq!((run.counts.files_new.into_inner(), progress.problem_count()), (22, 0));
}

fn names(count: usize) -> Gathered {
    let mut names = Gathered::new(None);
    (0..count).for_each(|number| names.add(format!("{number:06}").as_bytes()).unwrap());
    names
}

/// Calls a test with a run whose walk the test makes itself.
fn with_run(test: impl FnOnce(&Run<'_>)) {
    let bed = Bed::new();
    let (options, progress) = (bed.options(&["source"]), Progress::silent());
    let index = Arc::new(Index::load(&bed.repo).unwrap());
    let writer = Writer::new(bed.repo.clone(), index, WriteMode::Upload).unwrap();
    test(&Run::new(&writer, &options, &progress, Observer::new(&options, None)).unwrap());
}

fn push(stack: &Stack) {
    let scope = Scope::Whole { device: 0 };
    stack.push(DirWork { dir: Dir::root(), scope, standing: Standing::Found, known: None });
}

/// The directory that was taken from the stack, with `count` names.
fn listed(popped: &mut Popped<'_>, count: usize) -> Arc<Listed> {
    let Some(Work::Dir(work)) = popped.work.take() else { panic!("a directory") };
    let rest = Rest { names: names(count).sorted([].iter()).unwrap(), parent: ParentNodes::None };
    Listed::new(work.dir, work.scope, None, Default::default(), rest)
}

/// The memory for listings does not grow with the number of walkers.
#[test]
fn listings_hold_a_bounded_number_of_names_and_one_directory_of_any_size() {
    with_run(|run| {
        let stack = Stack::new(Dir::root(), ParentNodes::None, Default::default());
        push(&stack);
        push(&stack);
        let [mut first, mut second, third] = std::array::from_fn(|_| stack.try_pop().unwrap());
        drop(third);
        assert_eq!(first.count(15_000), Room::Enough);
        assert_eq!(second.count(5_000), Room::Enough);
        assert_eq!(second.count(6_000), Room::None);
        push(&stack);
        drop(second);
        assert!(stack.try_pop().is_none(), "a directory would be listed in vain until the first listing has ended");

        let (listing, position) = listed(&mut first, 5_000).next_part(run).unwrap();
        assert_eq!(position, Position::MoreFollow);
        let listing = first.share(listing, position);
        let others = stack.try_pop().unwrap();
        assert!(matches!(others.work, Some(Work::Entries(_))), "entries come first");
        drop(others);
        std::thread::scope(|threads| {
            while listing.take().is_some() {}
            let waiting = threads.spawn(|| matches!(stack.pop(|| false).unwrap().work, Some(Work::Part(_))));
            drop(first);
            assert!(waiting.join().unwrap(), "the listing has ended, and its other part is next");
        });
        assert!(matches!(stack.try_pop().unwrap().work, Some(Work::Dir(_))));

        push(&stack);
        push(&stack);
        let mut large = stack.try_pop().unwrap();
        assert_eq!(large.count(1_000_000), Room::Exceeded, "it is the only one");
        assert!(stack.try_pop().is_none());
        drop(large);
        assert!(stack.pop(|| false).is_some());
        assert!(stack.pop(|| false).is_none(), "all is taken");
    });
}

/// Few directories with several parts are open at a time, whatever their number.
#[test]
fn a_directory_is_resumed_before_others_are_listed() {
    with_run(|run| {
        let stack = Stack::new(Dir::root(), ParentNodes::None, Default::default());
        drop(stack.try_pop().unwrap());
        push(&stack);
        push(&stack);
        let mut popped = stack.try_pop().unwrap();
        let (listing, position) = listed(&mut popped, 5_000).next_part(run).unwrap();
        let listing = popped.share(listing, position);
        drop(popped);
        // A directory in the first part comes before the second part, and the second part before
        // the other directory.
        push(&stack);
        while listing.take().is_some() {}
        let mut order = Vec::new();
        while let Some(popped) = stack.try_pop() {
            order.push(matches!(popped.work, Some(Work::Part(_))));
        }
        assert_eq!(order, [false, true, false]);
    });
}

/// The parts of a directory may wait for another directory whose names exceed the bound. A walker
/// that waits for the parts must not block that directory.
#[test]
fn a_directory_with_many_unfinished_parts_waits_for_them_and_blocks_no_other() {
    with_run(|run| {
        let stack = Stack::new(Dir::root(), ParentNodes::None, Default::default());
        drop(stack.try_pop().unwrap());
        push(&stack);
        let mut popped = stack.try_pop().unwrap();
        let dir = listed(&mut popped, 40_000);
        let mut parts = Vec::new();
        let (first, position) = dir.next_part(run).unwrap();
        parts.push(popped.share(first, position));
        drop(popped);
        // All entries of each part are taken and none is completed, until there are too many parts.
        loop {
            while parts.last().unwrap().take().is_some() {}
            let Some(mut popped) = stack.try_pop() else { break };
            assert!(matches!(popped.work, Some(Work::Part(_))));
            let (part, position) = dir.next_part(run).unwrap();
            parts.push(popped.share(part, position));
        }
        assert_eq!(parts.len(), 6);
        // A directory in one of them is taken, and is the only one that is listed.
        push(&stack);
        let mut below = stack.try_pop().unwrap();
        assert!(matches!(below.work, Some(Work::Dir(_))));
        assert_eq!(below.count(30_000), Room::Exceeded);
        drop(below);
        assert!(stack.pop(|| true).is_none(), "a run that has stopped waits for nothing");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| matches!(stack.pop(|| false).unwrap().work, Some(Work::Part(_))));
            for slot in 0..parts[0].part.names.len() {
                assert!(!waiting.is_finished());
                parts[0].part.fill(run, slot, None).unwrap();
            }
            assert!(waiting.join().unwrap(), "a part is complete");
        });
    });
}

#[test]
fn directories_with_more_names_than_are_held_at_a_time_are_backed_up() {
    let bed = Bed::new();
    for dir in 0..4 {
        let dir = bed.temp.path().join(format!("source/large{dir}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..8_000 {
            std::os::unix::fs::symlink("target", dir.join(number.to_string())).unwrap();
        }
        fs::write(dir.join("file"), "content").unwrap();
    }
    let first = bed.back_up(&bed.volume(), &Progress::silent()).unwrap();
    assert_eq!((first.summary.files_new, first.problems), (24, 0));
    let second = bed.back_up(&bed.volume(), &Progress::silent()).unwrap();
    assert_eq!((second.summary.files_unmodified, second.tree), (24, first.tree));
}
