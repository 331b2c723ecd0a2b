use super::*;
use crate::controller::mover_job::mover::{Access, MOUNT_PATH, MoverVolume};
use crate::kubernetes::naming::Naming;
use crate::volume_mode::VolumeMode;
use crate::work::{Backup, Reason, Retry, Task, VERSION, Work};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

fn work() -> Work {
    let backup = Backup {
        source: MOUNT_PATH.into(),
        hostname: "data".into(),
        tags: vec![],
        identity: "vsb-uid:1".into(),
        lineage: "pvc-uid:2".into(),
        initialize: true,
    };
    Work { version: VERSION, repository: "s3:https://h/b/r".into(), task: Task::Backup(backup), gone: vec![] }
}

fn mover(settings: &MoverSettings, access: Access, mode: VolumeMode) -> MoverSpec<'_> {
    MoverSpec {
        naming: Naming { name: "vsm-vsb-1".into(), namespace: "adp".into(), ..Naming::default() },
        volume: Some(MoverVolume { claim: "vsm-vsb-1".into(), mode, access }),
        work: work(),
        secrets: BTreeMap::from([("RESTIC_PASSWORD".to_owned(), ByteString(b"x".to_vec()))]),
        settings,
    }
}

fn job_of(access: Access, mode: VolumeMode, settings: &MoverSettings) -> Value {
    serde_json::to_value(mover(settings, access, mode).job()).unwrap()
}

/// `docs/reference/mover.md` lists the same privileges.
#[test]
fn a_mover_has_the_privileges_of_its_direction_and_no_others() {
    for (access, capabilities, read_only) in [
        (Access::ReadOnly, json!(["DAC_READ_SEARCH"]), true),
        (Access::Writable, json!(["CHOWN", "FOWNER", "DAC_OVERRIDE", "FSETID", "SETFCAP", "MKNOD"]), false),
    ] {
        let job = job_of(access, VolumeMode::Filesystem, &MoverSettings::default());
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}), "and no fsGroup");
        assert_eq!(
            pod["containers"][0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true, "runAsUser": 0,
                "capabilities": {"drop": ["ALL"], "add": capabilities},
            })
        );
        let volume = &pod["volumes"][2];
        assert_eq!(volume["persistentVolumeClaim"], json!({"claimName": "vsm-vsb-1", "readOnly": read_only}));
        let mount = &pod["containers"][0]["volumeMounts"][2];
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&"/data".into(), &read_only.into()));
        let mount = &pod["containers"][0]["volumeMounts"][3];
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&"/tmp".into(), &false.into()));
        assert_eq!(pod["volumes"][3], json!({"name": "temporary", "emptyDir": {"sizeLimit": "2Gi"}}));
    }
    let unprivileged = MoverSettings { unprivileged: true, ..MoverSettings::default() };
    let job = job_of(Access::Writable, VolumeMode::Filesystem, &unprivileged);
    let context = &job["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&true.into(), &Value::Null));
}

/// The image may start the controller by default.
#[test]
fn the_container_starts_the_mover() {
    let job = job_of(Access::ReadOnly, VolumeMode::Filesystem, &MoverSettings::default());
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["command"], &container["args"][0]), (&json!(["/vsm-mover"]), &json!("work")));
    let env = container["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "MALLOC_ARENA_MAX", "value": "4"})));
    assert!(env.contains(&json!({"name": "MALLOC_MMAP_THRESHOLD_", "value": "4194304"})));
}

#[test]
fn a_block_volume_is_a_device_and_not_a_mount() {
    let job = job_of(Access::ReadOnly, VolumeMode::Block, &MoverSettings::default());
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["volumeDevices"], json!([{"name": "volume", "devicePath": "/dev/volume"}]));
    assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 3);
}

#[test]
fn certificates_of_the_cluster_are_mounted_and_named() {
    let settings = MoverSettings { ca_config_map: Some("trusted".into()), ..MoverSettings::default() };
    let job = job_of(Access::ReadOnly, VolumeMode::Block, &settings);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][3], json!({"name": "ca", "configMap": {"name": "trusted"}}));
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let env = container["env"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "ca", "mountPath": "/etc/vsm/ca", "readOnly": true})));
    assert!(env.contains(&json!({"name": "SSL_CERT_FILE", "value": "/etc/vsm/ca/ca-bundle.crt"})));
}

#[test]
fn limits_are_mounted_whether_or_not_they_exist() {
    let settings = MoverSettings { limits_config_map: Some("limits".into()), ..MoverSettings::default() };
    let job = job_of(Access::ReadOnly, VolumeMode::Block, &settings);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][3], json!({"name": "limits", "configMap": {"name": "limits", "optional": true}}));
    let container = &pod["containers"][0];
    let mount = json!({"name": "limits", "mountPath": "/etc/vsm/limits", "readOnly": true});
    assert!(container["volumeMounts"].as_array().unwrap().contains(&mount));
    assert!(container["env"].as_array().unwrap().contains(&json!({"name": "VSM_LIMITS", "value": "/etc/vsm/limits"})));
}

/// A final failure is not retried, and a drained node does not count as a failure.
#[test]
fn retries_are_bounded() {
    let settings = MoverSettings { retries: 3, ..MoverSettings::default() };
    let spec = &job_of(Access::ReadOnly, VolumeMode::Filesystem, &settings)["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["podReplacementPolicy"]), (&3.into(), &"Failed".into()));
    let rules = &spec["podFailurePolicy"]["rules"];
    assert_eq!(rules[0]["onExitCodes"]["values"], json!([3, 10, 12, 13]));
    assert_eq!((&rules[0]["action"], &rules[1]["action"]), (&"FailJob".into(), &"Ignore".into()));
}

#[test]
fn a_mover_can_parse_its_work_description() {
    let (work, settings) = (work(), MoverSettings::default());
    let config_map = mover(&settings, Access::ReadOnly, VolumeMode::Filesystem).config_map();
    assert_eq!(Work::parse(config_map.data.unwrap()["work.json"].as_bytes()), Ok(work));
}

#[test]
fn the_job_is_not_retried_after_exactly_the_reasons_that_are_final() {
    for reason in Reason::ALL {
        let ends = FINAL_EXITS.contains(&i32::from(reason.exit_code()));
        assert_eq!(ends, reason.retry() == Retry::Never, "{reason:?}");
    }
}
