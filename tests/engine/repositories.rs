//! Tests `repositories`, which lists the repositories below a location if only a bucket and a
//! password are left. The expected content of each is known from restic.

use crate::common::peers::{PASSWORD, Peer, Repo, Run};
use crate::common::s3::{BUCKET, S3};
use crate::common::{Random, scratch};
use crate::store::proxy::Proxy;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A repository in a folder, made by restic in `format`.
fn repository(path: &Path, format: u32) -> Repo {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    Repo::at(path).made_empty(format)
}

/// A directory with a file of `bytes` bytes, or an empty directory.
fn source(repo: &Repo, name: &str, bytes: usize) -> std::path::PathBuf {
    let dir = repo.beside(name);
    fs::create_dir_all(&dir).expect("a directory");
    if bytes > 0 {
        fs::write(dir.join("file"), Random(bytes as u64).bytes(bytes)).expect("a file");
    }
    dir
}

/// Makes a backup like a mover of the controller.
fn backup(repo: &Repo, from: &Path, host: &str, tags: &[&str]) {
    let tags: Vec<&str> = tags.iter().flat_map(|tag| ["--tag", tag]).collect();
    repo.run(Peer::Vsm, [&["backup", "--volume", from.to_str().expect("UTF-8"), "--host", host], &tags[..]].concat())
        .ok();
}

/// A folder with everything that a bucket may contain: one claim with two snapshots, one of a block
/// volume, two repositories of the old layout, one of an unknown owner, one with a damaged
/// snapshot, four that cannot be read, and files that are no repository.
struct Bucket {
    dir: tempfile::TempDir,
    /// The readable repositories by path.
    repos: BTreeMap<&'static str, Repo>,
}

const DATA: &str = "velero/restic/c-1/shop/data";
const DISK: &str = "velero/restic/c-1/shop/disk";
const HALF: &str = "velero/restic/c-1/bank/half";
const OLD: &str = "adp/b1/snapcontent-1-pvc";
const OLDER: &str = "adp/snapcontent-2-pvc";
const FOREIGN: &str = "somebody/else";

impl Bucket {
    fn new() -> Bucket {
        let dir = scratch();
        let at = |path: &str| dir.path().join(path);
        let mut repos = BTreeMap::new();

        let data = repository(&at(DATA), 2);
        let recorded = ["size:10Gi", "storage-class:fast", "access-mode:ReadWriteOnce", "pvc-uid:p"];
        backup(
            &data,
            &source(&data, "first", 3000),
            "data",
            &[&["vsb-uid:1", "vsb:v-1", "backup:b1"], &recorded[..]].concat(),
        );
        backup(
            &data,
            &source(&data, "empty", 0),
            "data",
            &[&["vsb-uid:2", "vsb:v-2", "backup:b2"], &recorded[..]].concat(),
        );
        repos.insert(DATA, data);

        let disk = repository(&at(DISK), 2);
        let image = source(&disk, "image", 5 << 20);
        disk.backup(Peer::Restic019, &image, "file", &["--tag", "vsb-uid:3,vsb:v-3,backup:b1,vsm:device"]);
        repos.insert(DISK, disk);

        for (path, format) in [(OLD, 1), (OLDER, 2)] {
            let old = repository(&at(path), format);
            let volume = source(&old, "volume", 4000);
            old.backup(Peer::Restic019, &volume, ".", &["--host", "volsync"]);
            repos.insert(path, old);
        }
        let foreign = repository(&at(FOREIGN), 2);
        foreign.backup(Peer::Restic019, &source(&foreign, "x", 10), "file", &[]);
        repos.insert(FOREIGN, foreign);

        let half = repository(&at(HALF), 2);
        let volume = source(&half, "volume", 10);
        backup(&half, &volume, "half", &["vsb-uid:4", "vsb:v-4", "backup:b1"]);
        let whole: Vec<_> = fs::read_dir(at(HALF).join("snapshots")).expect("snapshots").flatten().collect();
        backup(&half, &volume, "half", &["vsb-uid:5", "vsb:v-5", "backup:b2"]);
        let torn = fs::read_dir(at(HALF).join("snapshots")).expect("snapshots").flatten();
        let torn =
            torn.map(|it| it.path()).find(|it| whole.iter().all(|whole| whole.path() != *it)).expect("a snapshot");
        truncate(&torn);
        repos.insert(HALF, half);

        let mut secret = Repo::at(at("velero/restic/c-1/bank/vault"));
        secret.set("RESTIC_PASSWORD", "another");
        secret.init(Peer::Restic019, 2).ok();
        repository(&at("velero/restic/c-1/bank/broken"), 2);
        truncate(&at("velero/restic/c-1/bank/broken/config"));
        repository(&at("velero/restic/c-1/bank/lost"), 2);
        fs::remove_file(at("velero/restic/c-1/bank/lost/config")).expect("removed");
        repository(&at("velero/restic/c-1/bank/locked-out"), 2);
        fs::remove_dir_all(at("velero/restic/c-1/bank/locked-out/keys")).expect("removed");

        for file in [
            "velero/backups/b1/velero-backup.json",
            "velero/kopia/shop/p1",
            "somebody/app/config",
            "somebody/app/data/x",
        ] {
            fs::create_dir_all(at(file).parent().expect("a parent")).expect("a directory");
            fs::write(at(file), "{}").expect("a file");
        }
        Bucket { dir, repos }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let base = self.path().to_str().expect("UTF-8");
        Repo::at(self.path()).run(Peer::Vsm, [&["repositories", base], arguments].concat())
    }

    /// The id of the newest snapshot of a repository.
    fn newest(&self, path: &str) -> String {
        let all = self.repos[path].snapshots(Peer::Restic019);
        all.last().expect("a snapshot")["id"].as_str().expect("an id").to_owned()
    }
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    let mut mode = fs::metadata(path).expect("a file").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    fs::set_permissions(path, mode).expect("a mode");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
}

/// The messages about repositories by path below `base`, and the summary.
fn told(run: &Run, base: &str) -> (BTreeMap<String, Value>, Value) {
    let mut lines = run.json_lines();
    let summary = lines.pop().expect("a summary");
    assert_eq!(summary["message_type"], "summary", "{run}");
    let path = |line: &Value| {
        assert_eq!(line["message_type"], "repository", "{line}");
        let url = line["repository"].as_str().expect("a location");
        url.strip_prefix(base).unwrap_or_else(|| panic!("{url}")).trim_start_matches('/').to_owned()
    };
    (lines.into_iter().map(|line| (path(&line), line)).collect(), summary)
}

#[test]
fn every_repository_is_listed_with_its_snapshots() {
    let bucket = Bucket::new();
    let run = bucket.run(&["--json"]).exits(3);
    let (repositories, summary) = told(&run, bucket.path().to_str().expect("UTF-8"));

    for (path, repo) in &bucket.repos {
        let told = &repositories[*path];
        assert!(told["error"].is_null(), "{told}");
        let mut theirs = repo.run(Peer::Restic019, ["snapshots", "--json", "--no-lock"]).json();
        // restic, too, continues without a snapshot that it cannot read.
        theirs.as_array_mut().expect("a list").sort_by_key(|one| one["time"].to_string());
        let ours = told["snapshots"].as_array().expect("a list");
        assert_eq!(ours.len(), theirs.as_array().expect("a list").len(), "{path}: {told}");
        for (ours, theirs) in ours.iter().zip(theirs.as_array().expect("a list")) {
            for field in ["id", "short_id", "time", "tags", "hostname", "summary"] {
                assert_eq!(ours[field], theirs[field], "{path}, {field}");
            }
        }
    }
    let field = |path: &str, field: &str| repositories[path][field].clone();
    for (path, owner) in [
        (DATA, json!({"layout": "volume", "cluster": "c-1", "namespace": "shop", "claim": "data"})),
        (OLD, json!({"layout": "old", "protected_namespace": "adp", "backup": "b1", "content": "snapcontent-1"})),
        (OLDER, json!({"layout": "old", "protected_namespace": "adp", "backup": null, "content": "snapcontent-2"})),
        (FOREIGN, json!({"layout": "unknown"})),
        (
            "velero/restic/c-1/bank/vault",
            json!({"layout": "volume", "cluster": "c-1", "namespace": "bank", "claim": "vault"}),
        ),
    ] {
        for (name, value) in owner.as_object().expect("an object") {
            assert_eq!(field(path, name), *value, "{path}");
        }
    }
    let volume = |path: &str, index: usize| {
        let one = &repositories[path]["snapshots"][index];
        (one["vsb"].clone(), one["backup"].clone(), one["volume_mode"].clone(), one["empty"].clone())
    };
    assert_eq!(volume(DATA, 0), (json!("v-1"), json!("b1"), json!("Filesystem"), json!(false)));
    assert_eq!(volume(DATA, 1), (json!("v-2"), json!("b2"), json!("Filesystem"), json!(true)));
    assert_eq!(volume(DISK, 0), (json!("v-3"), json!("b1"), json!("Block"), json!(false)));
    assert_eq!(volume(OLD, 0), (Value::Null, Value::Null, json!("Filesystem"), json!(false)));

    for (path, why) in [
        ("velero/restic/c-1/bank/vault", "wrong password"),
        ("velero/restic/c-1/bank/broken", "config"),
        ("velero/restic/c-1/bank/lost", "has no config"),
        ("velero/restic/c-1/bank/locked-out", "no key at all"),
    ] {
        let error = field(path, "error");
        assert!(error.as_str().expect("an error").contains(why), "{path}: {error}");
        assert!(run.errors().contains(path), "{path} is not reported");
    }
    assert_eq!(field(HALF, "damaged").as_array().expect("a list").len(), 1);
    // Six of `repos`, and four that cannot be read; `somebody/app` is no repository.
    assert_eq!(repositories.len(), 10, "{:?}", repositories.keys());
    let expected = [
        ("repositories", 10),
        ("snapshots", 7),
        ("unreadable", 4),
        ("damaged", 1),
        ("directories", 0),
        ("manifests", 0),
    ];
    for (name, count) in expected {
        assert_eq!(summary[name], count, "{name}: {summary}");
    }
    let mut passed_over: Vec<&str> =
        summary["passed_over"].as_array().expect("a list").iter().map(|path| path.as_str().expect("text")).collect();
    passed_over.sort_unstable();
    let of_velero = ["backups", "kopia"].map(|name| bucket.path().join("velero").join(name));
    assert_eq!(passed_over, of_velero.each_ref().map(|path| path.to_str().expect("UTF-8")));

    // The text output has the same facts.
    let text = bucket.run(&[]).exits(3);
    for word in [
        "shop/data of cluster c-1",
        "content snapcontent-1 of backup b1",
        "v-2",
        "Filesystem, empty",
        &bucket.newest(DISK)[..8],
    ] {
        assert!(text.text().contains(word), "{word}\n{text}");
    }
    assert!(
        text.text().contains("10 repositories, 7 snapshots") && text.errors().contains("4 repositories cannot be read"),
        "{text}"
    );
}

#[test]
fn a_location_without_a_readable_repository_is_an_error() {
    let dir = scratch();
    let run = |base: &Path, password: &str| {
        let mut repo = Repo::at(base);
        repo.set("RESTIC_PASSWORD", password);
        repo.run(Peer::Vsm, ["repositories", base.to_str().expect("UTF-8")])
    };
    let missing = run(&dir.path().join("missing"), PASSWORD).exits(1);
    assert!(missing.errors().contains("missing"), "{missing}");
    let empty = run(dir.path(), PASSWORD).exits(1);
    assert!(empty.errors().contains("there is no repository"), "{empty}");
    // The base may be a repository itself. If the only repository has another password, that is an
    // error.
    let repo = repository(&dir.path().join("one"), 2);
    assert!(run(repo.path(), PASSWORD).ok().text().contains("no snapshots"));
    let wrong = run(dir.path(), "wrong").exits(12);
    assert!(wrong.errors().contains("none of the 1 repositories"), "{wrong}");
}

/// The requests of a survey are known: a listing for each directory on the way, and in each
/// repository the config, the list of keys and the key, the list of snapshots and each of them. No
/// request lists packs, whatever their number.
#[test]
fn a_bucket_is_surveyed_without_its_packs() {
    let s3 = S3::new();
    let root = s3.root().join(BUCKET);
    let mut snapshots = 0;
    for (path, count) in [("velero/restic/c-1/shop/data", 2), ("velero/restic/c-1/shop/more", 1)] {
        let repo = repository(&root.join(path), 2);
        for turn in 0..count {
            let from = source(&repo, &format!("turn-{turn}"), 100_000 + turn);
            backup(&repo, &from, "data", &["vsb:v", "backup:b"]);
            snapshots += 1;
        }
    }
    // More packs than a page of a listing has.
    let packs = root.join("velero/restic/c-1/shop/data/data/00");
    for n in 0..3000 {
        fs::write(packs.join(format!("00{n:062x}")), "pack").expect("a file");
    }
    fs::create_dir_all(root.join("velero/backups/b1")).expect("a directory");
    fs::write(root.join("velero/backups/b1/velero-backup.json"), "{}").expect("a file");

    let proxy = Proxy::to(&format!("127.0.0.1:{}", s3.port()));
    let base = format!("s3:{}/{BUCKET}/velero", proxy.url());
    let run = s3.repo("").run(Peer::Vsm, ["repositories", &base, "--json"]).ok();
    let (repositories, summary) = told(&run, &base);
    assert_eq!((repositories.len(), &summary["snapshots"]), (2, &json!(snapshots)), "{summary}");
    let requests = proxy.requests();
    assert!(!requests.iter().any(|head| head.contains("data%2Fdata") || head.contains("data/data")), "{requests:#?}");
    // Six listings, of velero, restic, c-1, shop and the two repositories; four requests in each
    // repository, and one for each snapshot.
    assert_eq!(requests.len(), 6 + 2 * 4 + snapshots, "{requests:#?}");
}

/// The manifests in a directory, each as its documents.
fn manifests(directory: &Path) -> BTreeMap<String, Vec<Value>> {
    let read = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).expect("a file");
        let documents = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (entry.file_name().into_string().expect("UTF-8"), documents)
    };
    fs::read_dir(directory).expect("a directory").flatten().map(read).collect()
}

#[test]
fn manifests_restore_the_newest_or_the_selected_snapshots() {
    let (bucket, out) = (Bucket::new(), scratch());
    let write = |name: &str, more: &[&str], code: i32| {
        let directory = out.path().join(name);
        let text = directory.to_str().expect("UTF-8").to_owned();
        let run = bucket.run(&[&["--json", "--manifests", &text], more].concat()).exits(code);
        let written = manifests(&directory);
        if !written.is_empty() {
            // A second run does not write into the same directory.
            let again = bucket.run(&["--manifests", &text]).exits(1);
            assert!(again.errors().contains("name a new directory"), "{again}");
        }
        (run, written)
    };

    let (run, written) = write("all", &["--protected-namespace", "adp", "--secret", "keys", "--namespace", "lab"], 3);
    let (_, summary) = told(&run, bucket.path().to_str().expect("UTF-8"));
    assert_eq!((&summary["manifests"], &summary["without_manifest"]), (&json!(5), &json!(1)), "{summary}");
    let errors = run.errors();
    assert!(errors.contains("does not say whose volume") && errors.contains("does not accept a folder"), "{run}");
    let name =
        |namespace: &str, claim: &str, path: &str| format!("{namespace}.{claim}-{}.yaml", &bucket.newest(path)[..8]);
    let [grant, restore] = &written[&name("shop", "data", DATA)][..] else { panic!("{written:?}") };
    let url = bucket.path().join(DATA);
    let url = url.to_str().expect("UTF-8");
    assert_eq!((&grant["kind"], &grant["metadata"]["namespace"]), (&json!("ConfigMap"), &json!("adp")));
    assert_eq!(grant["metadata"]["labels"]["datamover.oadp.openshift.io/grant-to"], "shop");
    assert_eq!(grant["data"], json!({"repository": url}));
    assert_eq!(
        (&restore["kind"], &restore["metadata"]["namespace"]),
        (&json!("VolumeSnapshotRestore"), &json!("shop"))
    );
    let target = json!({"name": "data", "size": "10Gi", "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"});
    let source = json!({"name": "data", "size": "10Gi", "storageClassName": "fast"});
    let expected = json!({
        "protectedNamespace": "adp", "resticSecretRef": {"name": "keys"}, "snapshotID": bucket.newest(DATA),
        "volumeSnapshotMoverBackupRef": {"resticrepository": url, "sourcePVCData": source}, "target": target,
    });
    assert_eq!(restore["spec"], expected);
    let target = |file: &str| written[file][1]["spec"]["target"].clone();
    // The size of the image, and a guess for volumes without a recorded size.
    let block = json!({"name": "disk", "size": (5 << 20).to_string(), "volumeMode": "Block"});
    assert_eq!(target(&name("shop", "disk", DISK)), block);
    let old = json!({"name": "snapcontent-1-pvc", "size": "1Gi", "volumeMode": "Filesystem"});
    assert_eq!(target(&name("lab", "snapcontent-1-pvc", OLD)), old);
    assert!(written.contains_key(&name("lab", "snapcontent-2-pvc", OLDER)));

    let (_, written) = write("b1", &["--backup", "b1"], 3);
    let of = |claim: &str| {
        let one = written.values().find(|documents| documents[1]["spec"]["target"]["name"] == claim);
        one.map(|documents| documents[1]["spec"]["snapshotID"].clone())
    };
    let first = bucket.repos[DATA].snapshots(Peer::Restic019)[0]["id"].clone();
    assert_eq!((of("data"), of("half").is_some(), of("snapcontent-1-pvc")), (Some(first), true, None), "{written:?}");

    let (run, written) = write("none", &["--until", "2001-01-01", "--cluster", "c-1"], 3);
    assert!(written.is_empty() && run.errors().contains("no snapshot that is asked for"), "{run}");
}

/// Volumes with the same name in two clusters would be restored into one claim.
#[test]
fn manifests_of_several_clusters_need_the_name_of_one() {
    let dir = scratch();
    for cluster in ["c-1", "c-2"] {
        let repo = repository(&dir.path().join("restic").join(cluster).join("shop/data"), 2);
        backup(&repo, &source(&repo, "volume", 10), "data", &["vsb:v", "size:1Gi"]);
    }
    let (base, out) = (dir.path().join("restic"), dir.path().join("out"));
    let [base, text] = [&base, &out].map(|path| path.to_str().expect("UTF-8"));
    let run =
        |more: &[&str]| Repo::at(base).run(Peer::Vsm, [&["repositories", base, "--manifests", text], more].concat());
    let refused = run(&[]).exits(1);
    assert!(refused.errors().contains("c-1, c-2") && !out.exists(), "{refused}");
    run(&["--cluster", "c-3"]).exits(1);
    run(&["--cluster", "c-2"]).ok();
    let written = manifests(&out);
    assert_eq!(written.len(), 1);
    let url = written.values().next().expect("one")[0]["data"]["repository"].clone();
    assert!(url.as_str().expect("text").ends_with("restic/c-2/shop/data"), "{url}");
}
