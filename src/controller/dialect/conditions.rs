//! Status conditions: finds and sets the conditions of a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// When, and at which generation of the object, a status is written.
pub struct Now {
    pub time: Time,
    pub generation: Option<i64>,
}

/// The types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The last reconcile succeeded. Velero's plugin requires it.
    Reconciled,
    /// Data moves, or will.
    Progressing,
    /// The request has completed.
    Complete,
    /// The request has failed, or its data moved with problems.
    Degraded,
}

impl ConditionType {
    pub fn name(self) -> &'static str {
        match self {
            ConditionType::Reconciled => "Reconciled",
            ConditionType::Progressing => "Progressing",
            ConditionType::Complete => "Complete",
            ConditionType::Degraded => "Degraded",
        }
    }
}

/// The condition of a type.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.name())
}

/// The conditions of a status that is being written.
pub struct Conditions<'s> {
    pub all: &'s mut Vec<Condition>,
    pub now: &'s Now,
}

impl Conditions<'_> {
    pub fn set_true(&mut self, kind: ConditionType, reason: &str, message: &str) {
        self.set(kind, "True", reason, message);
    }

    pub fn set_false(&mut self, kind: ConditionType, reason: &str, message: &str) {
        self.set(kind, "False", reason, message);
    }

    /// The transition time changes only with the status of the condition.
    fn set(&mut self, kind: ConditionType, status: &str, reason: &str, message: &str) {
        let before = find(self.all, kind).filter(|before| before.status == status);
        let since = before.map(|before| before.last_transition_time.clone());
        let condition = Condition {
            type_: kind.name().into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: since.unwrap_or_else(|| self.now.time.clone()),
            observed_generation: self.now.generation,
        };
        match self.all.iter_mut().find(|condition| condition.type_ == kind.name()) {
            Some(place) => *place = condition,
            None => self.all.push(condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::{SignedDuration, Timestamp};

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let at = |seconds| Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds));
        let mut all = vec![];
        let mut times = vec![];
        for (seconds, holds, reason) in [(1, true, "A"), (2, true, "B"), (3, false, "C"), (4, true, "D")] {
            let now = Now { time: at(seconds), generation: Some(seconds) };
            let mut conditions = Conditions { all: &mut all, now: &now };
            if holds {
                conditions.set_true(ConditionType::Progressing, reason, "");
            } else {
                conditions.set_false(ConditionType::Progressing, reason, "");
            }
            let condition = find(&all, ConditionType::Progressing).expect("a condition");
            assert_eq!((&*condition.reason, condition.observed_generation), (reason, Some(seconds)));
            times.push(condition.last_transition_time.clone());
        }
        assert_eq!(times, [at(1), at(1), at(3), at(4)]);
        assert_eq!(all.len(), 1);
    }
}
