//! Restores into a directory: runs stages 2 to 7, one after the other.

use super::confine::Root;
use super::context::Restoring;
use super::dirs::Dirs;
use super::durable::FileSystems;
use super::error::{Error, Result};
use super::fetch;
use super::file::Files;
use super::file_states::FileStates;
use super::finish::Finish;
use super::options::Options;
use super::origin::Origin;
use super::plan::memory::PlanBudget;
use super::plan::{PlannedTable, planner};
use super::prepare;
use super::prepare::compare::Compare;
use super::report::Report;
use super::selection::Selection;
use super::target::Target;
use super::verify;
use super::walk::Walk;
use crate::repo::TreeReader;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Restores `origin` into the target.
pub fn run(restoring: &Restoring<'_>, trees: &TreeReader<'_>, origin: &Origin) -> Result<Report> {
    let Restoring { index, options, progress, .. } = *restoring;
    let selection = Selection::of(options);
    if options.delete && selection.is_everything() && is_system_root(&options.target) {
        return Err(Error::DeleteEverything);
    }
    let walk = Walk { trees, origin, selection, progress };
    let plan = planner::plan(&walk, index, PlanBudget::of(restoring)?)?;
    let target = Target::new(restoring, &plan);
    let root = open_root(&target)?;
    let mut systems = match &root {
        Some(root) if !options.dry_run => {
            let opened = FileSystems::of(root, &options.target);
            Some(opened.map_err(|errno| Error::target("open", &options.target, errno))?)
        }
        _ => None,
    };
    let dirs = root.as_ref().map(|root| Dirs::new(root, &plan));
    let stages = Stages { restoring, walk: &walk, target: &target, dirs: dirs.as_ref() };
    let mut report = Report { total_files: plan.entries, total_bytes: plan.bytes, ..Report::default() };
    let outcome = stages.run(systems.as_mut(), &mut report);
    report.not_applied = target.refusals.settle();
    let unreached = outcome?;
    if let Some(systems) = systems {
        systems.sync()?;
    }
    if let Some(why) = &plan.root_damage {
        return Err(Error::RootDamaged { why: why.clone() });
    }
    if let Some(why) = unreached {
        return Err(Error::Unreached { why });
    }
    demand_entries(&target, origin, &report)?;
    if plan.entries == 0 && !options.include.is_empty() {
        progress.warning("no entry matches the include patterns; nothing was restored");
    }
    Ok(report)
}

/// The inputs of stages 3 to 7.
struct Stages<'s> {
    restoring: &'s Restoring<'s>,
    walk: &'s Walk<'s>,
    target: &'s Target<'s>,
    /// `None`: a dry run into a target that does not exist.
    dirs: Option<&'s Dirs<'s>>,
}

impl Stages<'_> {
    /// Runs the stages and fills the report. Returns the first reason why the store did not return
    /// some data, if a retry may succeed.
    fn run(&self, systems: Option<&mut FileSystems<'_>>, report: &mut Report) -> Result<Option<String>> {
        let Stages { walk, target, dirs, .. } = *self;
        let mut unreached = None;
        let mut outcomes = prepare::run(target, dirs, systems)?;
        for at in 0..target.plan.tables() {
            let table = &target.plan.table(at)?;
            let states = &outcomes.resume(table);
            if let Some(dirs) = dirs {
                let why = self.fill(dirs, table, states)?;
                unreached = unreached.or(why);
            }
            outcomes.add(table, states);
        }
        Finish { walk, target, outcomes: &outcomes, dirs }.run(report)?;
        Ok(unreached)
    }

    /// Runs stages 3 to 6 for the files of a table: they are compared, fetched, written and read
    /// back.
    fn fill(&self, dirs: &Dirs<'_>, table: &PlannedTable<'_>, states: &FileStates) -> Result<Option<String>> {
        let (target, Restoring { index, options, .. }) = (self.target, *self.restoring);
        Compare { target, dirs, index, table, states }.run()?;
        if options.dry_run {
            return Ok(None);
        }
        let files = Files::new(target, dirs, table, states);
        let held = table.plan.memory() + table.memory();
        files.fill(|sink| fetch::run(self.restoring, &table.uses, held, sink))?;
        if options.verify {
            verify::run(&files, index)?;
        }
        Ok(files.unreached().map(str::to_owned))
    }
}

/// Fails if none of the requested entries is in the target.
fn demand_entries(target: &Target<'_>, origin: &Origin, report: &Report) -> Result<()> {
    let Target { plan, options, problems, .. } = target;
    let entries = plan.entries;
    if report.files_done() > 0 {
        return Ok(());
    }
    if let Some(why) = problems.first_refusal() {
        let target = options.target.display().to_string();
        return Err(Error::NothingTaken { target, entries, why: why.to_owned() });
    }
    let is_everything = options.include.is_empty() && options.exclude.is_empty();
    match origin {
        Origin::Entry(node) if entries > 0 || is_everything => Err(Error::NotRestored { path: node.display_name() }),
        Origin::Dir { .. } if entries > 0 => Err(Error::NothingUsable { entries }),
        Origin::Entry(_) | Origin::Dir { .. } => Ok(()),
    }
}

/// Opens the target, creating it if it is missing. `None`: it is missing, and this is a dry run.
pub fn open_root(target: &Target<'_>) -> Result<Option<Root>> {
    let Options { target: path, dry_run, .. } = target.options;
    if !path.exists() {
        target.dir(0).set_fresh();
        if *dry_run {
            return Ok(None);
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::Target { action: "create", path: path.display().to_string(), source })?;
    }
    Root::open(path).map(Some).map_err(|errno| Error::target("open", path, errno))
}

fn is_system_root(path: &Path) -> bool {
    std::fs::canonicalize(path).is_ok_and(|path| path == Path::new("/"))
}
