//! The pod template of a mover: volumes, container, privileges.
//!
//! A mover runs as root in its container, because a volume has files of many owners, with the
//! capabilities that its direction needs and no others: no privilege escalation, no service account
//! token, a read-only root file system, and the volume read-only unless it is restored. Spill files
//! are in an `emptyDir` of limited size.

use super::mover::{Access, CONTAINER, DEVICE_PATH, MOUNT_PATH, MoverSpec, WORK_FILE};
use crate::controller::config::MoverSettings;
use crate::volume_mode::VolumeMode;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Mount paths in the container.
const WORK: &str = "/etc/vsm/work";
const SECRETS: &str = "/etc/vsm/secrets";
const CA: &str = "/etc/vsm/ca";
const LIMITS: &str = "/etc/vsm/limits";
const TEMPORARY: &str = "/tmp";

/// The key of certificates in a ConfigMap. OpenShift injects its own there, with the system's.
const CA_KEY: &str = "ca-bundle.crt";

/// The file that kubelet reads as the container's termination message.
const REPORT: &str = "/dev/termination-log";

/// The size limit of spill files: the sealed tree of a directory of five million entries, and the
/// tree that it is compared with.
const TEMPORARY_SIZE: &str = "2Gi";

/// The mover's program, in the image of `vsm-mover` and in that of the controller
/// (`mover-image/README.md`).
const PROGRAM: &str = "/vsm-mover";

/// Seconds that a mover has to index its uploads and to release its lock.
const GRACE: i64 = 120;

/// Settings of glibc's allocator, which reads them from the environment at the start of a process.
/// By default it has 8 arenas per core, and serves buffers of up to 32 MiB from them once a buffer
/// of that size was freed; freed memory of an arena stays with the process. A backup of 1,000,000
/// files with `--memory 64M` had 91 to 109 MiB resident, and has 73 MiB with these settings.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "4"), ("MALLOC_MMAP_THRESHOLD_", "4194304")];

/// Progress lines per second in the log.
const PROGRESS_RATE: &str = "0.2";

/// The capabilities of root that the container has; `docs/reference/mover.md` explains each.
fn capabilities(spec: &MoverSpec<'_>) -> &'static [&'static str] {
    match spec.volume.as_ref().map(|volume| volume.access) {
        Some(Access::ReadOnly) => &["DAC_READ_SEARCH"],
        Some(Access::Writable) => &["CHOWN", "FOWNER", "DAC_OVERRIDE", "FSETID", "SETFCAP", "MKNOD"],
        None => &[],
    }
}

pub fn spec(spec: &MoverSpec<'_>) -> PodSpec {
    let MoverSettings { service_account, node_selector, tolerations, priority_class, pull_secrets, .. } = spec.settings;
    PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container(spec)],
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty())
            .then(|| pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
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
        volumes: Some(volumes(spec)),
        ..PodSpec::default()
    }
}

fn volumes(spec: &MoverSpec<'_>) -> Vec<Volume> {
    let name = &spec.naming.name;
    let config_map = |name: &str, source: ConfigMapVolumeSource| Volume {
        name: name.into(),
        config_map: Some(source),
        ..Volume::default()
    };
    let named = |name: &str| ConfigMapVolumeSource { name: name.into(), ..ConfigMapVolumeSource::default() };
    let secrets = SecretVolumeSource {
        secret_name: Some(name.clone()),
        // The container's user must read it, and the container has no other user.
        default_mode: Some(if spec.settings.unprivileged { 0o444 } else { 0o400 }),
        ..SecretVolumeSource::default()
    };
    let mut volumes = vec![
        config_map("work", named(name)),
        Volume { name: "secrets".into(), secret: Some(secrets), ..Volume::default() },
    ];
    if let Some(volume) = &spec.volume {
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: volume.claim.clone(),
            read_only: Some(volume.access == Access::ReadOnly),
        };
        volumes.push(Volume { name: "volume".into(), persistent_volume_claim: Some(source), ..Volume::default() });
    }
    volumes.extend(spec.settings.ca_config_map.iter().map(|name| config_map("ca", named(name))));
    // The ConfigMap may be created and deleted while the mover runs.
    let optional = |name| ConfigMapVolumeSource { optional: Some(true), ..named(name) };
    volumes.extend(spec.settings.limits_config_map.iter().map(|name| config_map("limits", optional(name))));
    let temporary = EmptyDirVolumeSource { size_limit: Some(Quantity(TEMPORARY_SIZE.into())), medium: None };
    volumes.push(Volume { name: "temporary".into(), empty_dir: Some(temporary), ..Volume::default() });
    volumes
}

fn container(spec: &MoverSpec<'_>) -> Container {
    let MoverSettings { image, pull_policy, requests, limits, .. } = spec.settings;
    let args = ["work", &format!("{WORK}/{WORK_FILE}"), "--json", "--secrets", SECRETS, "--report", REPORT];
    let device = spec.volume.as_ref().filter(|volume| volume.mode == VolumeMode::Block);
    Container {
        name: CONTAINER.into(),
        image: Some(image.clone()),
        image_pull_policy: pull_policy.clone(),
        // The controller's image has the mover, too, and starts the controller by default.
        command: Some(vec![PROGRAM.into()]),
        args: Some(args.map(str::to_owned).to_vec()),
        env: Some(environment(spec)),
        resources: Some(ResourceRequirements {
            requests: Some(requests.clone()),
            limits: Some(limits.clone()),
            claims: None,
        }),
        security_context: Some(security_context(spec)),
        termination_message_path: Some(REPORT.into()),
        termination_message_policy: Some("File".into()),
        volume_devices: device.map(|_| vec![VolumeDevice { name: "volume".into(), device_path: DEVICE_PATH.into() }]),
        volume_mounts: Some(mounts(spec)),
        ..Container::default()
    }
}

fn security_context(spec: &MoverSpec<'_>) -> SecurityContext {
    let unprivileged = spec.settings.unprivileged;
    let added: Vec<String> = capabilities(spec).iter().map(|one| (*one).to_owned()).collect();
    let added = (!unprivileged && !added.is_empty()).then_some(added);
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: added }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_user: (!unprivileged).then_some(0),
        run_as_non_root: unprivileged.then_some(true),
        ..SecurityContext::default()
    }
}

fn environment(spec: &MoverSpec<'_>) -> Vec<EnvVar> {
    let text =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() };
    // The uid of the Job, which is unknown before the Job exists.
    let uid = ObjectFieldSelector {
        field_path: "metadata.labels['batch.kubernetes.io/controller-uid']".into(),
        api_version: None,
    };
    let uid = EnvVarSource { field_ref: Some(uid), ..EnvVarSource::default() };
    let mut environment = vec![
        EnvVar { name: "VSM_JOB".into(), value_from: Some(uid), ..EnvVar::default() },
        text("RESTIC_PROGRESS_FPS", PROGRESS_RATE),
    ];
    environment.extend(ALLOCATOR.iter().map(|(name, value)| text(name, value)));
    environment.extend(spec.settings.environment.iter().map(|(name, value)| text(name, value)));
    if spec.settings.ca_config_map.is_some() {
        environment.push(text("SSL_CERT_FILE", &format!("{CA}/{CA_KEY}")));
    }
    if spec.settings.limits_config_map.is_some() {
        environment.push(text("VSM_LIMITS", LIMITS));
    }
    environment
}

fn mounts(spec: &MoverSpec<'_>) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, access: Access| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(access == Access::ReadOnly),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("work", WORK, Access::ReadOnly), mount("secrets", SECRETS, Access::ReadOnly)];
    let filesystem = spec.volume.iter().filter(|volume| volume.mode == VolumeMode::Filesystem);
    mounts.extend(filesystem.map(|volume| mount("volume", MOUNT_PATH, volume.access)));
    mounts.extend(spec.settings.ca_config_map.iter().map(|_| mount("ca", CA, Access::ReadOnly)));
    mounts.extend(spec.settings.limits_config_map.iter().map(|_| mount("limits", LIMITS, Access::ReadOnly)));
    mounts.push(mount("temporary", TEMPORARY, Access::Writable));
    mounts
}
