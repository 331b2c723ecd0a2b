//! [`PageTokens`]: ends a listing whose server returns the same pages again.

use super::failure::{Failure, Kind};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// The tokens of the pages of one listing, as 8 bytes each.
#[derive(Default)]
pub(super) struct PageTokens {
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl PageTokens {
    /// The token of the next page. An error if an earlier page had it, because the listing would
    /// never end.
    pub fn advance(&mut self, token: Option<String>) -> Result<Option<String>, Failure> {
        match &token {
            Some(token) if !self.seen.insert(self.hasher.hash_one(token)) => {
                Err(Failure::new(Kind::Final, "the server returned the same page of a listing twice"))
            }
            _ => Ok(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_of_pages_is_an_error() {
        let mut tokens = PageTokens::default();
        for token in ["a", "b", "c"] {
            assert_eq!(tokens.advance(Some(token.into())).unwrap().as_deref(), Some(token));
        }
        assert_eq!(tokens.advance(None).unwrap(), None);
        let failure = tokens.advance(Some("b".into())).unwrap_err();
        assert_eq!(failure.kind, Kind::Final);
    }
}
