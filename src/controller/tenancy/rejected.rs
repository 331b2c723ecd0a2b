//! The rejection of a request: it fails, and is not retried.

use super::authorization::Denied;
use super::repository::Refused;
use crate::work::Reason;

/// Why a request is rejected.
#[derive(Debug)]
pub struct Rejected {
    pub reason: Reason,
    pub message: String,
}

impl Rejected {
    pub fn invalid(message: impl Into<String>) -> Rejected {
        Rejected { reason: Reason::Invalid, message: message.into() }
    }
}

impl From<Denied> for Rejected {
    fn from(denied: Denied) -> Rejected {
        Rejected { reason: Reason::Denied, message: denied.to_string() }
    }
}

impl From<Refused> for Rejected {
    fn from(refused: Refused) -> Rejected {
        Denied::from(refused).into()
    }
}
