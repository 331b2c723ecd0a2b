//! Settings of the controller, from its environment. A test compares them with the table in
//! `docs/operate/configuration.md`.
//!
//! An empty variable counts as unset. An invalid variable keeps the controller from starting: a
//! wrong setting would otherwise be noticed much later, when a volume is to be restored.

use crate::controller::config::{Config, Incomplete, MoverSettings};
use crate::kubernetes::quantity;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::SignedDuration;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Backups, and restores, that run at the same time: VolumeSnapshotMover's default.
const AT_A_TIME: usize = 10;
/// Retries of a failed mover by its Job.
const RETRIES: i32 = 3;
/// Deadline for an admitted request's mover to run: a snapshot or an image may be slow.
const PREPARE: Duration = Duration::from_secs(30 * 60);
/// Deadline for the publication of a restored volume: some storage systems upload a snapshot before
/// it is ready.
const PUBLISH: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a storage snapshot must have been orphaned before it is deleted: Velero takes seconds
/// to create a content again.
const FREE_AFTER: Duration = Duration::from_secs(10 * 60);

/// A mover can use two cores, and runs with less.
const CPU_REQUEST: &str = "100m";
/// A mover uses 160 MiB with 5 connections to a bucket, and was measured to use more in some cases
/// (`docs/internals/memory.md`, "Memory").
const MEMORY_REQUEST: &str = "256Mi";
/// More than any mover should use: the plan of a restore has at most 1 GiB, an index of ten million
/// blobs half of that. With this limit a bug costs one mover and not its node.
const MEMORY_LIMIT: &str = "2Gi";
/// The value for no limit or no request.
const NONE: &str = "none";

/// Variables that the controller passes on to movers.
const PASSED_ON: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// The settings. The caller takes the first four from the cluster if they are `None`.
#[derive(Debug, PartialEq)]
pub struct Settings {
    /// The controller's namespace, which is the protected one.
    pub namespace: Option<String>,
    /// The name of the controller's pod.
    pub pod: Option<String>,
    /// The id of this cluster among those that share the bucket.
    pub cluster: Option<String>,
    /// The movers' image.
    pub image: Option<String>,
    /// Backups that run at the same time.
    pub backups: usize,
    /// Restores that run at the same time.
    pub restores: usize,
    mover: MoverSettings,
    allowed_secrets: Vec<String>,
    prepare: Duration,
    publish: Duration,
    free_after: Duration,
    incomplete: Incomplete,
}

/// An invalid variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable {name} is {value:?}: {why}")]
pub struct Bad {
    name: &'static str,
    value: String,
    why: String,
}

impl Settings {
    /// Reads the environment through a function that gives the value of a variable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, Bad> {
        let variables = Variables(&variable);
        let text = |name| variables.text(name);
        let mut environment = BTreeMap::new();
        for name in PASSED_ON {
            environment.extend(text(name).map(|value| (name.to_owned(), value)));
        }
        let memory = variables.bytes("VSM_MEMORY")?;
        environment.extend(memory.map(|bytes| ("VSM_MEMORY".to_owned(), bytes.to_string())));
        let threads = variables.parsed("VSM_THREADS", "a number from 1 to 1024", |text| {
            text.parse().ok().filter(|threads| (1..=1024_u32).contains(threads))
        })?;
        environment.extend(threads.map(|threads| ("VSM_THREADS".to_owned(), threads.to_string())));
        let settings = Settings {
            namespace: text("POD_NAMESPACE"),
            pod: text("POD_NAME"),
            cluster: text("VSM_CLUSTER_ID"),
            image: text("VSM_MOVER_IMAGE"),
            backups: variables.number("DATAMOVER_CONCURRENT_BACKUP")?.unwrap_or(AT_A_TIME),
            restores: variables.number("DATAMOVER_CONCURRENT_RESTORE")?.unwrap_or(AT_A_TIME),
            mover: MoverSettings {
                image: String::new(),
                pull_policy: variables.one_of("VSM_MOVER_PULL_POLICY", &["Always", "IfNotPresent", "Never"])?,
                pull_secrets: variables.list("VSM_MOVER_PULL_SECRETS"),
                service_account: text("VSM_MOVER_SERVICE_ACCOUNT"),
                retries: variables.number("VSM_MOVER_RETRIES")?.unwrap_or(RETRIES),
                requests: resources(
                    variables.quantity("VSM_MOVER_CPU_REQUEST", Some(CPU_REQUEST))?,
                    variables.quantity("VSM_MOVER_MEMORY_REQUEST", Some(MEMORY_REQUEST))?,
                ),
                limits: resources(
                    variables.quantity("VSM_MOVER_CPU_LIMIT", None)?,
                    variables.quantity("VSM_MOVER_MEMORY_LIMIT", Some(MEMORY_LIMIT))?,
                ),
                node_selector: variables.labels("VSM_MOVER_NODE_SELECTOR")?,
                tolerations: variables
                    .parsed("VSM_MOVER_TOLERATIONS", "a JSON list of tolerations, as in a pod's spec", tolerations)?
                    .unwrap_or_default(),
                priority_class: text("VSM_MOVER_PRIORITY_CLASS"),
                pod_labels: variables.labels("VSM_MOVER_LABELS")?,
                ca_config_map: text("VSM_MOVER_CA_CONFIG_MAP"),
                limits_config_map: text("VSM_MOVER_LIMITS_CONFIG_MAP"),
                environment,
                unprivileged: variables.truth("VSM_MOVER_UNPRIVILEGED")?,
            },
            allowed_secrets: variables.list("VSM_ALLOWED_SECRETS"),
            prepare: variables.duration("VSM_PREPARE_TIMEOUT")?.unwrap_or(PREPARE),
            publish: variables.duration("VSM_HAND_OVER_TIMEOUT")?.unwrap_or(PUBLISH),
            free_after: variables.duration("VSM_FREE_SNAPSHOTS_AFTER")?.unwrap_or(FREE_AFTER),
            incomplete: match variables.truth("VSM_INCOMPLETE_FAILS")? {
                true => Incomplete::Fails,
                false => Incomplete::Completes,
            },
        };
        settings.fits(memory)?;
        Ok(settings)
    }

    /// Checks that the memory budget is below the limit: the kernel would kill the mover.
    fn fits(&self, memory: Option<u64>) -> Result<(), Bad> {
        let (requests, limits) = (&self.mover.requests, &self.mover.limits);
        let size = |of: &BTreeMap<String, Quantity>| of.get("memory").and_then(|it| quantity::bytes(&it.0));
        let Some(limit) = size(limits) else { return Ok(()) };
        for (name, value) in [("VSM_MEMORY", memory), ("VSM_MOVER_MEMORY_REQUEST", size(requests))] {
            if let Some(value) = value.filter(|value| *value > limit) {
                let why = format!("that is more than VSM_MOVER_MEMORY_LIMIT, {}", quantity::canonical(limit));
                return Err(Bad { name, value: quantity::canonical(value), why });
            }
        }
        Ok(())
    }

    /// The configuration, with the values that the cluster provides.
    pub fn config(self, namespace: String, cluster: String, image: String) -> Config {
        Config {
            namespace,
            cluster,
            allowed_secrets: self.allowed_secrets,
            mover: MoverSettings { image, ..self.mover },
            prepare: self.prepare,
            publish: self.publish,
            free_after: self.free_after,
            incomplete: self.incomplete,
        }
    }
}

fn resources(cpu: Option<Quantity>, memory: Option<Quantity>) -> BTreeMap<String, Quantity> {
    let named = |name: &str, quantity: Option<Quantity>| quantity.map(|quantity| (name.to_owned(), quantity));
    named("cpu", cpu).into_iter().chain(named("memory", memory)).collect()
}

/// Parses tolerations. The parser ignores a misspelt field, and the toleration would match other
/// taints: a field that is lost is an error.
fn tolerations(text: &str) -> Option<Vec<Toleration>> {
    let given: Value = serde_json::from_str(text).ok()?;
    let read: Vec<Toleration> = serde_json::from_value(given.clone()).ok()?;
    (serde_json::to_value(&read).ok()? == given).then_some(read)
}

/// Parses `key=value`, a valid label.
fn label(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            let domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
            (!prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(domain)).then_some(name)?
        }
        None => key,
    };
    let part = |text: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        text.len() <= 63 && ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(inner)
    };
    (part(name) && (value.is_empty() || part(value))).then(|| (key.to_owned(), value.to_owned()))
}

/// The environment, and the parsers of its values.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn text(&self, name: &str) -> Option<String> {
        Some((self.0)(name)?.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Bad> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Bad { name, value, why: format!("it should be {expected}") }),
        }
    }

    fn number<T: TryFrom<u32>>(&self, name: &'static str) -> Result<Option<T>, Bad> {
        self.parsed(name, "a number, 0 or more", |text| T::try_from(text.parse::<u32>().ok()?).ok())
    }

    fn truth(&self, name: &'static str) -> Result<bool, Bad> {
        let read = |text: &str| text.parse::<bool>().ok();
        Ok(self.parsed(name, "true or false", read)?.unwrap_or(false))
    }

    fn duration(&self, name: &'static str) -> Result<Option<Duration>, Bad> {
        self.parsed(name, "a duration like 90s, 30m or 1h30m", |text| {
            let duration: SignedDuration = text.parse().ok()?;
            Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
        })
    }

    fn bytes(&self, name: &'static str) -> Result<Option<u64>, Bad> {
        self.parsed(name, "a size like 256Mi", quantity::bytes)
    }

    fn quantity(&self, name: &'static str, default: Option<&str>) -> Result<Option<Quantity>, Bad> {
        let read = |text: &str| match text {
            NONE => Some(None),
            text => quantity::bytes(text).filter(|value| *value > 0).map(|_| Some(Quantity(text.to_owned()))),
        };
        let given = self.parsed(name, "a quantity like 500m or 1Gi, or none", read)?;
        Ok(given.unwrap_or_else(|| default.map(|default| Quantity(default.to_owned()))))
    }

    fn one_of(&self, name: &'static str, values: &[&str]) -> Result<Option<String>, Bad> {
        let expected = format!("one of {}", values.join(", "));
        self.parsed(name, &expected, |text| values.contains(&text).then(|| text.to_owned()))
    }

    fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    }

    fn labels(&self, name: &'static str) -> Result<BTreeMap<String, String>, Bad> {
        let read = |text: &str| text.split(',').map(|part| label(part.trim())).collect();
        Ok(self.parsed(name, "a list like key=value,other=value, of valid labels", read)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../../../docs/operate/configuration.md");

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Bad> {
        Settings::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn everything_has_a_default() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.backups, settings.restores), (10, 10), "VSM 9.1");
        assert_eq!(settings, read(&[("DATAMOVER_CONCURRENT_BACKUP", ""), ("VSM_INCOMPLETE_FAILS", " ")]).unwrap());
        let config = settings.config("adp".into(), "c".into(), "i".into());
        assert_eq!((&*config.namespace, &*config.cluster, &*config.mover.image), ("adp", "c", "i"));
        assert_eq!((config.mover.retries, config.mover.unprivileged), (3, false));
        assert_eq!(config.incomplete, Incomplete::Completes);
        assert!(!config.mover.limits.contains_key("cpu") && config.mover.environment.is_empty());
    }

    #[test]
    fn every_variable_is_applied() {
        let settings = read(&[
            ("POD_NAMESPACE", "adp\n"),
            ("POD_NAME", "vsm-1"),
            ("VSM_CLUSTER_ID", "c"),
            ("VSM_MOVER_IMAGE", "registry/vsm:1"),
            ("DATAMOVER_CONCURRENT_BACKUP", "3"),
            ("DATAMOVER_CONCURRENT_RESTORE", "0"),
            ("VSM_ALLOWED_SECRETS", "a, b,"),
            ("VSM_PREPARE_TIMEOUT", "1h30m"),
            ("VSM_HAND_OVER_TIMEOUT", "90s"),
            ("VSM_FREE_SNAPSHOTS_AFTER", "30s"),
            ("VSM_INCOMPLETE_FAILS", "true"),
            ("VSM_MOVER_PULL_POLICY", "Always"),
            ("VSM_MOVER_PULL_SECRETS", "pull"),
            ("VSM_MOVER_SERVICE_ACCOUNT", "mover"),
            ("VSM_MOVER_RETRIES", "5"),
            ("VSM_MOVER_CPU_REQUEST", "none"),
            ("VSM_MOVER_CPU_LIMIT", "1500m"),
            ("VSM_MOVER_MEMORY_REQUEST", "512Mi"),
            ("VSM_MOVER_MEMORY_LIMIT", "1Gi"),
            ("VSM_MOVER_NODE_SELECTOR", "kubernetes.io/os=linux, pool=backup"),
            ("VSM_MOVER_TOLERATIONS", r#"[{"key": "backup", "operator": "Exists", "effect": "NoSchedule"}]"#),
            ("VSM_MOVER_PRIORITY_CLASS", "low"),
            ("VSM_MOVER_LABELS", "team=storage"),
            ("VSM_MOVER_CA_CONFIG_MAP", "trusted"),
            ("VSM_MOVER_LIMITS_CONFIG_MAP", "limits"),
            ("VSM_MOVER_UNPRIVILEGED", "true"),
            ("VSM_MEMORY", "256Mi"),
            ("VSM_THREADS", "4"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("NO_PROXY", ".svc"),
        ])
        .unwrap();
        assert_eq!((settings.namespace.as_deref(), settings.pod.as_deref()), (Some("adp"), Some("vsm-1")));
        assert_eq!((settings.backups, settings.restores), (3, 0));
        let config = settings.config("adp".into(), "c".into(), "i".into());
        assert_eq!(config.allowed_secrets, ["a", "b"]);
        let times = [config.prepare, config.publish, config.free_after].map(|time| time.as_secs());
        assert_eq!((times, config.incomplete), ([5400, 90, 30], Incomplete::Fails));
        let mover = config.mover;
        assert_eq!((mover.pull_policy.as_deref(), &*mover.pull_secrets), (Some("Always"), &["pull".to_owned()][..]));
        let given =
            |of: &BTreeMap<String, Quantity>| of.iter().map(|(k, v)| format!("{k}={}", v.0)).collect::<Vec<_>>();
        assert_eq!(given(&mover.requests), ["memory=512Mi"]);
        assert_eq!(given(&mover.limits), ["cpu=1500m", "memory=1Gi"]);
        assert_eq!(mover.node_selector["kubernetes.io/os"], "linux");
        assert_eq!(mover.tolerations[0].effect.as_deref(), Some("NoSchedule"));
        assert_eq!((mover.retries, mover.unprivileged, mover.priority_class.as_deref()), (5, true, Some("low")));
        let environment: Vec<_> = mover.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            environment,
            ["HTTPS_PROXY=http://proxy:3128", "NO_PROXY=.svc", "VSM_MEMORY=268435456", "VSM_THREADS=4"]
        );
    }

    #[test]
    fn an_invalid_value_is_rejected_with_the_name_of_its_variable() {
        for (name, value) in [
            ("DATAMOVER_CONCURRENT_BACKUP", "ten"),
            ("DATAMOVER_CONCURRENT_RESTORE", "-1"),
            ("VSM_INCOMPLETE_FAILS", "yes"),
            ("VSM_MOVER_UNPRIVILEGED", "1"),
            ("VSM_MOVER_RETRIES", "4294967295"),
            ("VSM_PREPARE_TIMEOUT", "30"),
            ("VSM_HAND_OVER_TIMEOUT", "-1h"),
            ("VSM_PREPARE_TIMEOUT", "0s"),
            ("VSM_MOVER_CPU_LIMIT", "one"),
            ("VSM_MOVER_MEMORY_REQUEST", "1GB"),
            ("VSM_MOVER_MEMORY_LIMIT", "0"),
            ("VSM_MOVER_MEMORY_LIMIT", "64Mi"),
            ("VSM_MOVER_PULL_POLICY", "always"),
            ("VSM_MOVER_NODE_SELECTOR", "pool"),
            ("VSM_MOVER_NODE_SELECTOR", "=backup"),
            ("VSM_MOVER_LABELS", "a=b c"),
            ("VSM_MOVER_LABELS", "A/b=c"),
            ("VSM_MOVER_TOLERATIONS", r#"{"key": "backup"}"#),
            ("VSM_MOVER_TOLERATIONS", r#"[{"key": "backup", "efect": "NoSchedule"}]"#),
            ("VSM_MEMORY", "128MiB"),
            ("VSM_MEMORY", "3Gi"),
            ("VSM_THREADS", "0"),
        ] {
            let error = read(&[(name, value)]).map(|_| ()).expect_err(value).to_string();
            // A limit below the default request is reported for the request.
            let other = if value == "64Mi" { "VSM_MOVER_MEMORY_REQUEST" } else { name };
            assert!(error.contains(other), "{name}={value}: {error}");
        }
    }

    /// The first column of the tables below a heading.
    fn documented(heading: &str) -> BTreeSet<String> {
        let after = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect("the chapter").1;
        let chapter = after.split("\n## ").next().unwrap();
        let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        rows.map(|(name, _)| name.to_owned()).filter(|name| !name.starts_with('-')).collect()
    }

    #[test]
    fn the_document_lists_exactly_the_variables() {
        let asked = RefCell::new(BTreeSet::new());
        Settings::read(|name| {
            asked.borrow_mut().insert(name.to_owned());
            None
        })
        .unwrap();
        let mut documented = documented("Configuration");
        assert!(documented.remove("VSM_LOG"), "`VSM_LOG` is read before all others");
        assert_eq!(asked.into_inner(), documented);
    }
}
