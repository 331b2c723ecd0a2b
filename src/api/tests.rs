use super::definitions;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use std::path::PathBuf;

fn manifest(definition: &CustomResourceDefinition) -> (PathBuf, String) {
    let name = &definition.spec.names.plural;
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("manifests/base/crds/{name}.yaml"));
    let text = serde_saphyr::to_string(definition).expect("plain data");
    (
        path,
        format!(
            "# Generated from src/api; `VSM_WRITE=1 cargo test --features controller crds` regenerates it.\n{text}"
        ),
    )
}

#[test]
fn the_crds_in_the_manifests_are_those_of_the_types() {
    for definition in definitions() {
        let (path, text) = manifest(&definition);
        if std::env::var_os("VSM_WRITE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory can be created");
            std::fs::write(&path, &text).expect("the manifest can be written");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "{} is not up to date; VSM_WRITE=1 writes it", path.display());
    }
}

/// The type of a field by its path, `[]` for a list's items.
fn ty(definition: &CustomResourceDefinition, path: &str) -> String {
    let version = &definition.spec.versions[0];
    let mut schema: &JSONSchemaProps =
        version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).expect("a schema");
    for name in path.split('.') {
        schema =
            schema.properties.as_ref().and_then(|all| all.get(name)).unwrap_or_else(|| panic!("no {name} of {path}"));
    }
    schema.type_.clone().unwrap_or_default()
}

/// The published schema of VolumeSnapshotMover 1.2, field by field.
#[test]
fn every_field_of_1_2_is_served() {
    let [backup, restore] = definitions();
    let strings = |definition: &CustomResourceDefinition, paths: &[&str]| {
        for path in paths {
            assert_eq!(ty(definition, path), "string", "{path}");
        }
    };
    strings(
        &backup,
        &[
            "spec.volumeSnapshotContent.name",
            "spec.volumeSnapshotContent.resourceVersion",
            "spec.protectedNamespace",
            "spec.resticSecretRef.name",
            "status.sourcePVCData.name",
            "status.sourcePVCData.size",
            "status.sourcePVCData.storageClassName",
            "status.resticrepository",
            "status.phase",
            "status.batchingStatus",
            "status.volumeSnapshotClassName",
            "status.startTimestamp",
            "status.completionTimestamp",
            "status.replicationSourceData.name",
            "status.replicationSourceData.startTimestamp",
            "status.replicationSourceData.completionTimestamp",
        ],
    );
    assert_eq!((ty(&backup, "status.completed"), ty(&backup, "status.conditions")), ("boolean".into(), "array".into()));
    strings(
        &restore,
        &[
            "spec.protectedNamespace",
            "spec.resticSecretRef.name",
            "spec.volumeSnapshotMoverBackupRef.sourcePVCData.name",
            "spec.volumeSnapshotMoverBackupRef.sourcePVCData.size",
            "spec.volumeSnapshotMoverBackupRef.sourcePVCData.storageClassName",
            "spec.volumeSnapshotMoverBackupRef.resticrepository",
            "spec.volumeSnapshotMoverBackupRef.volumeSnapshotClassName",
            "status.phase",
            "status.batchingStatus",
            "status.snapshotHandle",
            "status.volumeSnapshotContentName",
            "status.startTimestamp",
            "status.completionTimestamp",
            "status.replicationDestinationData.name",
            "status.replicationDestinationData.startTimestamp",
            "status.replicationDestinationData.completionTimestamp",
        ],
    );
}

/// Names, short names and columns are those that `oc get vsb,vsr` showed, in the same order. Our
/// own columns follow, with a priority: only `-o wide` shows them.
#[test]
fn names_and_columns_are_those_of_1_2() {
    let [backup, restore] = definitions();
    for (definition, name, claim, content) in [
        (&backup, "volumesnapshotbackup", ".status.sourcePVCData.name", ".spec.volumeSnapshotContent.name"),
        (
            &restore,
            "volumesnapshotrestore",
            ".spec.volumeSnapshotMoverBackupRef.sourcePVCData.name",
            ".status.volumeSnapshotContentName",
        ),
    ] {
        let (names, version) = (&definition.spec.names, &definition.spec.versions[0]);
        assert_eq!(definition.metadata.name, Some(format!("{name}s.datamover.oadp.openshift.io")));
        assert_eq!((&*names.plural, names.singular.as_deref()), (&*format!("{name}s"), Some(name)));
        assert_eq!(definition.spec.scope, "Namespaced");
        assert!(version.name == "v1alpha1" && version.served && version.storage);
        assert!(version.subresources.as_ref().is_some_and(|sub| sub.status.is_some() && sub.scale.is_none()));
        let columns = version.additional_printer_columns.as_deref().unwrap_or_default();
        let shown: Vec<_> = columns.iter().filter(|column| column.priority.unwrap_or(0) == 0).collect();
        let shown: Vec<_> = shown.iter().map(|c| (c.name.as_str(), c.type_.as_str(), c.json_path.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("PVC Name", "string", claim),
                ("VolumeSnapshotContent", "string", content),
                ("Phase", "string", ".status.phase"),
                ("BatchingStatus", "string", ".status.batchingStatus"),
                ("Age", "date", ".metadata.creationTimestamp"),
            ]
        );
    }
    assert_eq!(backup.spec.names.short_names, Some(vec!["vsb".to_owned()]));
    assert_eq!(restore.spec.names.short_names, Some(vec!["vsr".to_owned()]));
}
