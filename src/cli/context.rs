//! [`Context`]: the state of one run that every command uses: options, output, progress, and the
//! repository that it opens and locks.

use super::args::Global;
use super::exit::Outcome;
use super::output::Output;
use super::progress::{self, Kind, Ticker};
use super::session::{Orderly, Session};
use super::{limits, password, render};
use crate::progress::Progress;
use crate::repo::{self, Lock, LockMode, Password, Repository, Settings};
use crate::store::options::{Attempt, Notify};
use crate::store::traffic::{Account, Traffic};
use crate::store::{self, CacheLifetime, Cached, Location, Place, Store};
use anyhow::Result;
use std::sync::Arc;

/// The number of attempts to enter the password at the prompt.
const PROMPTS: usize = 3;

/// One run of the program.
pub struct Context {
    pub global: Global,
    pub out: Arc<Output>,
    pub progress: Arc<Progress>,
    /// Shared by all stores that the run opens.
    traffic: Arc<Traffic>,
    session: Arc<Session>,
}

impl Context {
    pub fn new(global: Global) -> Result<Context> {
        let verbosity = global.output.verbosity().map_err(anyhow::Error::msg)?;
        let out = Arc::new(Output::new(global.output.format(), verbosity));
        let progress = Progress::new(progress::sink(out.clone()));
        let progress = Arc::new(if verbosity >= 3 { progress.with_items() } else { progress });
        let session = Session::start(progress.clone(), out.clone())?;
        let traffic = limits::start(&global.traffic, &out);
        Ok(Context { global, out, progress, traffic, session })
    }

    /// A context of the same run with other options.
    pub fn with(&self, global: Global) -> Context {
        let Context { out, progress, traffic, session, .. } = self;
        let (out, progress, traffic, session) = (out.clone(), progress.clone(), traffic.clone(), session.clone());
        Context { global, out, progress, traffic, session }
    }

    /// Ends the run: releases the locks, and flushes the output.
    pub fn close(self, outcome: Result<Outcome>) -> Result<Outcome> {
        let outcome = self.session.close(outcome, &self.out);
        let flushed = self.out.flush();
        let outcome = outcome?;
        flushed?;
        Ok(outcome)
    }
}

/// Methods for signals, locks and progress.
impl Context {
    /// While the guard exists, the first signal asks the command to end instead of ending it.
    pub fn orderly(&self) -> Orderly<'_> {
        self.session.orderly()
    }

    /// Holds a lock until the end of the run. A failed refresh is a warning; the loss of a lock
    /// interrupts the run.
    pub fn keep(&self, lock: Lock) {
        self.session.keep(lock);
    }

    /// Fails if a lock was lost, because other processes may then remove newly written data.
    pub fn check_lock(&self) -> repo::Result<()> {
        self.session.check_lock()
    }

    /// The outcome of a run. If a lost lock interrupted the run, the error is the loss.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        self.session.explained(outcome)
    }

    /// Shows the progress of one phase until the ticker is dropped.
    pub fn show_progress(&self, kind: Kind) -> Ticker {
        Ticker::start(self.out.clone(), self.progress.clone(), kind)
    }

    /// The requests and bytes of the run so far, without the removal of its locks. `None` if the
    /// run sent no request to a bucket; folders are not counted.
    pub fn cost(&self) -> Option<Account> {
        Some(self.traffic.account()).filter(|account| account.requests() > 0)
    }

    /// Prints [`Context::cost`].
    pub fn note_cost(&self) -> Result<()> {
        let Some(Account { puts, gets, lists, heads, deletes, others, bytes_sent, bytes_received }) = self.cost()
        else {
            return Ok(());
        };
        let kinds = [
            (puts, "puts"),
            (gets, "gets"),
            (lists, "lists"),
            (heads, "heads"),
            (deletes, "deletes"),
            (others, "others"),
        ];
        let counts: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        let (sent, received) = (render::bytes(bytes_sent), render::bytes(bytes_received));
        let counts = counts.join(", ");
        Ok(self.out.note(format_args!("requests: {counts}; {sent} sent, {received} received"))?)
    }
}

/// Methods that open stores.
impl Context {
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(store::open(&self.global.repository.location()?, &self.store_options()?)?)
    }

    /// The options of stores, from the command line and the environment.
    pub fn store_options(&self) -> Result<store::Options> {
        let Global { storage, traffic, .. } = &self.global;
        let mut options = store::Options::of_process();
        for option in &storage.option {
            options.set(option)?;
        }
        options.cacert = storage.cacert.clone().filter(|file| !file.as_os_str().is_empty());
        options.retry.stall = traffic.stuck_request_timeout;
        options.traffic = self.traffic.clone();
        options.interrupt = self.progress.interrupt_signal();
        let out = self.out.clone();
        options.notify = Some(Notify(Arc::new(move |Attempt { action, error, wait }| {
            out.warn(format_args!("{action} failed, trying again in {:.1} s: {error}", wait.as_secs_f64()));
        })));
        Ok(options)
    }

    /// Opens a location that may contain repositories.
    pub fn place(&self, location: &str) -> Result<Place> {
        Ok(Place::new(&location.parse()?, &self.store_options()?)?)
    }
}

/// Methods that open repositories.
impl Context {
    /// The password of several repositories. The prompt does not check the password, because it may
    /// open only some of them.
    pub fn password(&self) -> Result<Password> {
        match password::given(&self.global.repository)? {
            Some(password) => Ok(password),
            None => password::ask("enter password for the repositories: "),
        }
    }

    pub fn settings(&self) -> Settings {
        self.global.performance.settings()
    }

    /// Opens the repository without a lock.
    pub fn open(&self) -> Result<Arc<Repository>> {
        self.open_with(CacheLifetime::Lasting, None)
    }

    /// Opens the repository, and locks it until the end of the run.
    pub fn open_locked(&self, mode: LockMode) -> Result<Arc<Repository>> {
        self.open_with(CacheLifetime::Lasting, Some(mode))
    }

    /// Opens the repository for a command that only reads, with a shared lock, or without a lock if
    /// `--no-lock` is given.
    pub fn open_to_read(&self) -> Result<Arc<Repository>> {
        if self.global.repository.no_lock { self.open() } else { self.open_locked(LockMode::Shared) }
    }

    /// Opens the repository with a cache, and locks it until the end of the run if a mode is given.
    pub fn open_with(&self, cache: CacheLifetime, lock: Option<LockMode>) -> Result<Arc<Repository>> {
        let repo = self.open_with_password(lock)?;
        if let Some(setting) = repo.config().foreign_chunker() {
            self.out.warn(format_args!(
                "warning: this repository was made with {setting}, which this program does not use: \
                its chunks of files differ from those of the program that set it"
            ));
        }
        if self.out.terminal {
            let (id, version) = (repo.config().id.short(), repo.config().version.number());
            self.out.note(format_args!("repository {id} opened (version {version})"))?;
        }
        let repo = Arc::new(self.cached(repo, cache));
        if let Some(mode) = lock {
            self.lock(&repo, mode)?;
        }
        Ok(repo)
    }

    /// Opens the repository with its password. Prompts for the password if neither the options nor
    /// the environment give one.
    fn open_with_password(&self, lock: Option<LockMode>) -> Result<Repository> {
        let options = &self.global.repository;
        let open = if lock.is_some() { Repository::open_to_lock } else { Repository::open };
        let store = self.store()?;
        let given = password::given(options)?;
        let mut prompts = if given.is_none() && password::can_prompt() { PROMPTS } else { 1 };
        loop {
            let password = match &given {
                Some(password) => password.clone(),
                None => password::ask("enter password for repository: ")?,
            };
            prompts -= 1;
            match open(store.clone(), &password, options.hint(), self.settings()) {
                Err(repo::Error::WrongPassword { .. }) if prompts > 0 => self.out.warn("wrong password, try again"),
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Adds a local cache, unless the repository is a local folder. Without a directory for the
    /// cache, or if the cache fails, the run continues without one.
    fn cached(&self, repo: Repository, cache: CacheLifetime) -> Repository {
        let is_folder = matches!(self.global.repository.location(), Ok(Location::Folder(_)));
        let Some(parent) = self.global.cache.directory().filter(|_| !is_folder) else { return repo };
        let id = repo.config().id.to_string();
        let out = self.out.clone();
        let warn = move |why: anyhow::Error| out.warn(format_args!("warning: continuing without a cache: {why:#}"));
        let later = warn.clone();
        repo.through(|store| match Cached::open(store.clone(), &parent, &id, cache, move |why| later(why.into())) {
            Ok(cached) => Arc::new(cached),
            Err(error) => {
                warn(anyhow::Error::from(error).context(format!("cannot use {}", parent.display())));
                store
            }
        })
    }

    fn lock(&self, repo: &Arc<Repository>, mode: LockMode) -> Result<()> {
        let _orderly = self.orderly();
        if mode == LockMode::Exclusive {
            self.out.note_at(2, "create exclusive lock for repository")?;
        }
        self.keep(Lock::acquire(repo.clone(), mode, self.global.repository.retry_lock, &self.progress)?);
        Ok(())
    }
}
