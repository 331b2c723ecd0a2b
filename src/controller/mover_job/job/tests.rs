use super::*;
use crate::work::{Backup, Failed, Saved, Task, VERSION};
use serde_json::{Value, from_value, json};

fn work() -> Work {
    let backup = Backup {
        source: VOLUME.into(),
        hostname: "data".into(),
        tags: vec![],
        identity: "vsb-uid:1".into(),
        lineage: "pvc-uid:2".into(),
        initialize: true,
    };
    Work { version: VERSION, repository: "s3:https://h/b/r".into(), task: Task::Backup(backup), gone: vec![] }
}

fn wanted(work: Work, settings: &Settings, direction: Direction, block: bool) -> Wanted<'_> {
    Wanted {
        naming: Naming { name: "vsm-vsb-1".into(), namespace: "adp".into(), ..Naming::default() },
        direction,
        claim: Some("vsm-vsb-1".into()),
        block,
        work,
        secrets: BTreeMap::from([("RESTIC_PASSWORD".to_owned(), ByteString(b"x".to_vec()))]),
        settings,
    }
}

fn job_of(direction: Direction, block: bool, settings: &Settings) -> Value {
    serde_json::to_value(wanted(work(), settings, direction, block).job()).unwrap()
}

/// The list of the issue: anything a mover has beyond it, and anything it lacks, is a finding.
#[test]
fn a_mover_has_the_rights_of_its_direction_and_no_others() {
    for (direction, capabilities, read_only) in [
        (Direction::Out, json!(["DAC_READ_SEARCH"]), true),
        (Direction::In, json!(["CHOWN", "FOWNER", "DAC_OVERRIDE", "FSETID", "SETFCAP", "MKNOD"]), false),
    ] {
        let job = job_of(direction, false, &Settings::default());
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
    let unprivileged = Settings { unprivileged: true, ..Settings::default() };
    let job = job_of(Direction::In, false, &unprivileged);
    let context = &job["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&true.into(), &Value::Null));
}

/// What the image starts by itself may be the controller.
#[test]
fn a_mover_is_told_which_program_it_is() {
    let job = job_of(Direction::Out, false, &Settings::default());
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["command"], &container["args"][0]), (&json!(["/vsm-mover"]), &json!("work")));
}

#[test]
fn a_block_volume_is_a_device_and_no_mount() {
    let job = job_of(Direction::Out, true, &Settings::default());
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["volumeDevices"], json!([{"name": "volume", "devicePath": "/dev/volume"}]));
    assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 3);
}

#[test]
fn certificates_of_the_cluster_are_mounted_and_named() {
    let settings = Settings { ca_config_map: Some("trusted".into()), ..Settings::default() };
    let job = job_of(Direction::Out, true, &settings);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][3], json!({"name": "ca", "configMap": {"name": "trusted"}}));
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let env = container["env"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "ca", "mountPath": "/etc/vsm/ca", "readOnly": true})));
    assert!(env.contains(&json!({"name": "SSL_CERT_FILE", "value": "/etc/vsm/ca/ca-bundle.crt"})));
}

#[test]
fn limits_are_mounted_whether_they_are_there_or_not() {
    let settings = Settings { limits_config_map: Some("limits".into()), ..Settings::default() };
    let job = job_of(Direction::Out, true, &settings);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][3], json!({"name": "limits", "configMap": {"name": "limits", "optional": true}}));
    let container = &pod["containers"][0];
    let mount = json!({"name": "limits", "mountPath": "/etc/vsm/limits", "readOnly": true});
    assert!(container["volumeMounts"].as_array().unwrap().contains(&mount));
    assert!(container["env"].as_array().unwrap().contains(&json!({"name": "VSM_LIMITS", "value": "/etc/vsm/limits"})));
}

/// What cannot get better is not tried again, and a drained node costs no try.
#[test]
fn retries_are_bounded() {
    let settings = Settings { retries: 3, ..Settings::default() };
    let spec = &job_of(Direction::Out, false, &settings)["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["podReplacementPolicy"]), (&3.into(), &"Failed".into()));
    let rules = &spec["podFailurePolicy"]["rules"];
    assert_eq!(rules[0]["onExitCodes"]["values"], json!([3, 10, 12, 13]));
    assert_eq!((&rules[0]["action"], &rules[1]["action"]), (&"FailJob".into(), &"Ignore".into()));
}

#[test]
fn the_work_description_is_what_the_mover_reads() {
    let (work, settings) = (work(), Settings::default());
    let config_map = wanted(work.clone(), &settings, Direction::Out, false).config_map();
    assert_eq!(Work::parse(config_map.data.unwrap()["work.json"].as_bytes()), Ok(work));
}

const JOB: &str = "job-uid";

fn job(condition: Option<&str>) -> Job {
    let conditions = condition.map(|kind| json!([{"type": kind, "status": "True", "message": "BackoffLimitExceeded"}]));
    from_value(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "vsm-vsb-1", "uid": JOB},
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

fn pod(name: &str, status: Value) -> Pod {
    from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len()),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "vsm-vsb-1", "uid": JOB, "controller": true}],
        },
        "status": status,
    }))
    .unwrap()
}

fn ended(phase: &str, code: i32, reason: &str, message: Option<Vec<u8>>) -> Value {
    let message = message.map(|bytes| String::from_utf8(bytes).unwrap());
    json!({"phase": phase, "containerStatuses": [{
        "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
        "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
    }]})
}

fn report_of(job: &str, outcome: Outcome) -> Report {
    Report { version: VERSION, job: job.into(), outcome, first_problems: vec![] }
}

fn saved() -> Outcome {
    Outcome::Saved(Saved {
        snapshot: crate::id::Id::of(b"x"),
        parent: None,
        files: 1,
        bytes: 2,
        added_bytes: 3,
        problems: 0,
        empty: false,
        found: false,
    })
}

fn failed() -> Outcome {
    Outcome::Failed(Failed { reason: "StoreFailed".into(), message: "no route".into() })
}

#[test]
fn a_movers_state_is_read_from_its_job_and_pods() {
    let waits = |state: State, what: &str| match state {
        State::Waiting { why } => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    waits(observe(&job(None), &[]), "no pod yet");
    let pending = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
    waits(observe(&job(None), &[pod("a", pending)]), "0/1 nodes");
    let pulling = json!({"phase": "Pending", "containerStatuses": [{
        "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }]});
    waits(observe(&job(None), &[pod("a", pulling)]), "ImagePullBackOff: no such image");
    let running = pod("a", json!({"phase": "Running"}));
    assert_eq!(observe(&job(None), std::slice::from_ref(&running)), State::Running { pod: "a".into() });
    // A pod of another Job, or one that only says so, is nobody.
    let mut stranger = running.clone();
    stranger.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    waits(observe(&job(None), &[stranger]), "no pod yet");

    let first = pod("a", ended("Failed", 1, "Error", Some(report_of(JOB, failed()).encode())));
    waits(observe(&job(None), std::slice::from_ref(&first)), "started again: StoreFailed: no route");
    let second = pod("bb", ended("Succeeded", 0, "Completed", Some(report_of(JOB, saved()).encode())));
    let both = [second, first.clone()];
    let State::Reported { report, pod: of } = observe(&job(Some("Complete")), &both) else { panic!() };
    assert_eq!((report.outcome, of.as_str()), (saved(), "bb"));
    assert_eq!(gone(&job(None), &both), ["a", "bb"]);
    let State::Reported { report, .. } = observe(&job(Some("Failed")), std::slice::from_ref(&first)) else { panic!() };
    assert_eq!(report.outcome, failed());
}

#[test]
fn a_report_that_is_missing_or_of_another_job_is_lost() {
    let lost = |status: Value, condition: &str| match observe(&job(Some(condition)), &[pod("a", status)]) {
        State::Lost { why } => why,
        other => panic!("{other:?}"),
    };
    let killed = lost(ended("Failed", 137, "OOMKilled", None), "Failed");
    assert!(killed.contains("OOMKilled, exit code 137") && killed.contains("BackoffLimitExceeded"), "{killed}");
    lost(ended("Succeeded", 0, "Completed", Some(report_of("another", saved()).encode())), "Complete");
    lost(ended("Succeeded", 0, "Completed", Some(b"{\"outcome\":".to_vec())), "Complete");
    // A pod that failed cannot have completed the Job.
    lost(ended("Failed", 1, "Error", Some(report_of(JOB, failed()).encode())), "Complete");
    assert!(matches!(observe(&job(Some("Failed")), &[]), State::Lost { .. }));
}

#[test]
fn the_job_is_not_retried_after_exactly_the_reasons_that_are_final() {
    for reason in crate::work::Reason::ALL {
        let ends = FINAL_EXITS.contains(&i32::from(reason.exit_code()));
        assert_eq!(ends, reason.is_final(), "{reason:?}");
    }
}
