//! The spec of a mover's Job, with the Secret and the ConfigMap that its pods read.

use super::mover::{CONTAINER, FINALIZER, MoverSpec, WORK_FILE};
use super::pod;
use crate::controller::config::MoverSettings;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Exit codes after which the Job is not retried: incomplete, no repository, wrong password, and
/// [`Retry::Never`](crate::work::Retry) in general.
const FINAL_EXITS: [i32; 4] = [3, 10, 12, 13];

impl MoverSpec<'_> {
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
        let MoverSettings { pod_labels, retries, .. } = self.settings;
        let mut labels = pod_labels.clone();
        labels.extend(self.naming.labels.clone());
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: Some(self.naming.annotations.clone()),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            }),
            spec: Some(pod::spec(self)),
        };
        let metadata = ObjectMeta { finalizers: Some(vec![FINALIZER.to_owned()]), ..self.naming.meta() };
        let spec = JobSpec {
            backoff_limit: Some(*retries),
            completions: Some(1),
            parallelism: Some(1),
            // A pod removes the lock of its predecessor, which must have ended before.
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: Some(failure_policy()),
            template,
            ..JobSpec::default()
        };
        Job { metadata, spec: Some(spec), status: None }
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
    // A drained node does not count as a failure.
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

#[cfg(test)]
mod tests;
