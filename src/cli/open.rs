//! From the global options to an open repository, with a lock or without.

use super::args::Global;
use super::password;
use super::session::Context;
use crate::memory::Budget;
use crate::repo::{self, Lock, LockMode, Password, Repository, Settings};
use crate::store::{self, Cached, Location, Place, Store};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
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
    /// The repository's location.
    pub fn location(&self) -> Result<Location> {
        let Global { repo, repository_file, .. } = &self.global;
        let repo = repo.as_deref().filter(|repo| !repo.is_empty());
        let file = repository_file.as_deref().filter(|file| !file.as_os_str().is_empty());
        let text = match (repo, file) {
            (Some(_), Some(_)) => bail!("--repo and --repository-file exclude each other; give one of them"),
            (Some(repo), None) => repo.to_owned(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the repository file {}", file.display()))?;
                text.trim().to_owned()
            }
            (None, None) => bail!("no repository given; use --repo, --repository-file, or RESTIC_REPOSITORY"),
        };
        Ok(text.parse()?)
    }

    pub fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(store::open(&self.location()?, &self.store_options()?)?)
    }

    /// How stores are reached, by the options and the environment.
    pub fn store_options(&self) -> Result<store::Options> {
        let mut options = store::Options::of_process();
        for option in &self.global.option {
            options.set(option)?;
        }
        options.cacert = self.global.cacert.clone().filter(|file| !file.as_os_str().is_empty());
        options.retry.stall = self.global.stuck_request_timeout;
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
        match password::given(&self.global)? {
            Some(password) => Ok(password),
            None => password::ask("enter password for the repositories: "),
        }
    }

    pub fn settings(&self) -> Settings {
        let Global { compression, pack_size, no_extra_verify, memory, threads, .. } = self.global;
        let budget = Budget { memory: memory.0, threads };
        let aside = Some(std::env::temp_dir());
        Settings { compression, pack_size, extra_verify: !no_extra_verify, budget, aside, ..Settings::default() }
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
        let hint = self.global.key_hint.as_deref().filter(|hint| !hint.is_empty());
        let given = password::given(&self.global)?;
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
        let Global { no_cache, cache_dir, .. } = &self.global;
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let given = cache_dir.clone().filter(|directory| !directory.as_os_str().is_empty());
        let is_folder = matches!(self.location(), Ok(Location::Folder(_)));
        let Some(parent) = given.or_else(usual).filter(|_| !no_cache && !is_folder) else { return repo };
        let parent = parent.join("vsm-mover");
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
        if self.global.no_lock { self.open() } else { self.open_locked(LockMode::Shared) }
    }

    fn lock(&self, repo: &Arc<Repository>, mode: LockMode) -> Result<()> {
        let _orderly = self.orderly();
        if mode == LockMode::Exclusive {
            self.out.note_at(2, "create exclusive lock for repository")?;
        }
        self.keep(Lock::acquire(repo.clone(), mode, self.global.retry_lock, &self.progress)?);
        Ok(())
    }
}
