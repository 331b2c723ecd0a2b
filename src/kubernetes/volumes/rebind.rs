//! Rebinding of a PV: moves a PersistentVolume with its data from a claim to a claim in another
//! namespace.
//!
//! 1. Hold the volume: set its reclaim policy to `Retain`, so that it outlives its claim.
//! 2. Create the new claim, which names the volume and waits for it.
//! 3. Give the volume to the new claim: set its `claimRef`.
//! 4. Settle: once the claim is bound, restore the reclaim policy.
//!
//! The old claim is lost from step 3 on and may be deleted then, not earlier: a claim is protected
//! while a pod uses it, and the mover's pod stays until its report is recorded. Both claims name
//! the volume, so that it can always be found again.
//!
//! A tenant can write anything to the new claim. Only the label and annotation of the volume itself
//! identify the request that owns the volume: no tenant can write these.

use crate::kubernetes::deletion_policy::DeletionPolicy;
use crate::kubernetes::naming::{Naming, UID_LABEL};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::fmt;

/// Annotation of a volume that is held: its original reclaim policy.
const POLICY_ANNOTATION: &str = "datamover.oadp.openshift.io/reclaim-policy";

/// The two claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The claim that has the volume.
    pub from: Naming,
    /// The claim to create, with the same spec.
    pub to: Naming,
    /// The uid of the request, a label of the volume while it is held.
    pub uid: String,
}

/// The objects that exist.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The claim that has, or had, the volume.
    pub claim: Option<PersistentVolumeClaim>,
    /// The volume of that claim or, if the claim is deleted, of the target.
    pub volume: Option<PersistentVolume>,
    pub target: Option<PersistentVolumeClaim>,
}

/// A change of a PersistentVolume.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Let it outlive its claim, and note the request and the original reclaim policy on it.
    Hold { uid: String, policy: String },
    /// Bind it to this claim.
    Give { namespace: String, name: String, uid: String },
    /// Restore the reclaim policy and remove the notes.
    Settle { policy: String },
    /// Let it be deleted with its claim.
    Free,
}

impl Change {
    /// The change as a merge patch.
    pub fn patch(&self) -> Value {
        match self {
            Change::Hold { uid, policy } => json!({
                "metadata": {"labels": {UID_LABEL: uid}, "annotations": {POLICY_ANNOTATION: policy}},
                "spec": {"persistentVolumeReclaimPolicy": DeletionPolicy::Retain.name()},
            }),
            Change::Give { namespace, name, uid } => json!({"spec": {"claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": namespace, "name": name, "uid": uid, "resourceVersion": null,
            }}}),
            Change::Settle { policy } => json!({
                "metadata": {"labels": {UID_LABEL: null}, "annotations": {POLICY_ANNOTATION: null}},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }),
            Change::Free => json!({"spec": {"persistentVolumeReclaimPolicy": DeletionPolicy::Delete.name()}}),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Hold { .. } => f.write_str("held"),
            Change::Give { namespace, name, .. } => write!(f, "given to the claim {namespace}/{name}"),
            Change::Settle { policy } => write!(f, "settled, with its reclaim policy {policy}"),
            Change::Free => f.write_str("freed, so that it is deleted with its claim"),
        }
    }
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Volume {
        name: String,
        change: Change,
    },
    CreateTarget(Box<PersistentVolumeClaim>),
    DeleteTarget,
    /// Wait for another controller; the text names the object, for people.
    Wait(String),
    /// The goal cannot be reached.
    Failed(String),
}

/// The next step; `None` if the new claim is bound to the volume and the volume is settled.
pub fn decide(goal: &Goal, existing: &Existing) -> Option<Step> {
    if let Some(why) = occupied(goal, existing) {
        return Some(Step::Failed(why));
    }
    let place = format!("{}/{}", goal.to.namespace, goal.to.name);
    let Some(volume) = &existing.volume else {
        return Some(Step::Wait(format!("waiting for the claim {} to be bound", goal.from.name)));
    };
    let (name, change) = (volume.name_any(), |change| Some(Step::Volume { name: volume.name_any(), change }));
    let noted = volume.annotations().get(POLICY_ANNOTATION);
    let held = volume.labels().get(UID_LABEL) == Some(&goal.uid);
    if let Some(claim) = existing.claim.as_ref().filter(|claim| is_of(volume, claim)) {
        if !held || noted.is_none() {
            return change(Change::Hold { uid: goal.uid.clone(), policy: policy(volume).to_owned() });
        }
        if existing.target.is_none() {
            return Some(Step::CreateTarget(Box::new(target(goal, &name, claim))));
        }
    }
    let Some(target) = &existing.target else {
        return Some(Step::Failed(format!(
            "the volume {name} is not bound to its claim any more, and the claim {place} is deleted"
        )));
    };
    let bound = target.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let given = is_of(volume, target);
    match (held, noted) {
        (true, Some(_)) if !given => change(Change::Give {
            namespace: goal.to.namespace.clone(),
            name: goal.to.name.clone(),
            uid: target.uid().unwrap_or_default(),
        }),
        (true, Some(_)) if !bound => Some(Step::Wait(format!("waiting for the claim {place} to be bound"))),
        (true, Some(policy)) => change(Change::Settle { policy: policy.clone() }),
        _ if given && bound => None,
        _ => Some(Step::Failed(format!("the claim {place} names the volume {name}, which is not its own"))),
    }
}

/// Why the goal cannot be reached, if a claim that was not created for the request has the target's
/// name.
pub fn occupied(goal: &Goal, existing: &Existing) -> Option<String> {
    existing.target.as_ref().filter(|target| !is_ours(goal, target))?;
    let Naming { namespace, name, .. } = &goal.to;
    Some(format!("the claim {namespace}/{name} exists already, and a restore never writes into an existing claim"))
}

/// The next step that undoes the rebinding of a volume that is not settled; `None` if only the old
/// claim may be left.
pub fn undo(goal: &Goal, existing: &Existing) -> Option<Step> {
    let target = existing.target.as_ref().filter(|target| is_ours(goal, target));
    let volume = existing.volume.as_ref();
    let own = volume.filter(|volume| volume.labels().get(UID_LABEL) == Some(&goal.uid) && is_kept(volume));
    if let Some(volume) = own {
        return Some(Step::Volume { name: volume.name_any(), change: Change::Free });
    }
    Some(match target?.metadata.deletion_timestamp {
        None => Step::DeleteTarget,
        Some(_) => Step::Wait(format!("waiting for the claim {} to be deleted", goal.to.name)),
    })
}

/// Whether a volume is bound to a claim.
pub fn is_of(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claim.uid().is_some() && reference.and_then(|reference| reference.uid.clone()) == claim.uid()
}

/// Whether a volume outlives its claim.
pub fn is_kept(volume: &PersistentVolume) -> bool {
    DeletionPolicy::Retain.is(policy(volume))
}

/// The reclaim policy; `Retain` is the default of a PersistentVolume that was created by hand.
fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or(DeletionPolicy::Retain.name())
}

fn is_ours(goal: &Goal, target: &PersistentVolumeClaim) -> bool {
    let labels = target.labels();
    goal.to.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn target(goal: &Goal, volume: &str, claim: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    let PersistentVolumeClaimSpec { storage_class_name, volume_mode, access_modes, resources, .. } =
        claim.spec.clone().unwrap_or_default();
    let spec = PersistentVolumeClaimSpec {
        storage_class_name,
        volume_mode,
        access_modes,
        resources,
        volume_name: Some(volume.to_owned()),
        ..PersistentVolumeClaimSpec::default()
    };
    PersistentVolumeClaim { metadata: goal.to.meta(), spec: Some(spec), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;
    use serde_json::from_value;
    use std::collections::BTreeMap;

    fn naming(name: &str, namespace: &str) -> Naming {
        let labels = BTreeMap::from([(UID_LABEL.to_owned(), "u-1".to_owned())]);
        Naming { name: name.into(), namespace: namespace.into(), labels, annotations: BTreeMap::new() }
    }

    fn goal() -> Goal {
        Goal { from: naming("vsm-vsr-u-1", "adp"), to: naming("data", "shop"), uid: "u-1".into() }
    }

    fn claim(name: &str, uid: &str, volume: Option<&str>) -> PersistentVolumeClaim {
        let spec = json!({"storageClassName": "sc", "volumeMode": "Block", "volumeName": volume});
        let meta = json!({"name": name, "uid": uid, "labels": {UID_LABEL: "u-1"}});
        from_value(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}))
            .unwrap()
    }

    fn volume(policy: &str, claim: &str) -> PersistentVolume {
        let spec = json!({"persistentVolumeReclaimPolicy": policy, "claimRef": {"uid": claim}});
        from_value(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": spec}))
            .unwrap()
    }

    /// Plays the cluster: the volume binder binds a claim that names a volume bound to it.
    fn apply(existing: &mut Existing, step: Step) {
        match step {
            Step::Volume { change, .. } => testing::change(existing.volume.as_mut().unwrap(), &change),
            Step::CreateTarget(claim) => {
                let mut claim = *claim;
                claim.metadata.uid = Some("c-2".into());
                existing.target = Some(claim);
            }
            Step::DeleteTarget => existing.target = None,
            other => panic!("{other:?}"),
        }
        let volume = existing.volume.as_ref().unwrap();
        if let Some(target) = existing.target.as_mut().filter(|target| is_of(volume, target)) {
            target.status = from_value(json!({"phase": "Bound"})).unwrap();
        }
    }

    fn start(policy: &str) -> Existing {
        let claim = claim("vsm-vsr-u-1", "c-1", Some("pv-1"));
        Existing { claim: Some(claim), volume: Some(volume(policy, "c-1")), target: None }
    }

    #[test]
    fn a_rebound_volume_has_its_original_policy_and_no_notes() {
        for policy in ["Delete", "Retain"] {
            let mut existing = start(policy);
            let mut steps = 0;
            while let Some(step) = decide(&goal(), &existing) {
                apply(&mut existing, step);
                steps += 1;
                assert!(steps < 10);
            }
            let volume = existing.volume.unwrap();
            assert_eq!(super::policy(&volume), policy);
            assert!(volume.labels().is_empty() && volume.annotations().is_empty());
            let target = existing.target.unwrap();
            assert!(is_of(&volume, &target) && !is_of(&volume, &existing.claim.unwrap()));
            let spec = target.spec.unwrap();
            assert_eq!((spec.volume_mode.as_deref(), spec.storage_class_name.as_deref()), (Some("Block"), Some("sc")));
        }
    }

    #[test]
    fn undo_after_any_step_leaves_nothing() {
        for stop_after in 0..4 {
            let mut existing = start("Delete");
            for _ in 0..stop_after {
                let step = decide(&goal(), &existing).expect("the volume is not settled yet");
                apply(&mut existing, step);
            }
            while let Some(step) = undo(&goal(), &existing) {
                apply(&mut existing, step);
            }
            assert!(
                existing.target.is_none() && !is_kept(existing.volume.as_ref().unwrap()),
                "after {stop_after} steps"
            );
        }
    }

    #[test]
    fn a_foreign_claim_is_never_changed() {
        let mut existing = start("Delete");
        let mut foreign = claim("data", "c-9", None);
        foreign.metadata.labels = None;
        existing.target = Some(foreign);
        let Some(Step::Failed(why)) = decide(&goal(), &existing) else { panic!() };
        assert!(why.contains("shop/data"), "{why}");
        assert_eq!(undo(&goal(), &existing), None);
    }

    /// A tenant can label claims at will, and name any volume.
    #[test]
    fn a_forged_claim_gets_no_volume() {
        let forged = claim("data", "c-9", Some("pv-1"));
        let theirs = volume("Retain", "c-8");
        let existing = Existing { claim: None, volume: Some(theirs), target: Some(forged) };
        assert!(matches!(decide(&goal(), &existing), Some(Step::Failed(_))));
        assert_eq!(undo(&goal(), &existing), Some(Step::DeleteTarget), "and the volume is not changed");
    }
}
