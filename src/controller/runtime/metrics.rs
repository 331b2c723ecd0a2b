//! The metrics of the controller, for Prometheus; `docs/operate/monitoring.md` lists them.
//!
//! Objects are counted at each scrape from the watch's store, so that a gauge shows the cluster's
//! state and not this process's memory. Events are counted when they happen.

use super::http_server::Answer;
use super::queue::QueueState;
use crate::clock;
use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::record::Record;
use crate::work::{Reason, ReasonName};
use hyper::{Method, Request, Uri};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};

/// The label's value for all reasons that this release does not know.
const OTHER: &str = "Other";

/// The kind of a request, by its short name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    kind: &'static str,
    phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    phase: String,
    reason: String,
}

/// A request to the apiserver, in the terms of RBAC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    resource: String,
}

/// The state of one object.
#[derive(Clone, Debug)]
pub struct CensusEntry {
    pub phase: String,
    pub is_degraded: bool,
    pub state: QueueState,
    /// Seconds since 1970 of its completion.
    pub completed: Option<i64>,
}

/// The objects of one kind, counted at each scrape.
struct Census {
    kind: &'static str,
    limit: usize,
    all: Box<dyn Fn() -> Vec<CensusEntry> + Send + Sync>,
}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    censuses: Arc<Censuses>,
    ended: Family<Ended, Counter>,
    errors: Family<OfKind, Counter>,
    moved: Family<OfKind, Counter>,
    calls: Family<Call, Counter>,
    leads: Gauge,
    missing_rights: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let censuses = Arc::new(Censuses::default());
        let (ended, errors, moved, calls) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let (leads, missing_rights) = (Gauge::default(), Gauge::default());
        registry.register_collector(Box::new(censuses.clone()));
        registry.register_collector(Box::new(Process));
        registry.register("vsm_ended", "Requests that have ended", ended.clone());
        registry.register("vsm_reconcile_errors", "Reconciles that failed with an API error", errors.clone());
        registry.register("vsm_moved_bytes", "Bytes of the volumes that were moved", moved.clone());
        registry.register("vsm_api_requests", "Requests to the apiserver", calls.clone());
        registry.register("vsm_leader", "1 if this controller is the leader, 0 otherwise", leads.clone());
        registry.register(
            "vsm_missing_rights",
            "Rights that the controller lacked at its start",
            missing_rights.clone(),
        );
        Metrics { registry: Arc::new(registry), censuses, ended, errors, moved, calls, leads, missing_rights }
    }
}

impl Metrics {
    /// Counts the objects of a kind at each scrape from now on.
    pub fn watch(&self, kind: &'static str, limit: usize, all: impl Fn() -> Vec<CensusEntry> + Send + Sync + 'static) {
        self.censuses.lock().push(Census { kind, limit, all: Box::new(all) });
    }

    /// Counts an update of a request, whose record is `after` now.
    pub fn recorded<D: Direction>(&self, kind: &'static str, update: &Update<D>, after: &Record) {
        let end = |reason: &str| {
            let ended = Ended { kind, phase: after.phase.clone(), reason: reason.to_owned() };
            self.ended.get_or_create(&ended).inc();
        };
        match update {
            Update::Moved(_) => {
                let bytes = after.mover.as_ref().map_or(0, |mover| mover.progress.bytes_done);
                self.moved.get_or_create(&OfKind { kind }).inc_by(u64::try_from(bytes).unwrap_or(0));
            }
            Update::Completed => {
                self.censuses.completed(kind, clock::now().0);
                end(if after.problems.is_some() { Reason::Incomplete.name() } else { "Completed" });
            }
            // Each value of a label is a time series: a mover's report must not choose it.
            Update::Failed { reason: ReasonName::Known(reason), .. } => end(reason.name()),
            Update::Failed { reason: ReasonName::Foreign(_), .. } => end(OTHER),
            Update::PartiallyFailed => end(Reason::VeleroFailed.name()),
            Update::Queued
            | Update::Started(_)
            | Update::Moving(_)
            | Update::Cleaning
            | Update::Waiting { .. }
            | Update::Settled => {}
        }
    }

    /// Counts a reconcile that failed with an API error.
    pub fn failed(&self, kind: &'static str) {
        self.errors.get_or_create(&OfKind { kind }).inc();
    }

    /// Counts a request to the apiserver.
    pub fn called<B>(&self, request: &Request<B>) {
        if let Some(call) = call(request.method(), request.uri()) {
            self.calls.get_or_create(&call).inc();
        }
    }

    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub fn missing_rights(&self, count: usize) {
        self.missing_rights.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus's text format.
    pub fn answer(&self) -> Answer {
        Answer { kind: "text/plain; version=0.0.4; charset=utf-8", ..Answer::ok(self.text()) }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

/// The verb and resource of a request to the apiserver; `None` if it is not for a resource.
fn call(method: &Method, uri: &Uri) -> Option<Call> {
    let mut path = uri.path().trim_matches('/').split('/');
    match path.next()? {
        "api" => path.next()?,
        "apis" => path.nth(1)?,
        _ => return None,
    };
    let mut rest: Vec<&str> = path.collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    let (resource, name) = (*rest.first()?, rest.get(1));
    let watched =
        || uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=1" | "watch=true")));
    let verb = match (method.as_str(), name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if watched() => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        _ => return None,
    };
    let resource = match rest.get(2) {
        Some(part) => format!("{resource}/{part}"),
        None => resource.to_owned(),
    };
    Some(Call { verb, resource })
}

#[derive(Default)]
struct Censuses {
    of: Mutex<Vec<Census>>,
    completed: Mutex<BTreeMap<&'static str, i64>>,
}

impl Debug for Censuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Censuses")
    }
}

impl Censuses {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Census>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn completed(&self, kind: &'static str, at: i64) {
        self.completed.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, at);
    }
}

impl Collector for Censuses {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (mut phases, mut degraded, mut queued) = (BTreeMap::new(), vec![], vec![]);
        let (mut admitted, mut limits, mut last) = (vec![], vec![], vec![]);
        for Census { kind, limit, all } in self.lock().iter() {
            let (kind, all) = (*kind, all());
            for standing in &all {
                *phases.entry((kind, standing.phase.clone())).or_insert(0_i64) += 1;
            }
            let count = |of: &dyn Fn(&CensusEntry) -> bool| all.iter().filter(|standing| of(standing)).count();
            degraded.push((OfKind { kind }, number(count(&|it| it.is_degraded))));
            queued.push((OfKind { kind }, number(count(&|it| it.state == QueueState::Queued))));
            admitted.push((OfKind { kind }, number(count(&|it| it.state == QueueState::Admitted))));
            limits.push((OfKind { kind }, number(*limit)));
            let seen = all.iter().filter_map(|standing| standing.completed).max();
            let own = self.completed.lock().unwrap_or_else(PoisonError::into_inner).get(kind).copied();
            last.extend(seen.max(own).map(|at| (OfKind { kind }, at)));
        }
        let phases = phases.into_iter().map(|((kind, phase), count)| (InPhase { kind, phase }, count)).collect();
        gauges(&mut encoder, "vsm_requests", "Requests by their phase.", phases)?;
        gauges(&mut encoder, "vsm_degraded", "Requests that are degraded: failed or incomplete.", degraded)?;
        gauges(&mut encoder, "vsm_queue_waiting", "Requests that are queued.", queued)?;
        gauges(&mut encoder, "vsm_queue_working", "Requests that are admitted.", admitted)?;
        gauges(&mut encoder, "vsm_queue_limit", "Requests that may be admitted at the same time.", limits)?;
        gauges(&mut encoder, "vsm_last_success_timestamp_seconds", "Time of the last completion.", last)
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    all: Vec<(L, V)>,
) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in &all {
        metric.encode_family(labels)?.encode_gauge(value)?;
    }
    Ok(())
}

/// The memory of the process, under the name that all Prometheus clients use.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let Some(bytes) = resident(&status) else { return Ok(()) };
        let mut metric = encoder.encode_descriptor(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            None,
            MetricType::Gauge,
        )?;
        metric.encode_gauge(&bytes)
    }
}

/// The bytes of the line `VmRSS:   1234 kB`.
fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::record::{MoverProgress, Progress};
    use crate::controller::testing::{Nothing, Plain};
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../../../docs/operate/monitoring.md");

    fn standing(phase: &str, state: QueueState) -> CensusEntry {
        CensusEntry { phase: phase.into(), is_degraded: phase == "Failed", state, completed: None }
    }

    fn in_phase(phase: &str) -> Record {
        Record { phase: phase.into(), ..Record::default() }
    }

    /// At least one sample of each metric.
    fn filled() -> Metrics {
        let metrics = Metrics::default();
        metrics.watch("vsb", 10, || {
            let done = CensusEntry { completed: Some(7), ..standing("Completed", QueueState::Out) };
            vec![
                done,
                standing("Failed", QueueState::Out),
                standing("Queued", QueueState::Queued),
                standing("Queued", QueueState::Queued),
            ]
        });
        metrics.watch("vsr", 3, || vec![standing("InProgress", QueueState::Admitted)]);
        let progress = Progress { bytes_done: 1000, ..Progress::default() };
        let moved = Record {
            phase: "SnapshotBackupDone".into(),
            mover: Some(MoverProgress { pod: "p".into(), progress }),
            ..Record::default()
        };
        metrics.recorded("vsb", &Update::<Plain>::Moved(Nothing), &moved);
        let failure = Update::<Plain>::failed(Reason::StoreFailed, "a \"b\"\n");
        metrics.recorded("vsb", &failure, &in_phase("Failed"));
        metrics.failed("vsr");
        metrics.called(&Request::get("https://h/api/v1/namespaces/adp/pods").body(()).unwrap());
        metrics.leads(true);
        metrics
    }

    #[test]
    fn objects_and_events_are_counted() {
        let text = filled().text();
        for line in [
            r#"vsm_requests{kind="vsb",phase="Completed"} 1"#,
            r#"vsm_requests{kind="vsb",phase="Queued"} 2"#,
            r#"vsm_requests{kind="vsr",phase="InProgress"} 1"#,
            r#"vsm_degraded{kind="vsb"} 1"#,
            r#"vsm_degraded{kind="vsr"} 0"#,
            r#"vsm_queue_waiting{kind="vsb"} 2"#,
            r#"vsm_queue_working{kind="vsr"} 1"#,
            r#"vsm_queue_limit{kind="vsr"} 3"#,
            r#"vsm_last_success_timestamp_seconds{kind="vsb"} 7"#,
            r#"vsm_moved_bytes_total{kind="vsb"} 1000"#,
            r#"vsm_ended_total{kind="vsb",phase="Failed",reason="StoreFailed"} 1"#,
            r#"vsm_reconcile_errors_total{kind="vsr"} 1"#,
            r#"vsm_api_requests_total{verb="list",resource="pods"} 1"#,
            "vsm_leader 1",
            "vsm_missing_rights 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains(r#"last_success_timestamp_seconds{kind="vsr"}"#), "no restore has completed");
    }

    #[test]
    fn an_unknown_reason_is_counted_as_other() {
        let metrics = Metrics::default();
        for reason in ["Novel", "x\n\"y", "", "VolumeUnreadable", "NotPrepared"] {
            let update = Update::<Plain>::failed(ReasonName::from(reason.to_owned()), "");
            metrics.recorded("vsb", &update, &in_phase("Failed"));
        }
        let text = metrics.text();
        let mut counted: Vec<&str> = text.lines().filter(|line| line.starts_with("vsm_ended_total")).collect();
        counted.sort_unstable();
        let expected = [("NotPrepared", 1), ("Other", 3), ("VolumeUnreadable", 1)];
        let line =
            |(reason, count)| format!(r#"vsm_ended_total{{kind="vsb",phase="Failed",reason="{reason}"}} {count}"#);
        assert_eq!(counted, expected.map(line));
    }

    #[test]
    fn the_last_success_is_the_newest_known() {
        let metrics = filled();
        metrics.recorded("vsb", &Update::<Plain>::Completed, &in_phase("Completed"));
        let text = metrics.text();
        assert!(!text.contains(r#"last_success_timestamp_seconds{kind="vsb"} 7"#), "{text}");
        assert!(text.contains(r#"vsm_ended_total{kind="vsb",phase="Completed",reason="Completed"} 1"#), "{text}");
    }

    #[test]
    fn requests_are_named_in_the_terms_of_rbac() {
        for (method, uri, verb, resource) in [
            (Method::GET, "/api/v1/namespaces/adp/pods/p", "get", "pods"),
            (Method::GET, "/api/v1/namespaces/adp/pods/p/log?tailLines=5", "get", "pods/log"),
            (Method::GET, "/api/v1/namespaces/kube-system", "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces?", "list", "namespaces"),
            (Method::GET, "/apis/batch/v1/namespaces/adp/jobs?&watch=true&timeoutSeconds=1", "watch", "jobs"),
            (Method::GET, "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents", "list", "volumesnapshotcontents"),
            (Method::POST, "/apis/batch/v1/namespaces/adp/jobs", "create", "jobs"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/adp/leases/l", "update", "leases"),
            (
                Method::PATCH,
                "/apis/g/v1/namespaces/a/volumesnapshotbackups/b/status",
                "patch",
                "volumesnapshotbackups/status",
            ),
            (Method::DELETE, "/api/v1/namespaces/adp/secrets/s", "delete", "secrets"),
        ] {
            let expected = Call { verb, resource: resource.to_owned() };
            assert_eq!(call(&method, &uri.parse().unwrap()), Some(expected), "{uri}");
        }
        assert_eq!(call(&Method::GET, &"/version".parse().unwrap()), None);
    }

    #[test]
    fn memory_is_read_from_proc() {
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1_263_616));
        assert_eq!(resident(""), None);
    }

    #[test]
    fn the_document_lists_exactly_the_metrics() {
        let text = filled().text();
        let made: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let chapter = DOCUMENT.split_once("\n## Metrics\n").expect("the chapter").1.split("\n## ").next().unwrap();
        let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(['`', '{']));
        assert_eq!(rows.map(|(name, _)| name).collect::<BTreeSet<_>>(), made);
    }
}
