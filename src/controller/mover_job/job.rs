//! One mover as a Job: what it is given, what it may do, and how it ended. Of no kind of ours does this room know anything.
//!
//! A mover runs as root in its container, because a volume has files of many owners, with exactly the capabilities that its
//! direction needs and nothing else: no privilege to gain, no token of any account, a root file system that cannot be written,
//! the volume read-only unless it is restored into. What memory does not hold it puts aside in a directory of bounded size.

use crate::api::Progress;
use crate::controller::domain::names::Naming;
use crate::work::{Outcome, Report, Work};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerStateTerminated, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Toleration,
    Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where things are in a mover's container.
pub const VOLUME: &str = "/data";
pub const DEVICE: &str = "/dev/volume";
const WORK: &str = "/etc/vsm/work";
const WORK_FILE: &str = "work.json";
const SECRETS: &str = "/etc/vsm/secrets";
const CA: &str = "/etc/vsm/ca";
/// The key of certificates in a ConfigMap: OpenShift puts its own there, with the system's, where it is asked to.
const CA_KEY: &str = "ca-bundle.crt";
const LIMITS: &str = "/etc/vsm/limits";
const REPORT: &str = "/dev/termination-log";
/// Where a mover's temporary files are, which have no names, and how much they may take: the tree of a directory of five million
/// entries, sealed, and the one that it is compared with.
const TEMPORARY: &str = "/tmp";
const TEMPORARY_SIZE: &str = "2Gi";

const CONTAINER: &str = "mover";

/// The mover's program in its image, be that `vsm-mover` or the controller's own (`mover-image/README.md`).
const MOVER: &str = "/vsm-mover";

/// Keeps a mover's Job and pods until what came of them is recorded.
pub const FINALIZER: &str = "datamover.oadp.openshift.io/outcome";

/// Seconds that a mover has to index what it uploaded and to release its lock.
const GRACE: i64 = 120;

/// Exit codes after which the same would only happen again: incomplete, no repository, wrong password, and what the mover says of.
const FINAL_EXITS: [i32; 4] = [3, 10, 12, 13];

/// Times a second at which progress is logged.
const PROGRESS_RATE: &str = "0.2";

/// Which way the data goes, and with it what the mover may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of a volume, which is mounted read-only.
    Out,
    /// Into a fresh volume.
    In,
    /// No volume at all.
    None,
}

impl Direction {
    /// What the container is left of root's capabilities; `docs/MOVER.md` says what each is for.
    fn capabilities(self) -> &'static [&'static str] {
        match self {
            Direction::Out => &["DAC_READ_SEARCH"],
            Direction::In => &["CHOWN", "FOWNER", "DAC_OVERRIDE", "FSETID", "SETFCAP", "MKNOD"],
            Direction::None => &[],
        }
    }
}

/// How an administrator wants movers to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub image: String,
    pub pull_policy: Option<String>,
    pub pull_secrets: Vec<String>,
    pub service_account: Option<String>,
    /// How often a mover that failed is started again.
    pub retries: i32,
    pub requests: BTreeMap<String, Quantity>,
    pub limits: BTreeMap<String, Quantity>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub priority_class: Option<String>,
    pub pod_labels: BTreeMap<String, String>,
    /// A ConfigMap with the certificates that movers trust instead of those in their image.
    pub ca_config_map: Option<String>,
    /// A ConfigMap with the limits of movers' traffic, which they go on reading while they run.
    pub limits_config_map: Option<String>,
    /// Of the mover's process: proxies, `VSM_MEMORY`, `VSM_THREADS`.
    pub environment: BTreeMap<String, String>,
    /// Run as whoever the image or the cluster says, without capabilities. What cannot be read or set then is counted.
    pub unprivileged: bool,
}

/// One mover.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// The Job, its work description and its secrets are called so.
    pub naming: Naming,
    pub direction: Direction,
    /// The claim, in the same namespace.
    pub claim: Option<String>,
    pub block: bool,
    pub work: Work,
    pub secrets: BTreeMap<String, ByteString>,
    pub settings: &'w Settings,
}

impl Wanted<'_> {
    /// The secrets, as the mover reads them.
    pub fn secret(&self) -> Secret {
        Secret { metadata: self.naming.meta(), data: Some(self.secrets.clone()), ..Secret::default() }
    }

    /// The work description.
    pub fn config_map(&self) -> ConfigMap {
        let work = serde_json::to_string(&self.work).expect("plain data");
        let data = BTreeMap::from([(WORK_FILE.to_owned(), work)]);
        ConfigMap { metadata: self.naming.meta(), data: Some(data), ..ConfigMap::default() }
    }

    pub fn job(&self) -> Job {
        let Settings { pod_labels, retries, .. } = self.settings;
        let mut labels = pod_labels.clone();
        labels.extend(self.naming.labels.clone());
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: Some(self.naming.annotations.clone()),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            }),
            spec: Some(self.pod()),
        };
        let metadata = ObjectMeta { finalizers: Some(vec![FINALIZER.to_owned()]), ..self.naming.meta() };
        let spec = JobSpec {
            backoff_limit: Some(*retries),
            completions: Some(1),
            parallelism: Some(1),
            // A successor removes its predecessor's lock, so the predecessor must be gone.
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: Some(failure_policy()),
            template,
            ..JobSpec::default()
        };
        Job { metadata, spec: Some(spec), status: None }
    }

    fn pod(&self) -> PodSpec {
        let Settings {
            service_account,
            node_selector,
            tolerations,
            priority_class,
            pull_secrets,
            ca_config_map,
            limits_config_map,
            ..
        } = self.settings;
        let mut volumes = vec![
            Volume {
                name: "work".into(),
                config_map: Some(ConfigMapVolumeSource {
                    name: self.naming.name.clone(),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "secrets".into(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(self.naming.name.clone()),
                    // Whoever the container runs as has to read it, and nobody else is in there.
                    default_mode: Some(if self.settings.unprivileged { 0o444 } else { 0o400 }),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
        ];
        if let Some(claim) = &self.claim {
            volumes.push(Volume {
                name: "volume".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: Some(self.direction == Direction::Out),
                }),
                ..Volume::default()
            });
        }
        if let Some(name) = ca_config_map {
            let source = ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() };
            volumes.push(Volume { name: "ca".into(), config_map: Some(source), ..Volume::default() });
        }
        if let Some(name) = limits_config_map {
            // It may come later, and go.
            let source =
                ConfigMapVolumeSource { name: name.clone(), optional: Some(true), ..ConfigMapVolumeSource::default() };
            volumes.push(Volume { name: "limits".into(), config_map: Some(source), ..Volume::default() });
        }
        let temporary = EmptyDirVolumeSource { size_limit: Some(Quantity(TEMPORARY_SIZE.into())), medium: None };
        volumes.push(Volume { name: "temporary".into(), empty_dir: Some(temporary), ..Volume::default() });
        PodSpec {
            automount_service_account_token: Some(false),
            containers: vec![self.container()],
            enable_service_links: Some(false),
            image_pull_secrets: (!pull_secrets.is_empty()).then(|| {
                let reference = |name: &String| k8s_openapi::api::core::v1::LocalObjectReference { name: name.clone() };
                pull_secrets.iter().map(reference).collect()
            }),
            node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
            priority_class_name: priority_class.clone(),
            restart_policy: Some("Never".into()),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            service_account_name: service_account.clone(),
            termination_grace_period_seconds: Some(GRACE),
            tolerations: (!tolerations.is_empty()).then(|| tolerations.clone()),
            volumes: Some(volumes),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let Settings { image, pull_policy, requests, limits, environment, unprivileged, .. } = self.settings;
        let text = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..EnvVar::default()
        };
        // The Job's own uid, which nobody can know before there is a Job.
        let uid = ObjectFieldSelector {
            field_path: "metadata.labels['batch.kubernetes.io/controller-uid']".into(),
            api_version: None,
        };
        let uid = EnvVarSource { field_ref: Some(uid), ..EnvVarSource::default() };
        let mut env = vec![
            EnvVar { name: "VSM_JOB".into(), value_from: Some(uid), ..EnvVar::default() },
            text("RESTIC_PROGRESS_FPS", PROGRESS_RATE),
        ];
        env.extend(environment.iter().map(|(name, value)| text(name, value)));
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        };
        let mut mounts = vec![mount("work", WORK, true), mount("secrets", SECRETS, true)];
        let mut devices = None;
        if self.claim.is_some() && self.block {
            devices = Some(vec![VolumeDevice { name: "volume".into(), device_path: DEVICE.into() }]);
        } else if self.claim.is_some() {
            mounts.push(mount("volume", VOLUME, self.direction == Direction::Out));
        }
        if self.settings.ca_config_map.is_some() {
            mounts.push(mount("ca", CA, true));
            env.push(text("SSL_CERT_FILE", &format!("{CA}/{CA_KEY}")));
        }
        if self.settings.limits_config_map.is_some() {
            mounts.push(mount("limits", LIMITS, true));
            env.push(text("VSM_LIMITS", LIMITS));
        }
        mounts.push(mount("temporary", TEMPORARY, false));
        let added: Vec<String> = self.direction.capabilities().iter().map(|one| (*one).to_owned()).collect();
        let added = (!unprivileged && !added.is_empty()).then_some(added);
        Container {
            name: CONTAINER.into(),
            image: Some(image.clone()),
            image_pull_policy: pull_policy.clone(),
            // The controller's own image has the mover too, and starts the controller unless told.
            command: Some(vec![MOVER.into()]),
            args: Some(
                ["work", &format!("{WORK}/{WORK_FILE}"), "--json", "--secrets", SECRETS, "--report", REPORT]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            env: Some(env),
            resources: Some(ResourceRequirements {
                requests: Some(requests.clone()),
                limits: Some(limits.clone()),
                claims: None,
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: added }),
                privileged: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_user: (!unprivileged).then_some(0),
                run_as_non_root: unprivileged.then_some(true),
                ..SecurityContext::default()
            }),
            termination_message_path: Some(REPORT.into()),
            termination_message_policy: Some("File".into()),
            volume_devices: devices,
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }
}

fn failure_policy() -> PodFailurePolicy {
    let final_exit = PodFailurePolicyRule {
        action: "FailJob".into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(CONTAINER.into()),
            operator: "In".into(),
            values: FINAL_EXITS.to_vec(),
        }),
        on_pod_conditions: None,
    };
    // A drained node is nobody's failure.
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".into(),
        on_exit_codes: None,
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
        }]),
    };
    PodFailurePolicy { rules: vec![final_exit, disrupted] }
}

/// How far a mover is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No pod runs yet, or again. Why, for people.
    Waiting {
        why: String,
    },
    Running {
        pod: String,
    },
    /// It said how it ended, and will not be started again.
    Reported {
        report: Box<Report>,
        pod: String,
    },
    /// It ended without saying how.
    Lost {
        why: String,
    },
}

/// What became of a Job.
pub fn observe(job: &Job, pods: &[Pod]) -> State {
    let uid = job.uid().unwrap_or_default();
    let mut pods: Vec<&Pod> = pods.iter().filter(|pod| is_of(pod, &uid)).collect();
    pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    let ended = ["Complete", "Failed"].into_iter().find(|kind| has_condition(job, kind));
    let newest = pods.last().copied();
    let name = newest.map(|pod| pod.name_any()).unwrap_or_default();
    if let Some(ended) = ended {
        let reports = pods.iter().rev().filter_map(|pod| Some((report(pod, &uid)?, pod.name_any())));
        // Of a Job that is complete, the pod that completed it; its predecessors only failed.
        let told =
            reports.into_iter().find(|(report, _)| ended == "Failed" || !matches!(report.outcome, Outcome::Failed(_)));
        return match told {
            Some((report, pod)) => State::Reported { report: Box::new(report), pod },
            None => State::Lost { why: why_lost(job, newest) },
        };
    }
    let Some(pod) = newest else { return State::Waiting { why: "the Job has no pod yet".into() } };
    match phase(pod) {
        "Running" => State::Running { pod: name },
        _ if has_ended(pod) => State::Waiting {
            why: match report(pod, &uid).map(|report| report.outcome) {
                Some(Outcome::Failed(failed)) => {
                    format!("the mover failed and is started again: {}: {}", failed.reason, failed.message)
                }
                _ => format!("the mover's pod {name} has ended: {}", how_it_ended(pod)),
            },
        },
        _ => State::Waiting { why: format!("the mover's pod {name} does not run yet{}", what_it_waits_for(pod)) },
    }
}

/// The host names of movers that have ended, and whose locks nobody will release.
pub fn gone(job: &Job, pods: &[Pod]) -> Vec<String> {
    let uid = job.uid().unwrap_or_default();
    let ended = pods.iter().filter(|pod| is_of(pod, &uid) && has_ended(pod));
    let mut names: Vec<String> = ended.map(|pod| pod.name_any()).collect();
    names.sort();
    names
}

/// Whether a pod runs no more, and never will.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// When a pod's mover ended, if that is on record.
pub fn ended_at(pod: &Pod) -> Option<&Time> {
    terminated(pod)?.finished_at.as_ref()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The work that a mover was given; an error if this controller cannot read it.
pub fn described(config_map: &ConfigMap) -> Result<Work, String> {
    let work = config_map.data.as_ref().and_then(|data| data.get(WORK_FILE));
    Work::parse(work.map_or("", String::as_str).as_bytes())
}

/// What a line of a mover's log says of how far it is.
pub fn progress(line: &str) -> Option<Progress> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Line {
        message_type: String,
        total_files: i64,
        files_done: i64,
        files_restored: i64,
        total_bytes: i64,
        bytes_done: i64,
        bytes_restored: i64,
    }
    let line: Line = serde_json::from_str(line).ok().filter(|line: &Line| line.message_type == "status")?;
    Some(Progress {
        total_files: line.total_files,
        files_done: line.files_done.max(line.files_restored),
        total_bytes: line.total_bytes,
        bytes_done: line.bytes_done.max(line.bytes_restored),
        ..Progress::default()
    })
}

/// What movers of a Job left in the repository that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// One ended without a word: its lock may be there, and a snapshot.
    pub unknown: bool,
    /// One made a snapshot.
    pub snapshot: bool,
}

pub fn left(job: &Job, pods: &[Pod]) -> Left {
    let uid = job.uid().unwrap_or_default();
    let ran = pods.iter().filter(|pod| is_of(pod, &uid) && phase(pod) != "Pending");
    ran.fold(Left::default(), |left, pod| match report(pod, &uid).map(|report| report.outcome) {
        None => Left { unknown: true, ..left },
        Some(Outcome::Saved(_)) => Left { snapshot: true, ..left },
        Some(_) => left,
    })
}

/// Whether a Job will start no more pods.
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

fn is_of(pod: &Pod, job: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == job && owner.controller == Some(true))
}

fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()
}

/// What a pod reported, if it was the mover of this Job that wrote it.
fn report(pod: &Pod, job: &str) -> Option<Report> {
    let message = terminated(pod)?.message.as_ref()?;
    Report::parse(message.as_bytes()).ok().filter(|report| report.job == job)
}

fn how_it_ended(pod: &Pod) -> String {
    match terminated(pod) {
        Some(end) => {
            let reason = end.reason.as_deref().unwrap_or("without a reason");
            format!("{reason}, exit code {}", end.exit_code)
        }
        None => {
            let status = pod.status.clone().unwrap_or_default();
            let text = [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            if text.is_empty() { "its container's end is not on record".into() } else { text }
        }
    }
}

fn why_lost(job: &Job, newest: Option<&Pod>) -> String {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed");
    let said = failed.and_then(|condition| condition.message.clone()).unwrap_or_default();
    match newest {
        Some(pod) => format!("the mover's pod {} left no report ({}); {said}", pod.name_any(), how_it_ended(pod)),
        None => format!("the mover's pod is gone; {said}"),
    }
}

/// What keeps a pod from running, in the words of whoever says it.
fn what_it_waits_for(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.unwrap_or_default().into_iter().find_map(|container| {
        let waiting = container.state?.waiting?;
        let reason = waiting.reason.filter(|reason| reason != "ContainerCreating")?;
        Some(format!("{reason}: {}", waiting.message.unwrap_or_default()))
    });
    let unscheduled = status.conditions.unwrap_or_default().into_iter().find_map(|condition| {
        let unscheduled = condition.type_ == "PodScheduled" && condition.status == "False";
        unscheduled.then(|| condition.message.unwrap_or_default())
    });
    waiting.or(unscheduled).map_or_else(String::new, |why| format!(": {why}"))
}

#[cfg(test)]
mod tests;
