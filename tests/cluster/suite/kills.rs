//! Tests crash recovery: the controller is killed before and after each of its writes, and movers
//! at the worst moments. Every run must complete with the right data and leave no managed object.
//! These tests need the cluster for themselves.

use crate::app::{App, BACKUP, FILES, RESTORE, assert_whole, processes};
use crate::cluster::{files, setting, text, wait_for};
use crate::common::Random;
use crate::common::compare::{self, Options};
use crate::common::peers::Peer;
use crate::local::{Alone, Controller, Cut, shipped};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn assert_same(source: &Path, restored: &Path) {
    compare::assert_same(source, restored, Options { root: false, holes: false });
}

/// Creates an object for each write of its flow and kills the controller there; returns the number
/// of writes.
fn at_every_write(controller: &Controller, app: &App, make: impl Fn(&str) -> Value, check: impl Fn(&str)) -> u64 {
    for number in 1.. {
        for cut in [Cut::Before, Cut::After] {
            let name = format!("{}-{number}", format!("{cut:?}").to_lowercase());
            controller.start(Some((number, cut)));
            let made = app.cluster.create(&make(&name));
            let ended = || {
                let gone = controller.is_gone();
                (gone || is_over(&app.get(text(&made, "/kind"), crate::cluster::name(&made))?)).then_some(gone)
            };
            let killed = wait_for(Duration::from_secs(180), ended).expect("a kill or the end of the request");
            controller.kill();
            controller.start(None);
            check(&name);
            let writes = controller.writes();
            controller.kill();
            if !killed {
                assert!(number > 10, "the flow has only {number} writes");
                return number - 1;
            }
            assert!(writes > 0 || cut == Cut::After, "the controller wrote nothing after {name}");
        }
    }
    unreachable!("flows end")
}

/// Whether a request is completed and has no finalizer.
fn is_over(it: &Value) -> bool {
    text(it, "/status/phase") == "Completed" && it["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

#[test]
fn a_backup_completes_if_the_controller_is_killed_at_any_write() {
    let _alone = Alone::new();
    let app = App::new("kill-backup");
    let volume = app.bound("data", FILES);
    fs::write(volume.join("file"), Random(1).bytes(3 << 20)).expect("a file");
    let content = app.snapshot("snap", "data");
    let controller = Controller::new(&shipped());
    let writes = at_every_write(
        &controller,
        &app,
        |name| app.vsb(name, "b", &content),
        |name| {
            let vsb = app.completed(BACKUP, name);
            app.assert_bare(&vsb);
            let repo = app.repository(&vsb);
            let tag = format!("vsb:{name}");
            let made = repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json", "--tag", &tag]).ok().json();
            assert_eq!(made.as_array().map(Vec::len), Some(1), "{name}: {made}");
            assert_eq!(made[0]["id"], vsb["status"]["snapshotID"]);
        },
    );
    println!("a backup: killed before and after each of {writes} writes");
    let vsb = app.completed(BACKUP, "before-1");
    let repo = app.repository(&vsb);
    assert_whole(&repo);
    let out = repo.beside("out");
    repo.restore(Peer::Restic019, "latest", &out).ok();
    assert_same(&volume, &out.join("data"));
    app.remove();
}

#[test]
fn a_restore_completes_if_the_controller_is_killed_at_any_write() {
    let app = App::new("kill-restore");
    let volume = app.bound("data", FILES);
    fs::write(volume.join("file"), Random(1).bytes(3 << 20)).expect("a file");
    let vsb = app.back_up("vsb", "b", "data");
    let _alone = Alone::new();
    let controller = Controller::new(&shipped());
    for direct in [false, true] {
        let writes = at_every_write(
            &controller,
            &app,
            |name| {
                let name = &format!("{name}{}", if direct { "d" } else { "" });
                if direct { app.direct(name, &vsb, name, None) } else { app.vsr(name, name, &vsb) }
            },
            |name| {
                let name = &format!("{name}{}", if direct { "d" } else { "" });
                let back = if direct { PathBuf::new() } else { app.take_handle(name, name, FILES) };
                let vsr = app.completed(RESTORE, name);
                app.assert_bare(&vsr);
                assert_same(&volume, &if direct { app.volume(name) } else { back });
            },
        );
        println!(
            "a restore{}: killed before and after each of {writes} writes",
            if direct { " into a claim" } else { "" }
        );
    }
    drop(controller);
    assert_whole(&app.repository(&vsb));
    app.remove();
}

fn kill(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
}

/// Waits for the mover pod of a request.
fn pod(app: &App, object: &Value) -> Value {
    let selector = format!("datamover.oadp.openshift.io/uid={}", text(object, "/metadata/uid"));
    let first = || app.cluster.list("Pod", crate::cluster::PROTECTED, &selector).pop();
    wait_for(Duration::from_secs(120), first).expect("a mover")
}

/// Waits for the mover's process, and returns its ID.
fn running(app: &App, object: &Value) -> i32 {
    let uid = text(&pod(app, object), "/metadata/uid").to_owned();
    wait_for(Duration::from_secs(120), || processes(&uid, "vsm-mover").pop()).expect("a process")
}

#[test]
fn a_backup_completes_if_its_mover_is_killed() {
    let app = App::new("kill-mover");
    let volume = app.bound("data", FILES);
    for number in 0..8 {
        fs::write(volume.join(format!("{number}")), Random(number).bytes(24 << 20)).expect("a file");
    }
    let content = app.snapshot("snap", "data");
    let check = |name: &str| {
        let vsb = app.completed(BACKUP, name);
        app.assert_bare(&vsb);
        let repo = app.repository(&vsb);
        assert_whole(&repo);
        let tag = format!("vsb:{name}");
        let made = repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json", "--tag", &tag]).ok().json();
        assert_eq!(made.as_array().map(Vec::len), Some(1), "{name}: {made}");
        vsb
    };
    // Killed as soon as it runs.
    let vsb = app.cluster.create(&app.vsb("early", "b", &content));
    assert!(kill(running(&app, &vsb)));
    let first = check("early");
    // Killed during its upload: the first packs are in the store.
    fs::write(volume.join("more"), Random(99).bytes(200 << 20)).expect("a file");
    let second = app.snapshot("snap-2", "data");
    let vsb = app.cluster.create(&app.vsb("amid", "b", &second));
    let process = running(&app, &vsb);
    let packs = || crate::common::files_below(&folder(&first).join("data")).len();
    let before = packs();
    wait_for(Duration::from_secs(60), || (packs() > before + 2).then_some(())).expect("packs");
    assert!(kill(process), "the mover ended before it was killed");
    check("amid");
    // Evicted: the mover gets SIGTERM, and its successor completes the backup.
    fs::write(volume.join("more"), Random(100).bytes(200 << 20)).expect("a file");
    let third = app.snapshot("snap-3", "data");
    let vsb = app.cluster.create(&app.vsb("evicted", "b", &third));
    running(&app, &vsb);
    let evicted = pod(&app, &vsb);
    app.cluster.delete("Pod", crate::cluster::PROTECTED, crate::cluster::name(&evicted));
    check("evicted");
    // Killed between snapshot and report: its successor finds the snapshot and makes no second one.
    let mut hit = false;
    for attempt in 0..20 {
        let name = format!("report-{attempt}");
        let snapshots = folder(&first).join("snapshots");
        let there = || fs::read_dir(&snapshots).expect("snapshots").count();
        let before = there();
        let vsb = app.cluster.create(&app.vsb(&name, "b", &content));
        let first_pod = pod(&app, &vsb);
        let process = running(&app, &vsb);
        while there() == before && Path::new(&format!("/proc/{process}")).exists() {
            std::thread::sleep(Duration::from_micros(200));
        }
        kill(process);
        let vsb = check(&name);
        // Killed in time: another pod reported the snapshot.
        hit = there() == before + 1 && text(&vsb, "/status/moverPod") != crate::cluster::name(&first_pod);
        if hit {
            break;
        }
    }
    assert!(hit, "the mover was never killed between its snapshot and its report");
    app.remove();
}

/// The folder of the S3 server with the repository that a status names.
fn folder(object: &Value) -> PathBuf {
    let url = text(object, "/status/resticrepository");
    files().join("s3").join(url.strip_prefix(&format!("s3:{}/", setting("S3_URL"))).expect("the cluster's store"))
}
