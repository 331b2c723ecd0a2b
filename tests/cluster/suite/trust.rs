//! Tests the rules that protect tenants from each other, with attacks that use a tenant's own
//! token.

use crate::app::{App, BACKUP, FILES, RESTORE, SECRET, message, reason};
use crate::cluster::{Cluster, PROTECTED, text};
use serde_json::{Value, json};

/// A tenant with all rights on claims, snapshots and our kinds in its own namespace, and none
/// elsewhere.
struct Tenant {
    app: App,
    cluster: Cluster,
}

impl Tenant {
    fn new(name: &str) -> Tenant {
        let app = App::new(name);
        let meta = json!({"name": "tenant", "namespace": app.namespace});
        let rules = json!([
            {"apiGroups": ["datamover.oadp.openshift.io", "snapshot.storage.k8s.io"], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["persistentvolumeclaims", "pods", "configmaps", "secrets"], "verbs": ["*"]},
        ]);
        let rbac = "rbac.authorization.k8s.io";
        app.cluster.create(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}));
        app.cluster
            .create(&json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta, "rules": rules}));
        app.cluster.create(&json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": app.namespace}],
        }));
        let token = app.cluster.token(&app.namespace, "tenant");
        Tenant { cluster: Cluster::with_token(&token), app }
    }

    /// Creates an object with the tenant's token, which must fail with this reason and these words
    /// and create nothing.
    fn is_refused(&self, object: &Value, why: &str, words: &str) {
        let made = self.cluster.create(object);
        let ended = self.app.ended(text(&made, "/kind"), text(&made, "/metadata/name"));
        assert_eq!((text(&ended, "/status/phase"), reason(&ended, "Degraded")), ("Failed", why), "{ended:#}");
        let said = message(&ended, "Reconciled");
        assert!(said.contains(words), "{said}");
        assert!(
            text(&ended, "/status/snapshotHandle").is_empty() && text(&ended, "/status/moverPod").is_empty(),
            "{ended:#}"
        );
        self.app.assert_bare(&ended);
    }
}

/// A secret of the protected namespace that is not for movers, such as that of the cloud account.
fn foreign_secret() -> &'static str {
    let name = "not-for-movers";
    Cluster::admin().apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": PROTECTED}, "stringData": {"cloud": "x"},
    }));
    name
}

fn with(mut object: Value, name: &str, pointer: &str, value: Value) -> Value {
    object["metadata"]["name"] = json!(name);
    *object.pointer_mut(pointer).expect("a field") = value;
    object
}

#[test]
fn a_backup_of_another_tenants_data_is_denied() {
    let (victim, thief) = (App::new("trust-victim"), Tenant::new("trust-thief"));
    victim.bound("data", FILES);
    let theirs = victim.snapshot("snap", "data");
    let attack = |name: &str| thief.app.vsb(name, "b", &theirs);
    thief.is_refused(&attack("content"), "Denied", "not bound to a VolumeSnapshot in namespace");
    // The thief's own snapshot names the content, but the content does not name the snapshot.
    let spec = json!({"source": {"volumeSnapshotContentName": theirs}});
    thief.cluster.create(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "snap", "namespace": thief.app.namespace}, "spec": spec,
    }));
    thief.is_refused(&attack("forged"), "Denied", "not bound to a VolumeSnapshot in namespace");
    // The thief also writes a bound status into the snapshot.
    let status = json!({"status": {"boundVolumeSnapshotContentName": theirs, "readyToUse": true}});
    thief.cluster.merge_status("VolumeSnapshot", &thief.app.namespace, "snap", &status).expect("its own snapshot");
    thief.is_refused(&attack("status"), "Denied", "not bound to a VolumeSnapshot in namespace");

    thief.app.bound("own", FILES);
    let own = thief.app.snapshot("own", "own");
    let attack = |name: &str, pointer: &str, value: Value| with(thief.app.vsb(name, "b", &own), name, pointer, value);
    thief.is_refused(
        &attack("ns", "/spec/protectedNamespace", json!("kube-system")),
        "Denied",
        "this controller works in",
    );
    thief.is_refused(
        &attack("secret", "/spec/resticSecretRef/name", json!(foreign_secret())),
        "Denied",
        "carries no label",
    );
    for app in [&victim, &thief.app] {
        app.remove();
    }
}

#[test]
fn a_restore_of_another_tenants_data_is_denied() {
    let (victim, thief) = (App::new("trust-owner"), Tenant::new("trust-reader"));
    victim.bound("data", FILES);
    let vsb = victim.back_up("vsb", "b", "data");
    let url = text(&vsb, "/status/resticrepository");
    let repository = "/spec/volumeSnapshotMoverBackupRef/resticrepository";
    let attack = |name: &str, pointer: &str, value: Value| with(thief.app.vsr(name, name, &vsb), name, pointer, value);
    thief.is_refused(&attack("plain", repository, json!(url)), "Denied", "may not read the repository");
    // A tenant can write any label: the label of a Restore that does not exist proves nothing.
    let mut labelled = attack("labelled", repository, json!(url));
    labelled["metadata"]["labels"]["velero.io/restore-name"] = json!(format!("nightly-{}", thief.app.namespace));
    thief.is_refused(&labelled, "Denied", "may not read the repository");
    // A grant in the thief's own namespace proves nothing, either.
    thief.cluster.create(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": url},
        "metadata": {"name": "grant", "namespace": thief.app.namespace, "labels": {"datamover.oadp.openshift.io/grant-to": thief.app.namespace}},
    }));
    thief.is_refused(&attack("granted", repository, json!(url)), "Denied", "may not read the repository");
    let base = url.split("/restic/").next().expect("a base");
    let ways = [
        ("dots", format!("{base}/restic/x/../../{}", url.rsplit_once(base).expect("a path").1)),
        ("elsewhere", url.replacen("http://", "http://evil.example:", 1)),
        ("bucket", url.replacen("/velero/", "/other/", 1)),
        ("sibling", url.replacen("/velero/", "/velero-of-others/", 1)),
        ("folder", "/etc".to_owned()),
        ("local", "local:/etc".to_owned()),
        ("file", "s3:file:///etc".to_owned()),
        ("unknown-layout", format!("{base}/restic/deep/er/than/any/of/ours")),
        ("old-layout", format!("{base}/{PROTECTED}/b/snapcontent-1-pvc")),
    ];
    for (name, location) in ways {
        thief.is_refused(&attack(name, repository, json!(location)), "Denied", "");
    }
    thief.is_refused(
        &attack("secret", "/spec/resticSecretRef/name", json!(foreign_secret())),
        "Denied",
        "carries no label",
    );
    thief.app.remove();
    victim.remove();
}

/// The shipped roles give a tenant no right in the protected namespace.
#[test]
fn a_tenant_cannot_read_the_protected_namespace() {
    let tenant = Tenant::new("trust-rights");
    for (kind, name) in [("Secret", SECRET), ("ConfigMap", "vsm-repository-x"), ("PersistentVolumeClaim", "vsm-vsb-x")]
    {
        let path = match kind {
            "Secret" => format!("/api/v1/namespaces/{PROTECTED}/secrets/{name}"),
            "ConfigMap" => format!("/api/v1/namespaces/{PROTECTED}/configmaps/{name}"),
            _ => format!("/api/v1/namespaces/{PROTECTED}/persistentvolumeclaims/{name}"),
        };
        let refused =
            tenant.cluster.request("GET", &path, None, "application/json").expect_err("a tenant must not read it");
        assert_eq!(refused.code, 403, "{refused:?}");
    }
    // The default roles of a namespace do not contain our kinds.
    for role in ["admin", "edit", "view"] {
        let role = tenant.app.cluster.get("ClusterRole", "", role).expect("a role of the cluster's");
        assert!(!role.to_string().contains("datamover.oadp.openshift.io"), "{role:#}");
    }
    for kind in [BACKUP, RESTORE] {
        tenant.cluster.list(kind, &tenant.app.namespace, "");
    }
    tenant.app.remove();
}
