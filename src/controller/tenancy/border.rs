//! The border: checks the text that a tenant wrote into a request, before any of it is used.
//!
//! The names of objects become parts of URLs, sizes and modes become fields of managed objects, and
//! all of them become parts of messages.

use super::Rejected;
use crate::controller::domain::{backup, restore};
use crate::kubernetes::naming::is_object_name;
use crate::kubernetes::quantity;

/// Characters of a tenant's text that a message quotes.
const QUOTED: usize = 64;

/// The longest location of a repository: the limit of a key in S3 is 1,024 bytes, and the name of a
/// bucket and its host come before it.
const LONGEST_LOCATION: usize = 2048;

/// The access modes of Kubernetes (`core/v1`, PersistentVolumeAccessMode).
const ACCESS_MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

/// Checks a request for a backup.
pub fn backup(request: &backup::Request) -> Result<(), Rejected> {
    let backup::Request { content, protected_namespace, secret, velero_backup: _ } = request;
    name("spec.volumeSnapshotContent.name", content)?;
    name("spec.protectedNamespace", protected_namespace)?;
    name("spec.resticSecretRef.name", secret)
}

/// Checks a request for a restore.
pub fn restore(request: &restore::Request) -> Result<(), Rejected> {
    let restore::Request { protected_namespace, secret, repository, claim, target, .. } = request;
    name("spec.protectedNamespace", protected_namespace)?;
    name("spec.resticSecretRef.name", secret)?;
    name("spec.volumeSnapshotMoverBackupRef.sourcePVCData.name", &claim.name)?;
    optional("spec.volumeSnapshotMoverBackupRef.sourcePVCData.storageClassName", Some(&claim.storage_class))?;
    let class = "spec.volumeSnapshotMoverBackupRef.volumeSnapshotClassName";
    optional(class, request.snapshot_class.as_deref())?;
    optional("spec.volumeSnapshotBackupName", request.made_by.as_deref())?;
    if repository.len() > LONGEST_LOCATION {
        return Err(Rejected::invalid(format!(
            "spec.volumeSnapshotMoverBackupRef.resticrepository has {} bytes, and at most {LONGEST_LOCATION} are allowed",
            repository.len()
        )));
    }
    let Some(target) = target else { return size("sourcePVCData.size", &claim.size) };
    name("spec.target.name", &target.name)?;
    optional("spec.target.storageClassName", target.storage_class.as_deref())?;
    size("spec.target.size", target.size.as_deref().unwrap_or(&claim.size))?;
    target.access_modes.iter().try_for_each(|mode| access_mode("spec.target.accessModes", mode))
}

/// Checks an access mode that a tenant or an administrator wrote.
pub fn access_mode(field: &str, mode: &str) -> Result<(), Rejected> {
    if ACCESS_MODES.contains(&mode) {
        return Ok(());
    }
    let known = ACCESS_MODES.join(", ");
    Err(Rejected::invalid(format!("{field} is {}, and must be one of {known}", quoted(mode))))
}

fn name(field: &str, value: &str) -> Result<(), Rejected> {
    if is_object_name(value) {
        return Ok(());
    }
    let rule = "lower-case letters, digits, '-' and '.', which begin and end with a letter or digit";
    Err(Rejected::invalid(format!("{field} is {}, which is no name of an object: {rule}", quoted(value))))
}

/// A name that may be absent or empty.
fn optional(field: &str, value: Option<&str>) -> Result<(), Rejected> {
    value.filter(|value| !value.is_empty()).map_or(Ok(()), |value| name(field, value))
}

fn size(field: &str, value: &str) -> Result<(), Rejected> {
    if quantity::bytes(value).is_some_and(|bytes| bytes > 0) {
        return Ok(());
    }
    Err(Rejected::invalid(format!("{field} is {}, which is not a size", quoted(value))))
}

/// The beginning of a text, escaped for a message.
fn quoted(value: &str) -> String {
    let beginning: String = value.chars().take(QUOTED).collect();
    let rest = if beginning.len() < value.len() { "…" } else { "" };
    format!("{beginning:?}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::restore::{SourceClaim, Target};
    use crate::work::Reason;

    /// Texts that a tenant may write into any field of the API.
    const NASTY: [&str; 12] = [
        "?watch=true&timeoutSeconds=999999999",
        "?",
        "a b",
        "a/b",
        "..",
        "../secrets/x",
        "UPPER",
        "a%2Fb",
        "a#b",
        "\u{0}",
        "ä",
        "-a",
    ];

    fn a_backup() -> backup::Request {
        let text = |text: &str| text.to_owned();
        backup::Request {
            content: text("snapcontent-1"),
            protected_namespace: text("velero"),
            secret: text("secret"),
            velero_backup: None,
        }
    }

    fn a_restore() -> restore::Request {
        restore::Request {
            protected_namespace: "velero".into(),
            secret: "secret".into(),
            repository: "s3:https://host/bucket".into(),
            claim: SourceClaim { name: "data".into(), size: "1Gi".into(), storage_class: String::new() },
            target: Some(Target { name: "data".into(), ..Target::default() }),
            ..restore::Request::default()
        }
    }

    fn is_rejected(outcome: Result<(), Rejected>) -> bool {
        outcome.is_err_and(|why| why.reason == Reason::Invalid && why.message.len() < 1024)
    }

    #[test]
    fn each_name_of_a_backup_is_checked() {
        assert!(backup(&a_backup()).is_ok());
        let long = "a".repeat(1 << 20);
        for nasty in NASTY.into_iter().chain(["", &long]) {
            let fields: [fn(&mut backup::Request, String); 3] =
                [|it, text| it.content = text, |it, text| it.protected_namespace = text, |it, text| it.secret = text];
            for (number, field) in fields.iter().enumerate() {
                let mut request = a_backup();
                field(&mut request, nasty.to_owned());
                assert!(is_rejected(backup(&request)), "field {number}: {nasty:.40}");
            }
        }
    }

    #[test]
    fn each_text_of_a_restore_is_checked() {
        assert!(restore(&a_restore()).is_ok());
        let long = "a".repeat(1 << 20);
        let fields: [fn(&mut restore::Request, String); 10] = [
            |it, text| it.protected_namespace = text,
            |it, text| it.secret = text,
            |it, text| it.claim.name = text,
            |it, text| it.claim.storage_class = text,
            |it, text| it.snapshot_class = Some(text),
            |it, text| it.made_by = Some(text),
            |it, text| it.target.as_mut().unwrap().name = text,
            |it, text| it.target.as_mut().unwrap().storage_class = Some(text),
            |it, text| it.target.as_mut().unwrap().size = Some(text),
            |it, text| it.target.as_mut().unwrap().access_modes = vec![text],
        ];
        for nasty in NASTY.into_iter().chain([&*long]) {
            for (number, field) in fields.iter().enumerate() {
                let mut request = a_restore();
                field(&mut request, nasty.to_owned());
                assert!(is_rejected(restore(&request)), "field {number}: {nasty:.40}");
            }
        }
        for size in ["0", "-1", "1e99", "", "1.5e-2147483648"] {
            let mut request = a_restore();
            request.target.as_mut().unwrap().size = Some(size.into());
            assert!(is_rejected(restore(&request)), "{size}");
            request = restore::Request { target: None, ..a_restore() };
            request.claim.size = size.into();
            assert!(is_rejected(restore(&request)), "{size}");
        }
        let mut request = a_restore();
        request.target.as_mut().unwrap().access_modes = vec!["RWO".into()];
        assert!(is_rejected(restore(&request)));
        request = restore::Request { repository: long, ..a_restore() };
        assert!(is_rejected(restore(&request)));
    }
}
