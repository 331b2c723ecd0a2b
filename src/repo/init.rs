//! Creates a new repository. It never overwrites an existing one, and a repository never gets two
//! master keys.
//!
//! The order is: write the key, list the keys, write the config, check both again. Two processes
//! that start at once both write a key before either lists the keys; a store lists every written
//! file, so at least one process sees the other's key and withdraws by removing its own. That needs
//! no create-only writes. A process that dies between key and config leaves a lone key; the next
//! `init` with the same password resumes with it. The id and the polynomial are derived from the
//! master key, so even two processes that resume at once write the same config.

use super::error::{Error, Result};
use super::key_files::{self, Password};
use super::lock::state::Holding;
use super::repository::{Repository, open_config};
use super::settings::Settings;
use crate::chunk::Polynomial;
use crate::clock::{self, Clock};
use crate::crypto::Key;
use crate::format::Version;
use crate::format::config::Config;
use crate::format::key_file::KeyOwner;
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::limits;
use crate::parallel::both;
use crate::store::{File, FileType, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Grace period for a competing `init` to notice our key and withdraw its own: one listing and one
/// removal on a slow store.
const GIVING_WAY: Duration = Duration::from_secs(5);

/// The properties of a new repository.
pub struct InitOptions {
    pub version: Version,
    /// Taken from another repository, so that both cut files alike; derived from the master key if
    /// `None`.
    pub polynomial: Option<Polynomial>,
    pub owner: KeyOwner,
}

/// The owner of a key that is created now. A name that is `None` or empty comes from the machine.
pub fn key_owner(user: Option<String>, host: Option<String>) -> KeyOwner {
    let (seconds, nanos) = clock::now();
    KeyOwner {
        created: Time::utc(seconds, nanos),
        username: user.filter(|user| !user.is_empty()).unwrap_or_else(host::username),
        hostname: host.filter(|host| !host.is_empty()).unwrap_or_else(host::hostname),
    }
}

/// Creates a repository and opens it.
pub fn init(
    store: Arc<dyn Store>,
    password: &Password,
    options: InitOptions,
    settings: Settings,
) -> Result<Repository> {
    let refuse = |reason: &str| refusal(&*store, reason);
    let keys = confirm_absence(&*store)?;
    store.prepare()?;
    let (key_id, key, proved) = match &keys[..] {
        [] => {
            let key = Key::from_bytes(&clock::random_bytes());
            (key_files::write(&*store, &key, password, options.owner)?, key, false)
        }
        [(id, _)] => match key_files::open(&*store, *id, password)? {
            Some(key) => (*id, key, true),
            None => {
                return Err(refuse(&format!("has key {id} of an unfinished init, and this password does not open it")));
            }
        },
        several => {
            return Err(refuse(&format!("has {} keys but no config: restore the config from a copy", several.len())));
        }
    };
    let prove = || if proved { Ok(()) } else { key_files::prove(&*store, key_id, &key, password) };
    let (around, proof) = both(|| store.list(FileType::Key), prove);
    proof?;
    if around?.iter().any(|&(id, _)| id != key_id) {
        store.remove(File::new(FileType::Key, key_id))?;
        return Err(Error::InitialisedTwice { location: store.location().to_owned() });
    }
    let config = draw_config(&key, options.version, options.polynomial);
    let mut sealed = Vec::new();
    key.seal(&clock::random_bytes(), &config.encode(), &mut sealed);
    match store.create(File::CONFIG, Bytes::from(sealed)) {
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let config = confirm(&*store, &key, key_id, password, &settings.clock)?;
    Ok(Repository { store, key, key_id, config, settings, holding: Holding::default() })
}

fn refusal(store: &dyn Store, reason: &str) -> Error {
    Error::Refused { location: store.location().to_owned(), reason: reason.to_owned() }
}

/// Fails unless the store certainly has no repository: an error of the store is not a proof of
/// absence. Returns the keys that an unfinished `init` has left.
fn confirm_absence(store: &dyn Store) -> Result<Vec<(Id, u64)>> {
    let list = |ty| move || store.list(ty);
    let lists = || both(list(FileType::Snapshot), list(FileType::Key));
    let ((snapshots, keys), config) = both(lists, || store.size(File::CONFIG));
    let keys = match (config, keys) {
        (Ok(_), _) => return Err(refusal(store, "already has a repository: config file already exists")),
        // Without a bucket there is no repository.
        (Err(StoreError::NoBucket { .. }), _)
        | (Err(StoreError::NotFound { .. }), Err(StoreError::NoBucket { .. })) => return Ok(Vec::new()),
        (Err(StoreError::NotFound { .. }), keys) => keys?,
        (Err(error), _) => return Err(error.into()),
    };
    if snapshots?.is_empty() {
        return Ok(keys);
    }
    Err(refusal(store, "has snapshots but no config: the repository lost its config, restore the config from a copy"))
}

/// Reads the config and lists the keys again: the config must belong to this master key, and no key
/// file may wrap another one.
fn confirm(store: &dyn Store, key: &Key, key_id: Id, password: &Password, clock: &Clock) -> Result<Config> {
    let (keys, sealed) = both(|| store.list(FileType::Key), || store.read(File::CONFIG, limits::SMALL_FILE));
    let Some(config) = open_config(key, &sealed?) else {
        store.remove(File::new(FileType::Key, key_id))?;
        return Err(Error::InitialisedTwice { location: store.location().to_owned() });
    };
    for (id, _) in keys?.into_iter().filter(|(id, _)| *id != key_id) {
        let same = match key_files::open(store, id, password) {
            Ok(other) => other.as_ref() == Some(key),
            // Its process saw our key and withdrew between our listing and our reading.
            Err(Error::Store(StoreError::NotFound { .. })) => true,
            Err(error) => return Err(error),
        };
        if !same && stays(store, id, clock)? {
            let reason = format!(
                "has key {id}, which does not open to this repository's master key; remove it if no other init is running"
            );
            return Err(Error::Refused { location: store.location().to_owned(), reason });
        }
    }
    config
}

/// Whether a key file still exists after [`GIVING_WAY`], when its process must have seen our key
/// and withdrawn.
fn stays(store: &dyn Store, id: Id, clock: &Clock) -> Result<bool> {
    let deadline = clock.moment() + GIVING_WAY;
    loop {
        match store.size(File::new(FileType::Key, id)) {
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
            Ok(_) if clock.moment() >= deadline => return Ok(true),
            Ok(_) => clock.sleep(Duration::from_millis(100)),
        }
    }
}

/// The config that belongs to a master key: a stream of hashes of the key gives the id and the
/// polynomial.
fn draw_config(key: &Key, version: Version, polynomial: Option<Polynomial>) -> Config {
    let mut counter = 0u64;
    let mut draw = || {
        let mut seed = b"vsm repository config".to_vec();
        seed.extend_from_slice(&key.encrypt);
        seed.extend_from_slice(&counter.to_le_bytes());
        counter += 1;
        Id::of(&seed)
    };
    let id = draw();
    let mut number = || u64::from_le_bytes(*draw().0.first_chunk().expect("32 bytes"));
    let random =
        || Polynomial::random(&mut number).expect("one candidate in 26 is irreducible, and a million are tried");
    let polynomial = polynomial.unwrap_or_else(random);
    Config { version, id, polynomial, extra: serde_json::Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::FakeClock;
    use crate::repo::testing::{Call, Fate, Scripted};
    use crate::store::{self, Download};

    fn options() -> InitOptions {
        InitOptions { version: Version::V2, polynomial: None, owner: KeyOwner::default() }
    }

    fn folder(dir: &tempfile::TempDir) -> Arc<dyn Store> {
        let location = dir.path().join("repo").to_str().unwrap().parse().unwrap();
        store::open(&location, &store::Options::default()).unwrap()
    }

    fn start(store: &Arc<dyn Store>, password: &str) -> Result<Repository> {
        init(store.clone(), &Password::new(password), options(), Settings::default())
    }

    #[test]
    fn init_never_overwrites_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        let store = folder(&dir);
        start(&store, "one").unwrap();
        assert!(matches!(start(&store, "one"), Err(Error::Refused { .. })));
        // A repository that lost its config is still a repository.
        store.remove(File::CONFIG).unwrap();
        let lost = Id::of(b"a snapshot");
        store.write(File::new(FileType::Snapshot, lost), Bytes::from_static(b"x")).unwrap();
        assert!(matches!(start(&store, "one"), Err(Error::Refused { .. })));
    }

    #[test]
    fn an_unfinished_init_is_resumed_with_the_same_password_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = folder(&dir);
        let first = start(&store, "one").unwrap();
        // The state after a crash between key and config.
        store.remove(File::CONFIG).unwrap();
        assert!(matches!(start(&store, "two"), Err(Error::Refused { .. })));
        let again = start(&store, "one").unwrap();
        assert_eq!((again.config(), again.key_id()), (first.config(), first.key_id()), "one key gives one config");
        Repository::open(store, &Password::new("one"), None, Settings::default()).unwrap();
    }

    #[test]
    fn a_key_of_another_master_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = folder(&dir);
        let other = Key::from_bytes(&clock::random_bytes());
        let password = Password::new("one");
        let ours = Key::from_bytes(&clock::random_bytes());
        store.prepare().unwrap();
        let id = key_files::create(&*store, &ours, &password, KeyOwner::default()).unwrap();
        key_files::create(&*store, &other, &password, KeyOwner::default()).unwrap();
        assert!(matches!(start(&store, "one"), Err(Error::Refused { .. })), "two keys and no config");
        let mut sealed = Vec::new();
        ours.seal(&clock::random_bytes(), &draw_config(&ours, Version::V2, None).encode(), &mut sealed);
        store.create(File::CONFIG, Bytes::from(sealed)).unwrap();
        let clock = FakeClock::new().clock();
        assert!(matches!(confirm(&*store, &ours, id, &password, &clock), Err(Error::Refused { .. })));
        // Opening finds the key of the config, whichever key is tried first.
        let opened = Repository::open(store, &password, None, Settings::default()).unwrap();
        assert_eq!(opened.key_id(), id);
    }

    /// The competing process removes its key when `GIVING_WAY` has almost passed.
    #[test]
    fn init_waits_for_a_competing_key_that_is_withdrawn_late() {
        let dir = tempfile::tempdir().unwrap();
        let store = Scripted::new(folder(&dir));
        let ours = start(&(store.clone() as Arc<dyn Store>), "one").unwrap();
        let other = Key::from_bytes(&clock::random_bytes());
        let password = Password::new("one");
        let late =
            File::new(FileType::Key, key_files::create(&*store, &other, &password, KeyOwner::default()).unwrap());
        let fake = FakeClock::new();
        let (clock, inner, start) = (fake.clock(), store.store.clone(), fake.clock().moment());
        store.play(move |call, file| {
            if call == Call::Size && file == late && clock.moment().since(start) >= Duration::from_secs(4) {
                inner.remove(late).unwrap();
            }
            Fate::Done
        });
        let confirmed = confirm(&*store, &ours.key, ours.key_id, &password, &fake.clock()).unwrap();
        assert_eq!(confirmed, *ours.config());
        assert!(fake.clock().moment().since(start) >= Duration::from_secs(4));
    }

    /// A store whose `create` checks for the file and then writes it, as on a bucket without
    /// conditional writes.
    struct NoCreate(Arc<dyn Store>);

    impl Store for NoCreate {
        fn location(&self) -> &str {
            self.0.location()
        }
        fn connections(&self) -> usize {
            self.0.connections()
        }
        fn downloads(&self) -> usize {
            self.0.downloads()
        }
        fn keeps_uploads(&self) -> bool {
            self.0.keeps_uploads()
        }
        fn settles_after(&self) -> std::time::Duration {
            self.0.settles_after()
        }
        fn list(&self, ty: FileType) -> crate::store::Result<Vec<(Id, u64)>> {
            self.0.list(ty)
        }
        fn size(&self, file: File) -> crate::store::Result<u64> {
            self.0.size(file)
        }
        fn read(&self, file: File, max: u64) -> crate::store::Result<Bytes> {
            self.0.read(file, max)
        }
        fn download(&self, file: File, offset: u64, length: u64) -> store::Result<Box<dyn Download + '_>> {
            self.0.download(file, offset, length)
        }
        fn write(&self, file: File, bytes: Bytes) -> crate::store::Result<()> {
            self.0.write(file, bytes)
        }
        fn create(&self, file: File, bytes: Bytes) -> crate::store::Result<()> {
            match self.0.size(file) {
                Ok(_) => Err(StoreError::AlreadyExists { file, location: self.location().to_owned() }),
                Err(_) => {
                    std::thread::yield_now();
                    self.0.write(file, bytes)
                }
            }
        }
        fn upload(&self, ty: FileType) -> crate::store::Result<Box<dyn crate::store::Upload>> {
            self.0.upload(ty)
        }
        fn remove(&self, file: File) -> crate::store::Result<()> {
            self.0.remove(file)
        }
        fn prepare(&self) -> crate::store::Result<()> {
            self.0.prepare()
        }
    }

    #[test]
    fn two_concurrent_inits_never_leave_two_master_keys_or_configs() {
        for round in 0..8 {
            let dir = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = if round % 2 == 0 { folder(&dir) } else { Arc::new(NoCreate(folder(&dir))) };
            let both = std::thread::scope(|threads| {
                let racers = [(); 2].map(|()| threads.spawn(|| start(&store, "one")));
                racers.map(|racer| racer.join().unwrap())
            });
            let made: Vec<&Repository> = both.iter().flatten().collect();
            // Both may have withdrawn; then the next `init` finds an empty store or a lone key of
            // its own password.
            let repo = start(&store, "one");
            if made.is_empty() {
                repo.unwrap();
            }
            let opened = Repository::open(store, &Password::new("one"), None, Settings::default()).unwrap();
            for repo in made {
                assert!(repo.key == opened.key, "round {round}");
                assert_eq!(repo.config(), opened.config(), "round {round}");
            }
        }
    }
}
