//! A volume leaves its claim for one in another namespace, with all that is in it. Of no kind of ours does this room know anything.
//!
//! The volume is held first, so that it outlives its claim; then the new claim is made, which names the volume and waits; then the
//! volume is given to it, and at the end it is what it was before. The old claim is lost from then on, and may be deleted: not
//! earlier, because a claim does not go as long as there is a pod that used it, and the mover's pod is kept until what it reported
//! is recorded. Both claims name the volume, so that it is always found again.
//!
//! The new claim is in the namespace of whoever asked, who can write what they like on it: whose the volume is, only the note on the
//! volume itself says, which nobody writes but the cluster's administrators and this controller.

use crate::controller::domain::names::{Naming, UID_LABEL};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec};
use kube::ResourceExt;
use serde_json::{Value, json};

/// On a volume on its way: what is to become of it without a claim when it has arrived.
const POLICY_ANNOTATION: &str = "datamover.oadp.openshift.io/reclaim-policy";

const RETAIN: &str = "Retain";
const DELETE: &str = "Delete";

/// What shall be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The claim that the volume leaves.
    pub from: Naming,
    /// The claim that it goes to, which asks for the same.
    pub to: Naming,
    /// What the volume is noted with on its way.
    pub uid: String,
}

/// What is there now.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The claim that the volume leaves.
    pub claim: Option<PersistentVolumeClaim>,
    /// The volume of that claim or, if there is none, of the target.
    pub volume: Option<PersistentVolume>,
    pub target: Option<PersistentVolumeClaim>,
}

/// How a volume is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It outlives its claim, and bears a note of whose it is and what it was.
    Hold { uid: String, policy: String },
    /// It is of this claim from now on.
    Give { namespace: String, name: String, uid: String },
    /// It has arrived, and is what it was.
    Settle { policy: String },
    /// It goes with its claim.
    Free,
}

impl Change {
    /// As a merge patch.
    pub fn patch(&self) -> Value {
        match self {
            Change::Hold { uid, policy } => json!({
                "metadata": {"labels": {UID_LABEL: uid}, "annotations": {POLICY_ANNOTATION: policy}},
                "spec": {"persistentVolumeReclaimPolicy": RETAIN},
            }),
            Change::Give { namespace, name, uid } => json!({"spec": {"claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": namespace, "name": name, "uid": uid, "resourceVersion": null,
            }}}),
            Change::Settle { policy } => json!({
                "metadata": {"labels": {UID_LABEL: null}, "annotations": {POLICY_ANNOTATION: null}},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }),
            Change::Free => json!({"spec": {"persistentVolumeReclaimPolicy": DELETE}}),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Volume {
        name: String,
        change: Change,
    },
    CreateTarget(Box<PersistentVolumeClaim>),
    DeleteTarget,
    /// Others have to do something first; what, for people.
    Wait(String),
    /// It will never be there.
    Failed(String),
}

/// The next step from what is there to what shall be there. `None`: the volume has arrived.
pub fn decide(wish: &Wish, seen: &Seen) -> Option<Step> {
    if let Some(why) = occupied(wish, seen) {
        return Some(Step::Failed(why));
    }
    let place = format!("{}/{}", wish.to.namespace, wish.to.name);
    let Some(volume) = &seen.volume else {
        return Some(Step::Wait(format!("waiting for the claim {} to be bound", wish.from.name)));
    };
    let (name, change) = (volume.name_any(), |change| Some(Step::Volume { name: volume.name_any(), change }));
    let noted = volume.annotations().get(POLICY_ANNOTATION);
    let held = volume.labels().get(UID_LABEL) == Some(&wish.uid);
    if let Some(claim) = seen.claim.as_ref().filter(|claim| is_of(volume, claim)) {
        if !held || noted.is_none() {
            return change(Change::Hold { uid: wish.uid.clone(), policy: policy(volume).to_owned() });
        }
        if seen.target.is_none() {
            return Some(Step::CreateTarget(Box::new(target(wish, &name, claim))));
        }
    }
    let Some(target) = &seen.target else {
        return Some(Step::Failed(format!("the volume {name} has left its claim, and {place} is gone")));
    };
    let bound = target.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let given = is_of(volume, target);
    match (held, noted) {
        (true, Some(_)) if !given => change(Change::Give {
            namespace: wish.to.namespace.clone(),
            name: wish.to.name.clone(),
            uid: target.uid().unwrap_or_default(),
        }),
        (true, Some(_)) if !bound => Some(Step::Wait(format!("waiting for the claim {place} to be bound"))),
        (true, Some(policy)) => change(Change::Settle { policy: policy.clone() }),
        _ if given && bound => None,
        _ => Some(Step::Failed(format!("the claim {place} names the volume {name}, which is not its own"))),
    }
}

/// Why the volume can never go where it should: somebody else's claim is there.
pub fn occupied(wish: &Wish, seen: &Seen) -> Option<String> {
    seen.target.as_ref().filter(|target| !is_ours(wish, target))?;
    let Naming { namespace, name, .. } = &wish.to;
    Some(format!("there is a claim {namespace}/{name} already, and a restore never writes into one"))
}

/// The next step back, as long as the volume has not arrived. `None`: nothing of the way is left, but perhaps the claim it left.
pub fn undo(wish: &Wish, seen: &Seen) -> Option<Step> {
    let target = seen.target.as_ref().filter(|target| is_ours(wish, target));
    let volume = seen.volume.as_ref();
    let own = volume.filter(|volume| volume.labels().get(UID_LABEL) == Some(&wish.uid) && is_kept(volume));
    if let Some(volume) = own {
        return Some(Step::Volume { name: volume.name_any(), change: Change::Free });
    }
    Some(match target?.metadata.deletion_timestamp {
        None => Step::DeleteTarget,
        Some(_) => Step::Wait(format!("waiting for the claim {} to be gone", wish.to.name)),
    })
}

/// Whether a volume is a claim's.
pub fn is_of(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claim.uid().is_some() && reference.and_then(|reference| reference.uid.clone()) == claim.uid()
}

/// Whether a volume stays when its claim goes.
pub fn is_kept(volume: &PersistentVolume) -> bool {
    policy(volume) == RETAIN
}

/// By default volumes stay that somebody made by hand.
fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or(RETAIN)
}

fn is_ours(wish: &Wish, target: &PersistentVolumeClaim) -> bool {
    let labels = target.labels();
    wish.to.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn target(wish: &Wish, volume: &str, claim: &PersistentVolumeClaim) -> PersistentVolumeClaim {
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
    PersistentVolumeClaim { metadata: wish.to.meta(), spec: Some(spec), status: None }
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

    fn wish() -> Wish {
        Wish { from: naming("vsm-vsr-u-1", "adp"), to: naming("data", "shop"), uid: "u-1".into() }
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

    /// The cluster, played. The binder binds a claim that names a volume which is its own.
    fn apply(seen: &mut Seen, step: Step) {
        match step {
            Step::Volume { change, .. } => testing::change(seen.volume.as_mut().unwrap(), &change),
            Step::CreateTarget(claim) => {
                let mut claim = *claim;
                claim.metadata.uid = Some("c-2".into());
                seen.target = Some(claim);
            }
            Step::DeleteTarget => seen.target = None,
            other => panic!("{other:?}"),
        }
        let volume = seen.volume.as_ref().unwrap();
        if let Some(target) = seen.target.as_mut().filter(|target| is_of(volume, target)) {
            target.status = from_value(json!({"phase": "Bound"})).unwrap();
        }
    }

    fn start(policy: &str) -> Seen {
        let claim = claim("vsm-vsr-u-1", "c-1", Some("pv-1"));
        Seen { claim: Some(claim), volume: Some(volume(policy, "c-1")), target: None }
    }

    #[test]
    fn a_volume_goes_from_one_claim_to_the_other_and_is_then_what_it_was() {
        for policy in ["Delete", "Retain"] {
            let mut seen = start(policy);
            let mut steps = 0;
            while let Some(step) = decide(&wish(), &seen) {
                apply(&mut seen, step);
                steps += 1;
                assert!(steps < 10);
            }
            let volume = seen.volume.unwrap();
            assert_eq!(super::policy(&volume), policy);
            assert!(volume.labels().is_empty() && volume.annotations().is_empty());
            let target = seen.target.unwrap();
            assert!(is_of(&volume, &target) && !is_of(&volume, &seen.claim.unwrap()));
            let spec = target.spec.unwrap();
            assert_eq!((spec.volume_mode.as_deref(), spec.storage_class_name.as_deref()), (Some("Block"), Some("sc")));
        }
    }

    #[test]
    fn at_every_step_the_way_back_leaves_nothing() {
        for stop_after in 0..4 {
            let mut seen = start("Delete");
            for _ in 0..stop_after {
                let step = decide(&wish(), &seen).expect("not there yet");
                apply(&mut seen, step);
            }
            while let Some(step) = undo(&wish(), &seen) {
                apply(&mut seen, step);
            }
            assert!(seen.target.is_none() && !is_kept(seen.volume.as_ref().unwrap()), "after {stop_after} steps");
        }
    }

    #[test]
    fn a_claim_of_somebody_else_is_never_touched() {
        let mut seen = start("Delete");
        let mut foreign = claim("data", "c-9", None);
        foreign.metadata.labels = None;
        seen.target = Some(foreign);
        let Some(Step::Failed(why)) = decide(&wish(), &seen) else { panic!() };
        assert!(why.contains("shop/data"), "{why}");
        assert_eq!(undo(&wish(), &seen), None);
    }

    /// Whoever may make claims may label them as they like, and name any volume.
    #[test]
    fn a_forged_claim_gets_no_volume() {
        let forged = claim("data", "c-9", Some("pv-1"));
        let theirs = volume("Retain", "somebody");
        let seen = Seen { claim: None, volume: Some(theirs), target: Some(forged) };
        assert!(matches!(decide(&wish(), &seen), Some(Step::Failed(_))));
        assert_eq!(undo(&wish(), &seen), Some(Step::DeleteTarget), "and nothing is done to the volume");
    }
}
