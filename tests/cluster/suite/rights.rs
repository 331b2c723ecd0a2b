//! Tests that the shipped roles grant exactly the rights that the controller needs. The controller
//! starts without any right. Each right that the apiserver refuses is granted after the controller
//! has logged that it lacks it. When all flows have ended, the granted rights must be the shipped
//! ones. Needs the cluster for itself.

use crate::app::{App, BACKUP, FILES, RESTORE, message, reason};
use crate::cluster::{Cluster, PROTECTED, text, wait_for};
use crate::local::{Alone, Controller, POD};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const RBAC: &str = "rbac.authorization.k8s.io";
/// The service account that gets one right after the other.
const GROWN: &str = "grown";
/// The lease of the leader election.
const LEASE: &str = "0acc6105.oadp.openshift.io";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// Limited to the protected namespace.
    here: bool,
    group: String,
    resource: String,
    verb: String,
    /// The name of the only object, if the right is limited to one.
    name: Option<String>,
}

/// The rights of the shipped roles in the cluster.
fn shipped() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let roles = [
        ("ClusterRole", "", "vsm-controller"),
        ("ClusterRole", "", "vsm-controller-direct-restore"),
        ("Role", PROTECTED, "vsm-controller"),
    ];
    for (kind, namespace, name) in roles {
        let role = Cluster::admin().get(kind, namespace, name).expect("a shipped role");
        let texts = |rule: &Value, key: &str| -> Vec<String> {
            let all = rule[key].as_array().into_iter().flatten();
            all.map(|one| one.as_str().expect("a text").to_owned()).collect()
        };
        for rule in role["rules"].as_array().expect("rules") {
            let names: Vec<_> = texts(rule, "resourceNames").into_iter().map(Some).collect();
            let names = if names.is_empty() { vec![None] } else { names };
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    for verb in texts(rule, "verbs") {
                        rights.extend(names.iter().map(|name| Right {
                            here: kind == "Role",
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    rights
}

struct Grown {
    controller: Controller,
    shipped: BTreeSet<Right>,
    granted: BTreeSet<Right>,
    /// The number of refusals that have been handled.
    settled: usize,
}

impl Grown {
    fn new() -> Grown {
        let cluster = Cluster::admin();
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": GROWN, "namespace": PROTECTED},
        }));
        for (kind, namespace) in [("ClusterRole", None), ("Role", Some(PROTECTED))] {
            cluster.delete(kind, namespace.unwrap_or_default(), GROWN);
            cluster.apply(&json!({
                "apiVersion": format!("{RBAC}/v1"), "kind": format!("{kind}Binding"), "metadata": {"name": GROWN, "namespace": namespace},
                "roleRef": {"apiGroup": RBAC, "kind": kind, "name": GROWN},
                "subjects": [{"kind": "ServiceAccount", "name": GROWN, "namespace": PROTECTED}],
            }));
        }
        let mut controller = Controller::new(&cluster.token(PROTECTED, GROWN));
        // Like the shipped controller, it reads its image from its own pod.
        controller.learn_image();
        Grown { controller, shipped: shipped(), granted: BTreeSet::new(), settled: 0 }
    }

    /// Writes the roles and restarts the controller, which would retry a refused request only after
    /// half a minute.
    fn restart(&mut self) {
        self.controller.kill();
        // The other refusals will occur again.
        self.settled = self.controller.refusals().len();
        let rules = |here: bool| -> Vec<Value> {
            let rights = self.granted.iter().filter(|right| right.here == here);
            rights
                .map(|right| {
                    let mut rule =
                        json!({"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]});
                    if let Some(name) = &right.name {
                        rule["resourceNames"] = json!([name]);
                    }
                    rule
                })
                .collect()
        };
        for (kind, namespace) in [("ClusterRole", None), ("Role", Some(PROTECTED))] {
            Cluster::admin().apply(&json!({
                "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": GROWN, "namespace": namespace},
                "rules": rules(namespace.is_some()),
            }));
        }
        // The apiserver learns of new roles by a watch.
        std::thread::sleep(Duration::from_millis(300));
        self.controller.start(None);
    }

    /// The shipped right that a refused request needs.
    fn right(&self, refusal: &str) -> Right {
        let quoted = |after: &str| {
            let rest = refusal.split_once(after).unwrap_or_else(|| panic!("no {after}: {refusal}")).1;
            rest.split('"').next().expect("a word").to_owned()
        };
        let verb = refusal.split_once(" cannot ").expect("a verb").1.split(' ').next().expect("a verb").to_owned();
        let (resource, group) = (quoted("resource \""), quoted("API group \""));
        let here = refusal.contains(&format!("in the namespace \"{PROTECTED}\""));
        let object = refusal.split_once(" is forbidden").expect("a refusal").0;
        let fits = |right: &&Right| {
            let named = right.name.as_ref().is_none_or(|name| object.contains(&format!("\"{name}\"")));
            (&right.verb, &right.resource, &right.group) == (&verb, &resource, &group) && named && (here || !right.here)
        };
        // The narrowest right is preferred.
        let found = self.shipped.iter().filter(fits).max_by_key(|right| (right.here, right.name.is_some()));
        found.unwrap_or_else(|| panic!("the shipped roles lack a right for {refusal}")).clone()
    }

    /// Runs the controller until `done`, and grants each missing right after the controller has
    /// logged it.
    fn work(&mut self, what: &str, done: impl Fn() -> bool) {
        loop {
            let next = || {
                let refusal = self.controller.refusals().get(self.settled).cloned();
                (done() || refusal.is_some() || self.controller.is_gone()).then_some(refusal)
            };
            let refusal = wait_for(Duration::from_secs(120), next).unwrap_or_else(|| panic!("{what}: no progress"));
            if done() {
                return;
            }
            let Some(refusal) = refusal else {
                // The controller ended because of a refusal that was recorded meanwhile.
                assert!(!self.controller.refusals().is_empty(), "{what}: the controller ended");
                self.restart();
                continue;
            };
            self.settled += 1;
            let right = self.right(&refusal);
            if !self.granted.insert(right.clone()) {
                // The apiserver had not applied the granted right yet.
                self.restart();
                continue;
            }
            let words = format!("cannot {} resource", right.verb);
            let told = || {
                let log = self.controller.log();
                log.lines().any(|line| line.contains(&words) && line.contains(&right.resource)).then_some(())
            };
            assert!(
                wait_for(Duration::from_secs(20), told).is_some(),
                "{what}: the controller did not log that it lacks {right:?}"
            );
            println!("{what}: the controller made no progress without {right:?}");
            self.restart();
        }
    }
}

#[test]
fn the_shipped_rights_are_exactly_the_needed_ones() {
    let _alone = Alone::new();
    let app = App::new("rights");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let content = app.snapshot("snap", "data");
    // The lease was created by the deployed controller; this one must create it, too.
    app.cluster.delete("Lease", PROTECTED, LEASE);
    let mut grown = Grown::new();
    grown.restart();

    let over = |kind: &'static str, name: &'static str| {
        let app = &app;
        move || {
            let it = app.get(kind, name).expect("the request exists");
            assert_ne!(text(&it, "/status/phase"), "Failed", "{it:#}");
            text(&it, "/status/phase") == "Completed"
                && it["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        }
    };
    app.cluster.create(&app.vsb("vsb", "b", &content));
    grown.work("a backup", over(BACKUP, "vsb"));
    let vsb = app.completed(BACKUP, "vsb");

    app.cluster.create(&app.vsr("vsr", "r", &vsb));
    let handle = || !text(&app.get(RESTORE, "vsr").expect("the request exists"), "/status/snapshotHandle").is_empty();
    grown.work("a restore", handle);
    let back = app.take_handle("vsr", "back", FILES);
    grown.work("a restore", over(RESTORE, "vsr"));
    assert_eq!(fs::read(back.join("file")).expect("the file"), b"text");

    // The rights for a direct restore are verified before the restore starts.
    for verb in ["create", "delete"] {
        app.cluster.create(&app.direct(verb, &vsb, verb, None));
        let over = || app.get(RESTORE, verb).is_some_and(|it| text(&it, "/status/phase") == "Failed");
        grown.work("a direct restore", over);
        let ended = app.ended(RESTORE, verb);
        assert_eq!(reason(&ended, "Degraded"), "Forbidden", "{ended:#}");
        let lacks = format!("may not {verb} persistentvolumeclaims in namespace {}", app.namespace);
        assert!(message(&ended, "Degraded").contains(&lacks), "{ended:#}");
        let of = |right: &&Right| !right.here && right.verb == verb && right.resource == "persistentvolumeclaims";
        let right = grown.shipped.iter().find(of).expect("a shipped right").clone();
        grown.granted.insert(right);
        grown.restart();
    }
    app.cluster.create(&app.direct("direct", &vsb, "direct", None));
    grown.work("a direct restore", over(RESTORE, "direct"));
    assert_eq!(fs::read(app.volume("direct").join("file")).expect("the file"), b"text");

    let unused: Vec<_> = grown.shipped.difference(&grown.granted).collect();
    assert!(unused.is_empty(), "rights that are never needed: {unused:#?}");
    println!("{} rights are shipped, and each is needed", grown.granted.len());
    drop(grown);
    for (kind, namespace) in [("ClusterRoleBinding", ""), ("ClusterRole", ""), ("Pod", PROTECTED)] {
        app.cluster.delete(kind, namespace, if kind == "Pod" { POD } else { GROWN });
    }
    app.remove();
}
