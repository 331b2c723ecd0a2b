//! Keeps credentials out of errors.

/// The text without anything that could be a credential: everything from the scheme to the last
/// `@`. Secret keys may contain slashes, so that looking at the host is not enough.
pub(super) fn redact(text: &str) -> String {
    let Some((_, after)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = match (text.find("://"), text.find(':')) {
        (Some(end), _) => &text[..end + 3],
        (None, Some(end)) => &text[..=end],
        (None, None) => return text.to_owned(),
    };
    format!("{scheme}***@{after}")
}

#[cfg(test)]
mod tests {
    use crate::store::location::Location;

    #[test]
    fn never_repeats_a_credential() {
        for text in [
            "s3:https://AKIA:HUSH@host/b",
            "s3:https://AKIA:HU/SH@host/b",
            "s3:https://AKIA:HUSH@x@host/b",
            "s3:AKIA:HUSH@host/b",
            "rest:https://AKIA:HUSH@host/",
            "sftp:AKIA:HUSH@host:/x",
            "ftp://AKIA:HUSH@host/",
        ] {
            let error = text.parse::<Location>().expect_err(text);
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains("HU") && !shown.contains("AKIA") && shown.contains("***@"), "{text}: {shown}");
            }
        }
    }
}
