//! [`Context`]: what every command gets, from the options to an open and locked repository.

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

/// How often a wrong password may be typed at the prompt.
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

    /// The same run with other options.
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

/// Signals, locks and progress.
impl Context {
    /// While the guard lives, the first signal asks the command to end instead of ending it.
    pub fn orderly(&self) -> Orderly<'_> {
        self.session.orderly()
    }

    /// Keeps a lock until the end of the run. A refresh that fails is a warning; if a lock is lost,
    /// the run is interrupted.
    pub fn keep(&self, lock: Lock) {
        self.session.keep(lock);
    }

    /// An error if a lock was lost: other processes may remove what is written from now on.
    pub fn check_lock(&self) -> repo::Result<()> {
        self.session.check_lock()
    }

    /// The outcome of a run. If the run was interrupted because it lost its lock, this is the loss.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        self.session.explained(outcome)
    }

    /// Shows the progress of one phase until the ticker is dropped.
    pub fn show_progress(&self, kind: Kind) -> Ticker {
        Ticker::start(self.out.clone(), self.progress.clone(), kind)
    }

    /// The requests and bytes of the run so far, which is everything but the removal of its locks.
    /// There is none if the run sent no request to a bucket, as folders are not counted.
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

/// Stores.
impl Context {
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(store::open(&self.global.repository.location()?, &self.store_options()?)?)
    }

    /// How stores are reached, by the options and the environment.
    pub fn store_options(&self) -> Result<store::Options> {
        let Global { storage, traffic, .. } = &self.global;
        let mut options = store::Options::of_process();
        for option in &storage.option {
            options.set(option)?;
        }
        options.cacert = storage.cacert.clone().filter(|file| !file.as_os_str().is_empty());
        options.retry.stall = traffic.stuck_request_timeout;
        options.traffic = self.traffic.clone();
        let out = self.out.clone();
        options.notify = Some(Notify(Arc::new(move |Attempt { action, error, wait }| {
            out.warn(format_args!("{action} failed, trying again in {:.1} s: {error}", wait.as_secs_f64()));
        })));
        Ok(options)
    }

    /// The place at a location, which repositories may be below.
    pub fn place(&self, location: &str) -> Result<Place> {
        Ok(Place::new(&location.parse()?, &self.store_options()?)?)
    }
}

/// Repositories.
impl Context {
    /// The password of several repositories. It is asked for once, as it may open some of them
    /// only.
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

    /// Opens the repository for a command that writes nothing, with a shared lock, or without any
    /// if `--no-lock` is given.
    pub fn open_to_read(&self) -> Result<Arc<Repository>> {
        if self.global.repository.no_lock { self.open() } else { self.open_locked(LockMode::Shared) }
    }

    /// Opens the repository with a cache, and locks it until the end of the run if a mode is given.
    pub fn open_with(&self, cache: CacheLifetime, lock: Option<LockMode>) -> Result<Arc<Repository>> {
        let repo = self.open_with_password(lock)?;
        if let Some(setting) = repo.config().foreign_chunker() {
            self.out.warn(format_args!(
                "warning: this repository was made with {setting}, which is not used here: \
                files are cut otherwise than by the program that set it"
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

    /// Opens the repository with the password, which is asked for if neither the options nor the
    /// environment have one.
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

    /// The repository with a local cache, unless the repository is a local folder itself. The cache
    /// is a convenience: without a directory for it, or if it fails, the run continues without one.
    fn cached(&self, repo: Repository, cache: CacheLifetime) -> Repository {
        let is_folder = matches!(self.global.repository.location(), Ok(Location::Folder(_)));
        let Some(parent) = self.global.cache.directory().filter(|_| !is_folder) else { return repo };
        let id = repo.config().id.to_string();
        let out = self.out.clone();
        let warn = move |why: anyhow::Error| out.warn(format_args!("warning: going on without a cache: {why:#}"));
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
