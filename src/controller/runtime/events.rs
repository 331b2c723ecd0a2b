//! What people are told of a backup or restore beside its status: the events of the object. One is made when something is recorded, and
//! at no other time, so that there are no more of them than there are changes.

use crate::api::MoveStatus;
use crate::controller::domain::advice::advised;
use crate::controller::domain::flow::{self, Moving, Update, VELERO_FAILED};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::fmt::Write;

/// Who says it.
const COMPONENT: &str = "vsm-controller";
/// The longest message, in bytes: that of `events.k8s.io/v1`, through which the same events are read.
const LONGEST: usize = 1024;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    pub message: String,
}

/// What an update tells, and the status that it was made of and that it made.
pub fn news<S, D>(update: &Update<S, D>, before: &MoveStatus, after: &MoveStatus) -> Vec<News> {
    let tell = |warning, reason: &str, message: String| News { warning, reason: reason.to_owned(), message };
    match update {
        Update::Moving(Moving { pod, .. }) if before.mover_pod.as_ref() != Some(pod) => {
            vec![tell(false, "MoverStarted", format!("the mover {pod} runs"))]
        }
        Update::Moved(_) => {
            let mut told = vec![tell(false, "Moved", moved(after))];
            if let Some(problems) = &after.problems {
                let count = u64::try_from(problems.count).unwrap_or(0);
                let message = flow::incomplete(count, &problems.first);
                told.push(tell(true, "Incomplete", advised("Incomplete", &message)));
            }
            told
        }
        Update::Completed => vec![tell(false, "Completed", "nothing is left to be done".into())],
        Update::Failed { reason, message } => vec![tell(true, reason, advised(reason, message))],
        Update::PartiallyFailed => {
            vec![tell(true, "VeleroFailed", advised("VeleroFailed", VELERO_FAILED))]
        }
        Update::Waiting { reason, why } => vec![tell(true, reason, advised(reason, why))],
        Update::Queued | Update::Started(_) | Update::Moving(_) | Update::Cleaning | Update::Settled => vec![],
    }
}

fn moved(status: &MoveStatus) -> String {
    let progress = status.progress.clone().unwrap_or_default();
    let mut message = match &status.snapshot_id {
        Some(id) => format!("snapshot {id}: "),
        None => String::new(),
    };
    let _ = write!(message, "{} bytes in {} files", progress.bytes_done, progress.files_done);
    if let Some(added) = progress.added_bytes {
        let _ = write!(message, ", of which {added} are new in the repository");
    }
    if status.empty_volume == Some(true) {
        message += "; the volume is empty";
    }
    message
}

/// The event of an object, said by a pod of ours. It bears no name of its own: the apiserver gives one that fits, however long the
/// object's is.
pub fn event(news: News, about: ObjectReference, pod: &str, now: Time) -> Event {
    let metadata = ObjectMeta {
        generate_name: about.name.as_ref().map(|name| format!("{name}.")),
        namespace: about.namespace.clone(),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        involved_object: about,
        type_: Some(if news.warning { "Warning" } else { "Normal" }.into()),
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
    use crate::api::{Problems, Progress};
    use crate::controller::testing::epoch;

    type Plain = Update<(), ()>;

    fn told(update: &Plain, before: &MoveStatus, after: &MoveStatus) -> Vec<(bool, String, String)> {
        news(update, before, after).into_iter().map(|news| (news.warning, news.reason, news.message)).collect()
    }

    fn one(update: &Plain, after: &MoveStatus) -> (bool, String, String) {
        let mut all = told(update, &MoveStatus::default(), after);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn each_step_is_told_once() {
        let none = MoveStatus::default();
        let moving = Update::Moving(Moving { pod: "p-1".into(), progress: Progress::default() });
        assert_eq!(one(&moving, &none), (false, "MoverStarted".into(), "the mover p-1 runs".into()));
        let runs = MoveStatus { mover_pod: Some("p-1".into()), ..MoveStatus::default() };
        assert!(told(&moving, &runs, &runs).is_empty(), "how far it is is no news");
        let again = Update::Moving(Moving { pod: "p-2".into(), progress: Progress::default() });
        assert_eq!(told(&again, &runs, &runs).len(), 1, "a second pod is");
        for quiet in [Plain::Queued, Plain::Started(()), Plain::Cleaning, Plain::Settled] {
            assert!(told(&quiet, &none, &none).is_empty());
        }
        assert_eq!(one(&Plain::Completed, &none).1, "Completed");
    }

    #[test]
    fn what_was_moved_is_told_with_its_figures_and_what_was_not_with_a_warning() {
        let progress = Progress { bytes_done: 1000, files_done: 10, added_bytes: Some(7), ..Progress::default() };
        let mut after =
            MoveStatus { progress: Some(progress), snapshot_id: Some("ab12".into()), ..MoveStatus::default() };
        let (warning, reason, message) = one(&Plain::Moved(()), &after);
        assert_eq!((warning, &*reason), (false, "Moved"));
        assert!(["ab12", "1000 bytes", "10 files", "7 are new"].iter().all(|part| message.contains(part)), "{message}");
        after.problems = Some(Problems { count: 2, first: vec!["a/b: denied".into()] });
        let all = told(&Plain::Moved(()), &MoveStatus::default(), &after);
        let (warning, reason, message) = &all[1];
        assert!(*warning && reason == "Incomplete" && message.contains("2 entries") && message.contains("a/b: denied"));
    }

    #[test]
    fn failures_are_warnings_with_advice() {
        let failed = Plain::Failed { reason: "WrongPassword".into(), message: "no key opens".into() };
        let (warning, reason, message) = one(&failed, &MoveStatus::default());
        assert!(warning && reason == "WrongPassword" && message.starts_with("no key opens (what to do: compare"));
        assert_eq!(one(&Plain::PartiallyFailed, &MoveStatus::default()).1, "VeleroFailed");
        let refused = Plain::Waiting { reason: "Forbidden", why: "jobs is forbidden".into() };
        let (warning, reason, message) = one(&refused, &MoveStatus::default());
        assert!(warning && reason == "Forbidden" && message.contains("roles again"), "{message}");
    }

    #[test]
    fn an_event_is_as_the_apiserver_wants_it() {
        let about = ObjectReference {
            name: Some("x".repeat(253)),
            namespace: Some("shop".into()),
            ..ObjectReference::default()
        };
        let news = News { warning: true, reason: "R".into(), message: "ä".repeat(2000) };
        let event = event(news, about, "vsm-1", epoch());
        let message = event.message.unwrap();
        assert!(message.len() <= 1024 && message.ends_with('…') && message.starts_with("ää"), "{}", message.len());
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"), "where its object is");
        assert_eq!((event.type_.as_deref(), event.metadata.name), (Some("Warning"), None));
        assert_eq!(shortened("short".into()), "short");
    }
}
