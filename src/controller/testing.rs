//! The cluster, played, for tests of the flows: what is created is there, what is deleted is gone, and the drivers are quick.

pub mod apiserver;

use crate::api::MoveStatus;
use crate::controller::dialect::vsm::{self, Now};
use crate::controller::domain::flow::{Act, Common, Config, ContentChange, Helper, Mover, Object, Update};
use crate::controller::domain::names::Subject;
use crate::controller::mover_job::lifecycle;
use crate::controller::tenancy::authorization;
use crate::controller::volumes::rebind;
use crate::work::{Outcome, Report, VERSION};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, from_value, json};
use std::fmt::Debug;
use std::time::Duration;

pub fn config() -> Config {
    Config {
        namespace: "adp".into(),
        cluster: "c-1".into(),
        prepare: Duration::from_secs(1800),
        hand_over: Duration::from_secs(36_000),
        free_after: Duration::from_secs(600),
        ..Config::default()
    }
}

pub fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    from_value(value).expect("an object")
}

pub fn epoch() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

pub fn now() -> Now {
    Now { time: epoch(), generation: Some(1) }
}

/// A secret that may be used, with these keys.
pub fn secret(data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.labels_mut().insert(authorization::PROVIDER_LABEL.into(), "aws".into());
    secret
}

pub const KEYS: [(&str, &str); 6] = [
    ("RESTIC_REPOSITORY", "s3:http://s3/bkt"),
    ("RESTIC_PASSWORD", "pw"),
    ("AWS_ACCESS_KEY_ID", "id"),
    ("AWS_SECRET_ACCESS_KEY", "key"),
    ("RESTIC_PASSWORD_COMMAND", "/bin/sh"),
    ("RESTIC_CUSTOM_CA", "PEM"),
];

/// Changes an object as the apiserver does.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return into.clone_from(patch) };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        let fields = into.as_object_mut().expect("an object");
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

pub fn change(volume: &mut PersistentVolume, change: &rebind::Change) {
    let mut changed = serde_json::to_value(&*volume).expect("JSON");
    merge(&mut changed, &change.patch());
    *volume = object(changed);
}

/// One flow, as far as it differs from others.
pub trait Played {
    type Known: Clone + Debug + PartialEq;
    type Brought: Clone + Debug + PartialEq;
    type Status: Default;

    fn subject() -> Subject;
    fn decide(&self) -> Act<Update<Self::Known, Self::Brought>>;
    fn common(&mut self) -> &mut Common;
    fn record(&mut self, status: &mut Self::Status, update: &Update<Self::Known, Self::Brought>);
    fn moved(status: &Self::Status) -> &MoveStatus;
    /// Something is created that is no part of a mover.
    fn create(&mut self, object: Object);
    /// Something is deleted that is no part of a mover.
    fn delete(&mut self, helper: Helper);
    fn change(&mut self, change: &rebind::Change);
    fn change_content(&mut self, change: ContentChange);
    /// Whether none of its own helpers is left.
    fn is_bare(&self) -> bool;
}

pub struct World<F: Played> {
    pub seen: F,
    pub status: F::Status,
    pub phases: Vec<String>,
}

impl<F: Played> World<F> {
    pub fn new(seen: F) -> World<F> {
        World { seen, status: F::Status::default(), phases: vec![] }
    }

    pub fn act(&self) -> Act<Update<F::Known, F::Brought>> {
        self.seen.decide()
    }

    /// Does what is to be done until others have to do something, and says what.
    pub fn settle(&mut self) -> String {
        for _ in 0..80 {
            match self.act() {
                Act::Wait(why) => return why,
                Act::Nothing => return String::new(),
                act => self.apply(act),
            }
        }
        panic!("it never settles: {:?}", self.act());
    }

    pub fn apply(&mut self, act: Act<Update<F::Known, F::Brought>>) {
        match act {
            Act::AddFinalizer => self.seen.common().finalizer = true,
            Act::RemoveFinalizer => self.seen.common().finalizer = false,
            Act::Status(update) => self.record(&update),
            Act::Create(Object::Secret(it)) => {
                let name = it.name_any();
                self.mover(&name).secret = Some(*it);
            }
            Act::Create(Object::ConfigMap(it)) if !it.name_any().starts_with("vsm-repository-") => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Act::Create(Object::Job(mut it)) => {
                let name = it.name_any();
                it.metadata.uid = Some(format!("job-of-{name}"));
                self.mover(&name).job = Some(*it);
            }
            Act::Create(object) => self.seen.create(object),
            Act::Rewrite(it) if it.name_any().starts_with("vsm-repository-") => self.seen.create(Object::ConfigMap(it)),
            Act::Rewrite(it) => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Act::Release { name } => {
                let mover = self.mover(&name);
                let deleted = mover.job.as_ref().is_none_or(|job| job.metadata.deletion_timestamp.is_some());
                assert!(deleted, "a Job is only let go when it is to go");
                (mover.job, mover.pods) = (None, vec![]);
            }
            Act::Delete { helper: Helper::Secret, name } => self.mover(&name).secret = None,
            Act::Delete { helper: Helper::ConfigMap, name } => self.mover(&name).config_map = None,
            Act::Delete { helper: Helper::Job, name } => {
                self.mover(&name).job.as_mut().expect("a Job").metadata.deletion_timestamp = Some(epoch());
            }
            Act::Delete { helper, .. } => self.seen.delete(helper),
            Act::Volume { change, .. } => self.seen.change(&change),
            Act::Content { change, .. } => self.seen.change_content(change),
            Act::Wait(_) | Act::Nothing => unreachable!("nothing to apply"),
        }
    }

    pub fn record(&mut self, update: &Update<F::Known, F::Brought>) {
        self.seen.record(&mut self.status, update);
        let moved = F::moved(&self.status);
        let phase = format!("{}/{}", moved.phase, moved.batching_status);
        if self.phases.last() != Some(&phase) {
            self.phases.push(phase);
        }
        let (stage, recorded) = (vsm::stage(moved), vsm::recorded(moved));
        let common = self.seen.common();
        (common.stage, common.recorded) = (stage, recorded);
    }

    pub fn mover(&mut self, name: &str) -> &mut Mover {
        let tidy = name == lifecycle::cleaner(&F::subject());
        let common = self.seen.common();
        if tidy { &mut common.cleaner } else { &mut common.mover }
    }

    /// The Job's pod is in this state; a report makes the Job end.
    pub fn pod(&mut self, name: &str, phase: &str, code: i32, outcome: Option<Outcome>, finished: Option<&str>) {
        let mover = self.mover(name);
        let job = mover.job.as_mut().expect("a Job");
        let uid = job.uid().expect("a uid");
        let report =
            outcome.map(|outcome| Report { version: VERSION, job: uid.clone(), outcome, first_problems: vec![] });
        let message = report.map(|report| String::from_utf8(report.encode()).expect("JSON"));
        let ended = json!([{
            "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": code, "message": message}},
        }]);
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": true});
        let pod: Pod = object(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-{}", mover.pods.len()), "ownerReferences": [owner]},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": phase, "containerStatuses": if phase == "Running" { json!([]) } else { ended }},
        }));
        mover.pods.retain(|pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) != Some("Running"));
        mover.pods.push(pod);
        if let Some(kind) = finished {
            let mut with: Value = serde_json::to_value(&*job).expect("JSON");
            with["status"] = json!({"conditions": [{"type": kind, "status": "True"}]});
            mover.job = Some(object::<Job>(with));
        }
    }

    pub fn nothing_is_left(&mut self) -> bool {
        let empty = |mover: &Mover| mover.job.is_none() && mover.secret.is_none() && mover.config_map.is_none();
        let common = self.seen.common();
        empty(&common.mover) && empty(&common.cleaner) && self.seen.is_bare()
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let condition = F::moved(&self.status).conditions.iter().find(|condition| condition.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }
}
