//! Kubernetes Events of a request: one for each recorded change that a user wants to see, so that
//! their number is bounded by the number of changes.

use crate::controller::domain::direction::{Direction, Update, VELERO_FAILED, incomplete};
use crate::controller::domain::record::{MoverProgress, Record};
use crate::work::{Reason, ReasonName};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::fmt::Write;

/// The reporting component.
const COMPONENT: &str = "vsm-controller";
/// The longest message in bytes: the limit of `events.k8s.io/v1`, through which clients may read
/// the event.
const LONGEST: usize = 1024;

/// The content of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub severity: Severity,
    /// One word in CamelCase.
    pub reason: String,
    pub message: String,
}

/// The `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

/// The Events of an update, which changed the record from `before` to `after`.
pub fn news<D: Direction>(update: &Update<D>, before: &Record, after: &Record) -> Vec<News> {
    let normal = |reason: &str, message: String| News { severity: Severity::Normal, reason: reason.into(), message };
    let warning = |reason: &ReasonName, message: &str| News {
        severity: Severity::Warning,
        reason: reason.as_str().to_owned(),
        message: reason.advised(message),
    };
    let pod_before = before.mover.as_ref().map(|mover| &mover.pod);
    match update {
        Update::Moving(MoverProgress { pod, .. }) if pod_before != Some(pod) => {
            vec![normal("MoverStarted", format!("the mover {pod} runs"))]
        }
        Update::Moved(_) => {
            let mut all = vec![normal("Moved", moved(after))];
            all.extend(
                after
                    .problems
                    .as_ref()
                    .map(|problems| warning(&Reason::Incomplete.into(), &incomplete(problems.count, &problems.first))),
            );
            all
        }
        Update::Completed => vec![normal("Completed", "nothing is left to be done".into())],
        Update::Failed { reason, message } => vec![warning(reason, message)],
        Update::PartiallyFailed => vec![warning(&Reason::VeleroFailed.into(), VELERO_FAILED)],
        Update::Waiting { reason, message } => vec![warning(&(*reason).into(), message)],
        Update::Queued | Update::Started(_) | Update::Moving(_) | Update::Cleaning | Update::Settled => vec![],
    }
}

fn moved(record: &Record) -> String {
    let progress = record.mover.as_ref().map(|mover| mover.progress.clone()).unwrap_or_default();
    let mut message = match &record.snapshot {
        Some(id) => format!("snapshot {id}: "),
        None => String::new(),
    };
    let _ = write!(message, "{} bytes in {} files", progress.bytes_done, progress.files_done);
    if let Some(added) = progress.added_bytes {
        let _ = write!(message, ", of which {added} are new in the repository");
    }
    if record.is_empty_volume {
        message += "; the volume is empty";
    }
    message
}

/// The Event about an object, reported by the controller's pod. The apiserver generates its name,
/// which fits even if the object's own name has the maximum length.
pub fn event(news: News, about: ObjectReference, pod: &str, now: Time) -> Event {
    let metadata = ObjectMeta {
        generate_name: about.name.as_ref().map(|name| format!("{name}.")),
        namespace: about.namespace.clone(),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        involved_object: about,
        type_: Some(news.severity.name().to_owned()),
        reason: Some(news.reason),
        message: Some(shortened(news.message)),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: None }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(pod.to_owned()),
        ..Event::default()
    }
}

fn shortened(mut message: String) -> String {
    const REST: &str = "…";
    if message.len() > LONGEST {
        let end = (0..=LONGEST - REST.len()).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message += REST;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::record::{Problems, Progress};
    use crate::controller::testing::{Nothing, Plain, epoch};

    type PlainUpdate = Update<Plain>;

    fn of(update: &PlainUpdate, after: &Record) -> Vec<(Severity, String, String)> {
        let all = news(update, &Record::default(), after).into_iter();
        all.map(|news| (news.severity, news.reason, news.message)).collect()
    }

    fn one(update: &PlainUpdate, after: &Record) -> (Severity, String, String) {
        let mut all = of(update, after);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn moving(pod: &str) -> MoverProgress {
        MoverProgress { pod: pod.into(), ..MoverProgress::default() }
    }

    #[test]
    fn a_mover_is_announced_once_and_its_progress_is_not() {
        let none = Record::default();
        let first = PlainUpdate::Moving(moving("p-1"));
        assert_eq!(one(&first, &none), (Severity::Normal, "MoverStarted".into(), "the mover p-1 runs".into()));
        let runs = Record { mover: Some(moving("p-1")), ..Record::default() };
        assert!(news(&first, &runs, &runs).is_empty());
        assert_eq!(news(&PlainUpdate::Moving(moving("p-2")), &runs, &runs).len(), 1, "a second pod is announced");
        for silent in [PlainUpdate::Queued, PlainUpdate::Started(Nothing), PlainUpdate::Cleaning, PlainUpdate::Settled]
        {
            assert!(of(&silent, &none).is_empty());
        }
        assert_eq!(one(&PlainUpdate::Completed, &none).1, "Completed");
    }

    #[test]
    fn moved_data_has_its_figures_and_problems_are_a_warning() {
        let progress = Progress { bytes_done: 1000, files_done: 10, added_bytes: Some(7), ..Progress::default() };
        let mover = Some(MoverProgress { progress, ..moving("p") });
        let mut after = Record { mover, snapshot: Some("ab12".into()), ..Record::default() };
        let (severity, reason, message) = one(&PlainUpdate::Moved(Nothing), &after);
        assert_eq!((severity, &*reason), (Severity::Normal, "Moved"));
        assert!(["ab12", "1000 bytes", "10 files", "7 are new"].iter().all(|part| message.contains(part)), "{message}");
        after.problems = Some(Problems { count: 2, first: vec!["a/b: denied".into()] });
        let (severity, reason, message) = &of(&PlainUpdate::Moved(Nothing), &after)[1];
        assert_eq!((*severity, &**reason), (Severity::Warning, "Incomplete"));
        assert!(message.contains("2 entries") && message.contains("a/b: denied"), "{message}");
    }

    #[test]
    fn failures_are_warnings_with_advice() {
        let none = Record::default();
        let (severity, reason, message) = one(&PlainUpdate::failed(Reason::WrongPassword, "no key opens"), &none);
        assert_eq!((severity, &*reason), (Severity::Warning, "WrongPassword"));
        assert!(message.starts_with("no key opens (what to do: compare"), "{message}");
        assert_eq!(one(&PlainUpdate::PartiallyFailed, &none).1, "VeleroFailed");
        let refused = PlainUpdate::Waiting { reason: Reason::Forbidden, message: "jobs is forbidden".into() };
        let (severity, reason, message) = one(&refused, &none);
        assert_eq!((severity, &*reason), (Severity::Warning, "Forbidden"));
        assert!(message.contains("roles again"), "{message}");
    }

    #[test]
    fn an_event_fits_the_limits_of_the_apiserver() {
        let about = ObjectReference {
            name: Some("x".repeat(253)),
            namespace: Some("shop".into()),
            ..ObjectReference::default()
        };
        let news = News { severity: Severity::Warning, reason: "R".into(), message: "ä".repeat(2000) };
        let event = event(news, about, "vsm-1", epoch());
        let message = event.message.unwrap();
        assert!(message.len() <= 1024 && message.ends_with('…') && message.starts_with("ää"), "{}", message.len());
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"), "the namespace of its object");
        assert_eq!((event.type_.as_deref(), event.metadata.name), (Some("Warning"), None));
        assert_eq!(shortened("short".into()), "short");
    }
}
