use super::*;
use crate::id::Id;
use crate::work::{Failed, Reason, Saved, VERSION};
use serde_json::{Value, from_value, json};

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
        snapshot: Id::of(b"x"),
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
    Outcome::Failed(Failed::new(Reason::StoreFailed, "no route"))
}

#[test]
fn the_state_follows_from_the_job_and_its_pods() {
    let waits = |state: State, what: &str| match state {
        State::Waiting { why } => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    waits(state(&job(None), &[]), "no pod yet");
    let pending = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
    waits(state(&job(None), &[pod("a", pending)]), "0/1 nodes");
    let pulling = json!({"phase": "Pending", "containerStatuses": [{
        "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }]});
    waits(state(&job(None), &[pod("a", pulling)]), "ImagePullBackOff: no such image");
    let running = pod("a", json!({"phase": "Running"}));
    assert_eq!(state(&job(None), std::slice::from_ref(&running)), State::Running { pod: "a".into() });
    // A pod of another Job does not count, nor one that only claims to belong to it.
    let mut stranger = running.clone();
    stranger.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    waits(state(&job(None), &[stranger]), "no pod yet");

    let first = pod("a", ended("Failed", 1, "Error", Some(report_of(JOB, failed()).encode())));
    waits(state(&job(None), std::slice::from_ref(&first)), "started again: StoreFailed: no route");
    let second = pod("bb", ended("Succeeded", 0, "Completed", Some(report_of(JOB, saved()).encode())));
    let both = [second, first.clone()];
    let State::Reported { report, pod: of } = state(&job(Some("Complete")), &both) else { panic!() };
    assert_eq!((report.outcome, of.as_str()), (saved(), "bb"));
    assert_eq!(ended_hosts(&job(None), &both), ["a", "bb"]);
    let State::Reported { report, .. } = state(&job(Some("Failed")), std::slice::from_ref(&first)) else { panic!() };
    assert_eq!(report.outcome, failed());
}

#[test]
fn a_report_that_is_missing_or_of_another_job_is_lost() {
    let lost = |status: Value, condition: &str| match state(&job(Some(condition)), &[pod("a", status)]) {
        State::Lost { why } => why,
        other => panic!("{other:?}"),
    };
    let killed = lost(ended("Failed", 137, "OOMKilled", None), "Failed");
    assert!(killed.contains("OOMKilled, exit code 137") && killed.contains("BackoffLimitExceeded"), "{killed}");
    lost(ended("Succeeded", 0, "Completed", Some(report_of("another", saved()).encode())), "Complete");
    lost(ended("Succeeded", 0, "Completed", Some(b"{\"outcome\":".to_vec())), "Complete");
    // A pod that failed cannot have completed the Job.
    lost(ended("Failed", 1, "Error", Some(report_of(JOB, failed()).encode())), "Complete");
    assert!(matches!(state(&job(Some("Failed")), &[]), State::Lost { .. }));
}
