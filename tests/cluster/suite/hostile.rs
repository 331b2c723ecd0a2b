//! Tests texts that a tenant may write into a request: each request ends as `Failed` with a reason
//! and can be deleted, and a healthy backup beside them completes.

use crate::app::{App, BACKUP, FILES, RESTORE, message, reason};
use crate::cluster::{Cluster, text};
use serde_json::{Value, json};
use std::fs;

/// Names that change a request if they become a part of its URL, and names that no object has.
const NAMES: [&str; 7] = ["?watch=true&timeoutSeconds=999999999", "?", "a b", "a/b", "../secrets/x", "UPPER", "a%2Fb"];

const BACKUP_FIELDS: [&str; 3] =
    ["/spec/volumeSnapshotContent/name", "/spec/protectedNamespace", "/spec/resticSecretRef/name"];

const RESTORE_FIELDS: [&str; 8] = [
    "/spec/protectedNamespace",
    "/spec/resticSecretRef/name",
    "/spec/volumeSnapshotMoverBackupRef/sourcePVCData/name",
    "/spec/volumeSnapshotMoverBackupRef/sourcePVCData/storageClassName",
    "/spec/target/name",
    "/spec/target/storageClassName",
    "/spec/target/size",
    "/spec/target/accessModes/0",
];

/// Creates an object with a text in one of its fields, and returns its kind and name. `None`: the
/// apiserver rejects it.
fn create(cluster: &Cluster, base: &Value, field: &str, value: &str, number: usize) -> Option<(String, String)> {
    let mut object = base.clone();
    let name = format!("hostile-{number}");
    object["metadata"]["name"] = json!(name);
    *object.pointer_mut(field).unwrap_or_else(|| panic!("{field} of {base:#}")) = json!(value);
    cluster.try_create(&object).ok()?;
    Some((text(base, "/kind").to_owned(), name))
}

#[test]
fn names_that_no_object_can_have_fail_the_request_and_stop_no_other() {
    let app = App::new("hostile");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let vsb = app.back_up("first", "b", "data");
    let content = app.snapshot("again", "data");
    let backup = app.vsb("backup", "b", &content);
    let mut restore = app.direct("restore", &vsb, "target", None);
    restore["spec"]["target"] =
        json!({"name": "target", "storageClassName": "", "size": "1Gi", "accessModes": ["ReadWriteOnce"]});
    let mut created = Vec::new();
    let both = [(&backup, &BACKUP_FIELDS[..]), (&restore, &RESTORE_FIELDS[..])];
    for (number, ((base, fields), value)) in
        both.iter().flat_map(|both| NAMES.iter().map(move |value| (both, value))).enumerate()
    {
        for (place, field) in fields.iter().enumerate() {
            created.extend(create(&app.cluster, base, field, value, number * 10 + place).map(|it| (field, value, it)));
        }
    }
    assert!(created.len() > 50, "the apiserver accepted only {}", created.len());
    app.cluster.create(&app.vsb("healthy", "b", &content));
    app.completed(BACKUP, "healthy");
    for (field, value, (kind, name)) in &created {
        let ended = app.ended(kind, name);
        assert_eq!(text(&ended, "/status/phase"), "Failed", "{field} {value}: {ended:#}");
        assert!(["Invalid", "Denied"].contains(&reason(&ended, "Degraded")), "{field} {value}: {ended:#}");
        assert!(message(&ended, "Degraded").len() < 1024, "{field} {value}: {ended:#}");
        app.cluster.delete(kind, &app.namespace, name);
    }
    for (_, _, (kind, name)) in &created {
        app.cluster.until_gone(kind, &app.namespace, name);
    }
    for kind in [BACKUP, RESTORE] {
        assert!(app.cluster.list(kind, &app.namespace, "").len() <= 2, "{kind}");
    }
    app.remove();
}
