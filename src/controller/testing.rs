//! A simulated cluster for tests of the flows: objects are created and deleted at once, and drivers
//! are ready immediately.

pub mod apiserver;

use crate::api::MoveStatus;
use crate::controller::action::{Action, ContentChange, Managed, Object};
use crate::controller::config::Config;
use crate::controller::dialect::{Dialect, Now};
use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::names::Owner;
use crate::controller::kinds::Flow;
use crate::controller::mover_job::cleanup;
use crate::controller::observed::{Common, MoverObjects};
use crate::controller::tenancy::authorization;
use crate::kubernetes::volumes::rebind;
use crate::work::{Outcome, Report, VERSION};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, from_value, json};
use std::fmt;
use std::time::Duration;

/// A direction without data.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain;

/// No data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

impl Direction for Plain {
    type Request = Nothing;
    type Started = Nothing;
    type Moved = Nothing;
}

/// A configuration with the default deadlines.
pub fn config() -> Config {
    Config {
        namespace: "adp".into(),
        cluster: "c-1".into(),
        prepare: Duration::from_secs(1800),
        publish: Duration::from_secs(36_000),
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

/// An allowed secret with these keys.
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

/// Applies a merge patch, as the apiserver does.
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

/// The direction of a simulated flow.
type DirectionOf<F> = <<F as Played>::Object as Dialect>::Direction;

/// The observation of one flow, with its own objects.
pub trait Played: Sized {
    type Object: Dialect<Status: Clone + Default, Direction: Flow<Observed = Self>>;

    fn owner() -> Owner;
    fn common(&mut self) -> &mut Common;
    /// The request with a status.
    fn object(status: <Self::Object as Dialect>::Status) -> Self::Object;
    fn moved(status: &<Self::Object as Dialect>::Status) -> &MoveStatus;
    /// Creates an object that does not belong to a mover.
    fn create(&mut self, object: Object);
    /// Deletes an object that does not belong to a mover.
    fn delete(&mut self, managed: Managed);
    fn change(&mut self, change: &rebind::Change);
    fn change_content(&mut self, change: ContentChange);
    /// Whether none of the flow's managed objects exists.
    fn is_bare(&self) -> bool;
}

pub struct World<F: Played> {
    pub seen: F,
    pub status: <F::Object as Dialect>::Status,
    /// All values of `phase/batchingStatus`, in order.
    pub phases: Vec<String>,
}

impl<F: Played> World<F> {
    pub fn new(seen: F) -> World<F> {
        World { seen, status: Default::default(), phases: vec![] }
    }

    /// The next action.
    pub fn next(&self) -> Action<DirectionOf<F>> {
        DirectionOf::<F>::decide(&F::owner(), &self.seen, &config())
    }

    /// Applies actions until the request waits, and returns the reason; empty at the end.
    pub fn settle(&mut self) -> String {
        for _ in 0..80 {
            match self.next() {
                Action::Wait(why) => return why,
                Action::Nothing => return String::new(),
                action => self.apply(action),
            }
        }
        panic!("it never settles: {:?}", self.next());
    }

    /// Applies actions until this phase is recorded.
    pub fn settle_until(&mut self, phase: &str) {
        while F::moved(&self.status).phase != phase {
            let action = self.next();
            self.apply(action);
        }
    }

    pub fn apply(&mut self, action: Action<DirectionOf<F>>) {
        let is_record = |name: &str| name.starts_with("vsm-repository-");
        match action {
            Action::AddFinalizer => self.seen.common().has_finalizer = true,
            Action::RemoveFinalizer => self.seen.common().has_finalizer = false,
            Action::Record(update) => self.record(&update),
            Action::Create(Object::Secret(it)) => {
                let name = it.name_any();
                self.mover(&name).secret = Some(*it);
            }
            Action::Create(Object::ConfigMap(it)) if !is_record(&it.name_any()) => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Action::Create(Object::Job(mut it)) => {
                let name = it.name_any();
                it.metadata.uid = Some(format!("job-of-{name}"));
                self.mover(&name).job = Some(*it);
            }
            Action::Create(object) => self.seen.create(object),
            Action::Rewrite(it) if is_record(&it.name_any()) => self.seen.create(Object::ConfigMap(it)),
            Action::Rewrite(it) => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Action::Release { name } => {
                let mover = self.mover(&name);
                let deleted = mover.job.as_ref().is_none_or(|job| job.metadata.deletion_timestamp.is_some());
                assert!(deleted, "a Job is released only after its deletion");
                (mover.job, mover.pods) = (None, vec![]);
            }
            Action::Delete { managed: Managed::Secret, name } => self.mover(&name).secret = None,
            Action::Delete { managed: Managed::ConfigMap, name } => self.mover(&name).config_map = None,
            Action::Delete { managed: Managed::Job, name } => {
                self.mover(&name).job.as_mut().expect("a Job").metadata.deletion_timestamp = Some(epoch());
            }
            Action::Delete { managed, .. } => self.seen.delete(managed),
            Action::Volume { change, .. } => self.seen.change(&change),
            Action::Content { change, .. } => self.seen.change_content(change),
            Action::Wait(_) | Action::Nothing => unreachable!("nothing to apply"),
        }
    }

    pub fn record(&mut self, update: &Update<DirectionOf<F>>) {
        self.status = F::object(self.status.clone()).status_after(update, &now());
        let moved = F::moved(&self.status);
        let phase = format!("{}/{}", moved.phase, moved.batching_status);
        if self.phases.last() != Some(&phase) {
            self.phases.push(phase);
        }
        self.seen.common().record = F::object(self.status.clone()).record();
    }

    pub fn mover(&mut self, name: &str) -> &mut MoverObjects {
        let is_cleanup = name == cleanup::name(&F::owner());
        let common = self.seen.common();
        if is_cleanup { &mut common.cleanup } else { &mut common.mover }
    }

    /// Sets the state of the Job's pod. A report is its termination message; `finished` is a
    /// condition of the Job.
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
        let empty = |mover: &MoverObjects| mover.job.is_none() && mover.secret.is_none() && mover.config_map.is_none();
        let common = self.seen.common();
        empty(&common.mover) && empty(&common.cleanup) && self.seen.is_bare()
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let condition = F::moved(&self.status).conditions.iter().find(|condition| condition.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }
}
