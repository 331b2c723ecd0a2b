//! From the global options to an open repository, with a lock or without.

use super::password;
use super::session::Context;
use crate::repo::{self, Lock, LockMode, Password, Repository, Settings};
use crate::store::{self, Cached, Location, Place, Store};
use anyhow::Result;
use std::sync::Arc;

/// How long copies of a repository's files may be kept on this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// For later runs, too.
    Lasting,
    /// For this run alone, which believes in no copy that it has not made.
    ThisRun,
}

/// Passwords a person may try at the prompt.
const PROMPTS: usize = 3;

impl Context {
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(store::open(&self.global.repository.location()?, &self.store_options()?)?)
    }

    /// How stores are reached, by the options and the environment.
    pub fn store_options(&self) -> Result<store::Options> {
        let mut options = store::Options::of_process();
        for option in &self.global.storage.option {
            options.set(option)?;
        }
        options.cacert = self.global.storage.cacert.clone().filter(|file| !file.as_os_str().is_empty());
        options.retry.stall = self.global.traffic.stuck_request_timeout;
        options.traffic = self.traffic.clone();
        let out = self.out.clone();
        options.notify = Some(store::options::Notify(Arc::new(move |attempt| {
            let store::options::Attempt { action, error, wait } = attempt;
            out.warn(format_args!("{action} failed, trying again in {:.1} s: {error}", wait.as_secs_f64()));
        })));
        Ok(options)
    }

    /// A place that repositories may be below, by its location.
    pub fn place(&self, location: &str) -> Result<Place> {
        Ok(Place::new(&location.parse()?, &self.store_options()?)?)
    }

    /// The password for whatever is opened: nobody can be asked again whether it was right.
    pub fn password(&self) -> Result<Password> {
        match password::given(&self.global.repository)? {
            Some(password) => Ok(password),
            None => password::ask("enter password for the repositories: "),
        }
    }

    pub fn settings(&self) -> Settings {
        self.global.performance.settings()
    }

    /// The open repository, without a lock.
    pub fn open(&self) -> Result<Arc<Repository>> {
        self.open_with(CacheUse::Lasting, None)
    }

    /// The open repository with copies of some kind, locked until the end of the run unless no lock
    /// is asked for.
    pub fn open_with(&self, cache: CacheUse, lock: Option<LockMode>) -> Result<Arc<Repository>> {
        let open = if lock.is_some() { Repository::open_to_lock } else { Repository::open };
        let store = self.store()?;
        let hint = self.global.repository.hint();
        let given = password::given(&self.global.repository)?;
        let mut prompts = if given.is_none() && password::can_prompt() { PROMPTS } else { 1 };
        let repo = loop {
            let password = match &given {
                Some(password) => password.clone(),
                None => password::ask("enter password for repository: ")?,
            };
            prompts -= 1;
            match open(store.clone(), &password, hint, self.settings()) {
                Err(repo::Error::WrongPassword { .. }) if prompts > 0 => self.out.warn("wrong password, try again"),
                outcome => break outcome?,
            }
        };
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

    /// The repository with copies of some of its files on this machine, unless it is on this machine itself. They are a convenience:
    /// without a place for them, and if that fails, there are none.
    fn cached(&self, repo: Repository, cache: CacheUse) -> Repository {
        let is_folder = matches!(self.global.repository.location(), Ok(Location::Folder(_)));
        let Some(parent) = self.global.cache.directory().filter(|_| !is_folder) else { return repo };
        let id = repo.config().id.to_string();
        let temporary = cache == CacheUse::ThisRun;
        let out = self.out.clone();
        let warn = move |why: anyhow::Error| out.warn(format_args!("warning: going on without a cache: {why:#}"));
        let later = warn.clone();
        repo.through(|store| match Cached::open(store.clone(), &parent, &id, temporary, move |why| later(why.into())) {
            Ok(cached) => Arc::new(cached),
            Err(error) => {
                warn(anyhow::Error::from(error).context(format!("cannot use {}", parent.display())));
                store
            }
        })
    }

    /// The open repository, locked until the end of the run.
    pub fn open_locked(&self, mode: LockMode) -> Result<Arc<Repository>> {
        self.open_with(CacheUse::Lasting, Some(mode))
    }

    /// The open repository for a command that writes nothing: a shared lock, or none with `--no-lock`.
    pub fn open_to_read(&self) -> Result<Arc<Repository>> {
        if self.global.repository.no_lock { self.open() } else { self.open_locked(LockMode::Shared) }
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
