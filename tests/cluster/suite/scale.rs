//! Measures costs: many concurrent backups, a volume of 1 GiB by phase, and a large directory in
//! little memory. `tests/full` publishes the figures, and runs the shipped image. These tests need
//! the cluster for themselves.

use crate::app::{App, Asked, BACKUP, FILES, RESTORE, assert_whole, processes};
use crate::cluster::{Cluster, PROTECTED, name, text, wait_for};
use crate::common::Random;
use crate::common::compare::{self, Options};
use crate::common::peers::Peer;
use crate::local::{Alone, Controller, shipped};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

const VOLUMES: usize = 10;
const BACKUPS: usize = 500;
/// Memory limit of the controller: only its cache of all watched objects grows with their number.
const MEMORY_MAX: u64 = 128 << 20;

/// Appends a row for `docs/internals/full-tier.md`.
fn leave(row: &str) {
    print!("{row}");
    if let Some(file) = std::env::var_os("VSM_FULL_ROWS") {
        let mut file = File::options().create(true).append(true).open(file).expect("the rows");
        file.write_all(row.as_bytes()).expect("a row");
    }
}

/// The deployed controller.
struct Deployed {
    pod: String,
    process: i32,
}

impl Deployed {
    fn find() -> Deployed {
        let pods = Cluster::admin().list("Pod", PROTECTED, "component=data-mover-controller");
        let pod = pods.first().expect("its pod");
        let process = processes(text(pod, "/metadata/uid"), "vsm-controller").pop().expect("its process");
        Deployed { pod: name(pod).to_owned(), process }
    }

    /// Requests to the apiserver since the start, of all kinds.
    fn requests(&self) -> u64 {
        let path = format!("/api/v1/namespaces/{PROTECTED}/pods/{}:8080/proxy/metrics", self.pod);
        let text = Cluster::admin().text(&path);
        let lines = text.lines().filter(|line| line.starts_with("vsm_api_requests_total{"));
        lines.map(|line| line.rsplit(' ').next().expect("a number").parse::<u64>().expect("a number")).sum()
    }

    /// The peak resident memory in bytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

#[test]
fn five_hundred_backups_complete() {
    let app = App::new("scale");
    let contents: Vec<String> = (0..VOLUMES)
        .map(|number| {
            let claim = format!("data-{number}");
            fs::write(app.bound(&claim, FILES).join("file"), Random(number as u64).bytes(1 << 20)).expect("a file");
            app.snapshot(&claim, &claim)
        })
        .collect();
    let deployed = Deployed::find();
    let (before, start) = (deployed.requests(), Instant::now());
    for number in 0..BACKUPS {
        app.cluster.create(&app.vsb(&format!("vsb-{number:03}"), "b", &contents[number % VOLUMES]));
    }
    let mut last = 0;
    let drained = wait_for(Duration::from_secs(5400), || {
        std::thread::sleep(Duration::from_secs(2));
        let all = app.cluster.list(BACKUP, &app.namespace, "");
        let done = all.iter().filter(|vsb| text(vsb, "/status/phase") == "Completed").count();
        let bad = all.iter().find(|vsb| matches!(text(vsb, "/status/phase"), "Failed" | "PartiallyFailed"));
        assert!(bad.is_none(), "{:#}", bad.expect("one"));
        if done / 50 != last / 50 {
            println!("{done} after {:.0} s", start.elapsed().as_secs_f64());
        }
        last = done;
        (done == BACKUPS).then_some(())
    });
    assert!(drained.is_some(), "{last} of {BACKUPS}");
    let seconds = start.elapsed().as_secs_f64();
    let each = (deployed.requests() - before) as f64 / BACKUPS as f64;
    let peak = deployed.peak();
    for number in 0..VOLUMES {
        let vsb = app.completed(BACKUP, &format!("vsb-{number:03}"));
        let repo = app.repository(&vsb);
        let made = repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json"]).ok().json();
        assert_eq!(made.as_array().map(Vec::len), Some(BACKUPS / VOLUMES));
    }
    assert_whole(&app.repository(&app.completed(BACKUP, "vsb-000")));
    for kind in ["Job", "Pod", "PersistentVolumeClaim", "VolumeSnapshot", "Secret"] {
        let left = app.cluster.list(kind, PROTECTED, "app.kubernetes.io/managed-by=vsm-controller");
        assert!(left.is_empty(), "{} {kind}s are left", left.len());
    }
    let what = format!("{BACKUPS} backups of {VOLUMES} volumes of 1 MiB, 10 at a time");
    leave(&format!("| {what} | {seconds:.0} | {each:.0} | {} |\n", peak >> 20));
    assert!(peak < MEMORY_MAX, "the controller took {} MiB", peak >> 20);
    app.remove();
}

/// Seconds from now until each state is reached, polled twenty times a second.
fn moments<const N: usize>(app: &App, kind: &str, name: &str, reached: [&dyn Fn(&Value) -> bool; N]) -> [f64; N] {
    let start = Instant::now();
    reached.map(|reached| {
        while !app.get(kind, name).is_some_and(|it| {
            assert_ne!(text(&it, "/status/phase"), "Failed", "{it:#}");
            reached(&it)
        }) {
            assert!(start.elapsed() < Duration::from_secs(600), "{name} has stalled");
            std::thread::sleep(Duration::from_millis(50));
        }
        start.elapsed().as_secs_f64()
    })
}

/// Appends a row with the seconds of each phase of a backup or restore, which must complete.
fn leave_phases(app: &App, kind: &str, name: &str, what: &str) {
    let turn = |it: &Value| text(it, "/status/batchingStatus") == "Processing";
    let runs = |it: &Value| !text(it, "/status/moverPod").is_empty();
    let moved = |it: &Value| !matches!(text(it, "/status/phase"), "" | "InProgress");
    let done = |it: &Value| text(it, "/status/phase") == "Completed";
    let [turn, runs, moved, done] = moments(app, kind, name, [&turn, &runs, &moved, &done]);
    let [prepare, mover, rest] = [runs - turn, moved - runs, done - moved];
    leave(&format!("| {what} | {turn:.1} | {prepare:.1} | {mover:.1} | {rest:.1} | {done:.1} |\n"));
}

#[test]
fn one_gibibyte_is_measured_by_phase() {
    let app = App::new("scale-gib");
    let asked = Asked { size: "2Gi", ..FILES };
    let volume = app.bound("data", asked);
    for number in 0..8 {
        fs::write(volume.join(format!("{number}")), Random(number).bytes(128 << 20)).expect("a file");
    }
    for (name, what) in [("first", "a first backup of 1 GiB"), ("second", "a second one, of the same")] {
        let content = app.snapshot(name, "data");
        app.cluster.create(&app.vsb(name, "b", &content));
        leave_phases(&app, BACKUP, name, what);
    }
    let vsb = app.completed(BACKUP, "first");
    app.cluster.create(&app.direct("direct", &vsb, "back", None));
    leave_phases(&app, RESTORE, "direct", "a restore of it into a claim");
    compare::assert_same(&volume, &app.volume("back"), Options { root: false, holes: false });
    app.remove();
}

/// Files of one directory, whose tree alone takes about 100 MB.
const FILES_OF_A_DIRECTORY: u64 = 300_000;

/// The kernel kills a mover that takes more memory, and no other mover is started.
#[test]
fn movers_of_160_mib_move_a_directory_of_300_000_files() {
    let _alone = Alone::new();
    let mut controller = Controller::new(&shipped());
    controller.set("VSM_MOVER_MEMORY_REQUEST", "160Mi").set("VSM_MOVER_MEMORY_LIMIT", "160Mi");
    controller.set("VSM_MOVER_RETRIES", "0");
    controller.start(None);
    let app = App::new("scale-directory");
    let volume = app.bound("data", FILES);
    fs::create_dir(volume.join("spool")).expect("a directory");
    for number in 0..FILES_OF_A_DIRECTORY {
        fs::write(volume.join(format!("spool/{number:06} a name of a usual length")), number.to_string())
            .expect("space");
    }
    let has_limit = || {
        let movers = app.cluster.list("Pod", PROTECTED, "app.kubernetes.io/managed-by=vsm-controller");
        let limit = "/spec/containers/0/resources/limits/memory";
        movers.iter().any(|pod| text(pod, limit) == "160Mi").then_some(())
    };
    let content = app.snapshot("snap", "data");
    app.cluster.create(&app.vsb("vsb", "b", &content));
    wait_for(Duration::from_secs(180), has_limit).expect("a mover with the limit");
    leave_phases(&app, BACKUP, "vsb", "a backup of 300,000 files in one directory within 160 MiB");
    let vsb = app.completed(BACKUP, "vsb");
    assert_whole(&app.repository(&vsb));
    app.cluster.create(&app.direct("vsr", &vsb, "back", None));
    wait_for(Duration::from_secs(180), has_limit).expect("a mover with the limit");
    leave_phases(&app, RESTORE, "vsr", "a restore of it into a claim within 160 MiB");
    app.completed(RESTORE, "vsr");
    compare::assert_same(&volume, &app.volume("back"), Options { root: false, holes: false });
    app.remove();
}
