//! [`Options`]: how to reach a store, beyond its location.
//!
//! The extended options (`-o key=value`) are a closed table: a key that is not in it is an error,
//! so that a misspelt option is never silently without effect.

use super::environment::Environment;
use super::error::{Result, StoreError};
use super::traffic::Traffic;
use crate::interrupt::Interrupt;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How to reach a store.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `local.connections`: how many calls may run at the same time in a folder.
    pub local_connections: Option<usize>,
    pub s3: S3Options,
    pub azure: AzureOptions,
    pub google: GoogleOptions,
    /// A file of PEM certificates that are trusted besides the system's.
    pub cacert: Option<PathBuf>,
    pub retry: RetryPolicy,
    /// Rate limits and counters, shared by all stores that are opened with these options or a copy
    /// of them.
    pub traffic: Arc<Traffic>,
    pub environment: Environment,
    /// Ends requests soon after the run is interrupted.
    pub interrupt: Interrupt,
    /// Called for every failed attempt that will be retried.
    pub notify: Option<Notify>,
}

/// The `s3.` options.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// `s3.connections`: how many requests may run at the same time.
    pub connections: Option<usize>,
    /// `s3.region`: by default that of the environment, of the endpoint's name or of the service's
    /// answer, else us-east-1.
    pub region: Option<String>,
    /// `s3.bucket-lookup`: where the bucket's name stands in a request.
    pub bucket_lookup: BucketLookup,
    /// `s3.storage-class`: the storage class of packs. All other files are small and keep the
    /// bucket's default.
    pub storage_class: Option<String>,
    /// `s3.unsafe-anonymous-auth`: do not sign requests at all.
    pub anonymous: bool,
}

/// The `azure.` options.
#[derive(Clone, Debug, Default)]
pub struct AzureOptions {
    /// `azure.connections`: how many requests may run at the same time.
    pub connections: Option<usize>,
    /// `azure.access-tier`: the access tier of packs. All other files are small and keep the
    /// account's default.
    pub access_tier: Option<String>,
    /// `azure.endpoint`: the URL of the account's blob service; by default, it follows from the
    /// account's name.
    pub endpoint: Option<String>,
}

/// The `gs.` options.
#[derive(Clone, Debug, Default)]
pub struct GoogleOptions {
    /// `gs.connections`: how many requests may run at the same time.
    pub connections: Option<usize>,
    /// `gs.region`: the region of a new bucket.
    pub region: Option<String>,
    /// `gs.endpoint`: the URL of the service, if it is not Google's own.
    pub endpoint: Option<String>,
}

/// Where the bucket's name stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketLookup {
    /// In the host name for Amazon's and Google's hosts if their certificate covers it, else in the
    /// path.
    #[default]
    Auto,
    /// `https://bucket.host/key`
    Dns,
    /// `https://host/bucket/key`
    Path,
}

/// How failed requests are retried: the waits, the timeouts and the retry budget.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The retry budget: how long one call may keep failing before its error is final, if the store
    /// has answered before.
    pub patience: Duration,
    /// The wait before the second attempt. Exponential backoff doubles each wait, up to
    /// `longest_wait`, with a jitter of 25 %.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// The number of attempts at a store that has never answered: a wrong address must not look
    /// like a slow network.
    pub opening_attempts: u32,
    /// The timeout for opening a connection.
    pub connect: Duration,
    /// A request that makes no progress for this long has stalled: it is aborted and retried.
    pub stall: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            patience: Duration::from_secs(15 * 60),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            opening_attempts: 4,
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(5 * 60),
        }
    }
}

/// A listener for attempts that failed.
#[derive(Clone)]
pub struct Notify(pub Arc<dyn Fn(&Attempt<'_>) + Send + Sync>);

/// A failed attempt that will be retried.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The action, like "read pack 1a2b…".
    pub action: &'a str,
    pub error: &'a dyn fmt::Display,
    /// The wait before the next attempt.
    pub wait: Duration,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify")
    }
}

impl Options {
    /// The keys that [`Options::set`] accepts, each with its meaning.
    pub const TABLE: [(&str, &str); 12] = [
        ("azure.access-tier", "the access tier of packs: Hot, Cool or Cold (default: the account's)"),
        ("azure.connections", "how many requests may run at the same time (default: 5 uploads, 16 downloads)"),
        (
            "azure.endpoint",
            "the URL of the account's blob service (default: https://ACCOUNT.blob.SUFFIX, where $AZURE_ENDPOINT_SUFFIX or core.windows.net is the suffix)",
        ),
        ("gs.connections", "how many requests may run at the same time (default: 5 uploads, 16 downloads)"),
        ("gs.endpoint", "the URL of a service that speaks Google's XML API (default: https://storage.googleapis.com)"),
        ("gs.region", "the region of a new bucket (default: us)"),
        ("local.connections", "how many calls may run at the same time in a folder (default: 4)"),
        (
            "s3.bucket-lookup",
            "where the bucket's name stands in a request: auto, dns (host name) or path (default: auto)",
        ),
        ("s3.connections", "how many requests may run at the same time (default: 5 uploads, 16 downloads)"),
        ("s3.region", "the bucket's region (default: $AWS_DEFAULT_REGION, $AWS_REGION, the endpoint's, or us-east-1)"),
        ("s3.storage-class", "the storage class of packs, such as STANDARD_IA (default: the bucket's)"),
        ("s3.unsafe-anonymous-auth", "whether to leave requests unsigned: true or false (default: false)"),
    ];

    /// The defaults, and the environment of this process.
    pub fn of_process() -> Options {
        Options { environment: Environment::of_process(), ..Options::default() }
    }

    /// Sets one extended option, given as `key=value`.
    pub fn set(&mut self, option: &str) -> Result<()> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let (key, value) = (key.trim(), value.trim());
        let refuse = |reason: String| Err(StoreError::Option { option: key.to_owned(), reason });
        if !Options::TABLE.iter().any(|(known, _)| *known == key) {
            let known = Options::TABLE.map(|(known, _)| known).join(", ");
            return refuse(format!("is not known; the known options are {known}"));
        }
        if value.is_empty() {
            return refuse("has no value; write key=value".to_owned());
        }
        match self.assign(key, value) {
            Ok(()) => Ok(()),
            Err(wanted) => refuse(format!("cannot be {value:?}: {wanted}")),
        }
    }

    fn assign(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match key {
            "azure.access-tier" => self.azure.access_tier = Some(access_tier(value)?),
            "azure.connections" => self.azure.connections = Some(connections(value)?),
            "azure.endpoint" => self.azure.endpoint = Some(endpoint(value)?),
            "gs.connections" => self.google.connections = Some(connections(value)?),
            "gs.endpoint" => self.google.endpoint = Some(endpoint(value)?),
            "gs.region" => self.google.region = Some(region(value)?),
            "local.connections" => self.local_connections = Some(connections(value)?),
            "s3.connections" => self.s3.connections = Some(connections(value)?),
            "s3.region" => self.s3.region = Some(value.to_owned()),
            "s3.bucket-lookup" => self.s3.bucket_lookup = value.parse()?,
            "s3.storage-class" => self.s3.storage_class = Some(storage_class(value)?),
            "s3.unsafe-anonymous-auth" => {
                self.s3.anonymous = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err("it must be true or false".to_owned()),
                }
            }
            _ => return Err("it is in the table but has no meaning; report this".to_owned()),
        }
        Ok(())
    }
}

impl FromStr for BucketLookup {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<BucketLookup, String> {
        match text {
            "auto" => Ok(BucketLookup::Auto),
            "dns" => Ok(BucketLookup::Dns),
            "path" => Ok(BucketLookup::Path),
            _ => Err("it must be auto, dns or path".to_owned()),
        }
    }
}

fn connections(value: &str) -> std::result::Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|number| (1..=1000).contains(number))
        .ok_or_else(|| "it must be a number from 1 to 1000".into())
}

/// Refuses the archive tier, as [`storage_class`] does: archived objects cannot be read at once.
fn access_tier(value: &str) -> std::result::Result<String, String> {
    let tier = ["Hot", "Cool", "Cold"].into_iter().find(|tier| tier.eq_ignore_ascii_case(value));
    tier.map(str::to_owned).ok_or_else(|| "it must be Hot, Cool or Cold".to_owned())
}

/// Refuses a URL with credentials, because errors show the URL.
fn endpoint(value: &str) -> std::result::Result<String, String> {
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['@', '?', '#', ' ']) => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        _ => Err("it must be a URL such as https://storage.example".to_owned()),
    }
}

/// Refuses markup: the region becomes part of an XML document.
fn region(value: &str) -> std::result::Result<String, String> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if value.chars().all(is_right) {
        Ok(value.to_owned())
    } else {
        Err("it must be a word such as europe-west3".to_owned())
    }
}

/// Classes whose objects must be thawed before they can be read are refused: packs hold the trees
/// too, and without those not even a listing works.
fn storage_class(value: &str) -> std::result::Result<String, String> {
    let class = value.to_ascii_uppercase();
    if matches!(class.as_str(), "GLACIER" | "DEEP_ARCHIVE") {
        return Err("its objects cannot be read at once; use GLACIER_IR, or a lifecycle rule of the bucket".to_owned());
    }
    if !class.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return Err("it must be a word such as STANDARD_IA".to_owned());
    }
    Ok(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_every_option_of_the_table() {
        let mut options = Options::default();
        for option in [
            "azure.access-tier=cool",
            "azure.connections=3",
            "azure.endpoint=http://127.0.0.1:10000/account/",
            "gs.connections=4",
            "gs.endpoint=http://127.0.0.1:4443",
            "gs.region=europe-west3",
            "local.connections=2",
            "s3.bucket-lookup=dns",
            "s3.connections = 7",
            "s3.region=eu-central-1",
            "s3.storage-class=standard_ia",
            "s3.unsafe-anonymous-auth=true",
        ] {
            options.set(option).unwrap();
            assert!(Options::TABLE.iter().any(|(key, _)| option.starts_with(key)));
        }
        assert_eq!(options.azure.connections, Some(3));
        assert_eq!(options.azure.endpoint.as_deref(), Some("http://127.0.0.1:10000/account"));
        assert_eq!(options.google.connections, Some(4));
        assert_eq!(options.google.endpoint.as_deref(), Some("http://127.0.0.1:4443"));
        assert_eq!(options.google.region.as_deref(), Some("europe-west3"));
        assert_eq!(options.local_connections, Some(2));
        assert_eq!(options.s3.connections, Some(7));
        assert_eq!(options.s3.region.as_deref(), Some("eu-central-1"));
        assert_eq!(options.s3.bucket_lookup, BucketLookup::Dns);
        assert_eq!(options.s3.storage_class.as_deref(), Some("STANDARD_IA"));
        assert!(options.s3.anonymous);
    }

    #[test]
    fn refuses_unknown_options_and_invalid_values() {
        let mut options = Options::default();
        for (option, why) in [
            ("s3.conections=5", "s3.connections"),
            ("", "not known"),
            ("s3.region", "no value"),
            ("azure.access-tier=Archive", "Hot, Cool or Cold"),
            ("azure.endpoint=account.blob", "a URL"),
            ("azure.endpoint=https://key@account.blob", "a URL"),
            ("gs.region=<eu>", "a word"),
            ("s3.connections=0", "number from 1"),
            ("s3.bucket-lookup=virtual", "auto, dns or path"),
            ("s3.storage-class=DEEP_ARCHIVE", "GLACIER_IR"),
            ("s3.unsafe-anonymous-auth=maybe", "true or false"),
        ] {
            let error = options.set(option).expect_err(option).to_string();
            assert!(error.contains(why), "{option}: {error}");
        }
    }
}
