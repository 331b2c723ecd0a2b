//! Writes the manifests that restore the volumes of repositories.

use crate::cli::args;
use crate::format::time::Time;
use crate::manifest::{Plan, Unfit};
use crate::provenance::Layout;
use crate::repo::StoredSnapshot;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(next_help_heading = "Manifest options")]
pub struct ManifestArgs {
    /// Write a manifest that restores each volume into this directory, which must be new or empty
    #[arg(long, value_name = "DIRECTORY")]
    pub manifests: Option<PathBuf>,
    /// Restore the snapshots of this Velero backup instead of the newest ones
    #[arg(long, value_name = "NAME", requires = "manifests")]
    backup: Option<String>,
    /// Restore the newest snapshots that are not younger than this
    #[arg(long, value_name = "TIME", requires = "manifests", value_parser = args::time)]
    until: Option<Time>,
    /// Restore the volumes of old repositories, whose paths name no namespace, into this namespace
    #[arg(long, value_name = "NAME", requires = "manifests")]
    namespace: Option<String>,
    /// Set the namespace of Velero and the controller
    #[arg(long, value_name = "NAME", requires = "manifests", default_value = "velero")]
    protected_namespace: String,
    /// Set the secret in that namespace with location, credentials and password
    #[arg(long, value_name = "NAME", requires = "manifests", default_value = "default-volsync-restic")]
    secret: String,
}

impl ManifestArgs {
    fn plan(&self) -> Plan {
        Plan {
            protected: self.protected_namespace.clone(),
            secret: self.secret.clone(),
            backup: self.backup.clone(),
            until: self.until,
            namespace: self.namespace.clone(),
        }
    }
}

/// Writes manifests into a directory.
pub struct Writer {
    directory: PathBuf,
    plan: Plan,
    /// The claims that manifests create, each with the repository that it is restored from.
    claims: BTreeMap<(String, String), String>,
}

/// The result of the writer for a repository.
pub enum Written {
    File(String),
    /// The repository has no manifest.
    Nothing {
        why: String,
        /// Whether the volume could be restored.
        wanted: bool,
    },
}

impl Writer {
    /// Creates the directory, which must be new or empty: with manifests of an earlier run in it,
    /// each volume would be restored twice.
    pub fn new(directory: &Path, args: &ManifestArgs) -> Result<Writer> {
        let name = directory.display();
        fs::create_dir_all(directory).with_context(|| format!("cannot create the directory {name}"))?;
        if fs::read_dir(directory).with_context(|| format!("cannot list {name}"))?.next().is_some() {
            bail!("{name} is not empty; name a new directory");
        }
        Ok(Writer { directory: directory.to_owned(), plan: args.plan(), claims: BTreeMap::new() })
    }

    /// Writes the manifest of a repository, if its volume can be restored.
    pub fn write(&mut self, repository: &str, layout: &Layout, snapshots: &[StoredSnapshot]) -> Result<Written> {
        let all = snapshots.iter().map(|stored| (stored.id, &stored.snapshot));
        let manifest = match self.plan.manifest(repository, layout, all) {
            Ok(manifest) => manifest,
            Err(why) => {
                return Ok(Written::Nothing { why: why.to_string(), wanted: why != Unfit::NoSnapshot });
            }
        };
        let claim = format!("{}/{}", manifest.claim.0, manifest.claim.1);
        if let Some(other) = self.claims.get(&manifest.claim) {
            let why = format!(
                "the manifest for {claim} restores {other}; use a longer BASE that contains only one of the two"
            );
            return Ok(Written::Nothing { why, wanted: true });
        }
        let path = self.directory.join(&manifest.file);
        let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(manifest.text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        self.claims.insert(manifest.claim, repository.to_owned());
        Ok(Written::File(manifest.file))
    }
}
