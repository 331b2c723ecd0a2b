//! [`Failure`]: why one attempt at an object store failed, and whether another can help.
//!
//! The HTTP client turns every answer that is not a success into an [`Answer`] (see `transport`),
//! which the layers between wrap in their errors. This module extracts it, so that all decisions
//! rest on the status and the code that the server sent, and none on the wording of an error.

use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error;
use std::fmt;

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    /// The message for the user.
    pub text: String,
    /// Whether bytes arrived before the failure. If so, the next attempt continues behind them,
    /// with a new retry budget.
    pub progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No connection, or it was lost: the request may or may not have been carried out.
    Link,
    /// The server failed; a retry may succeed.
    Trouble,
    /// The server works and limits the rate of requests.
    Throttled,
    /// The object or its bucket does not exist; not every answer distinguishes the two.
    Missing {
        bucket: bool,
    },
    /// The object was to be created, but exists.
    Exists,
    /// The range that was asked for begins after the object's end.
    Range,
    /// The object ends before the end of the range that was asked for.
    Short {
        offset: u64,
        wanted: u64,
        got: u64,
    },
    /// The object is larger than the caller takes.
    TooLarge {
        size: u64,
        max: u64,
    },
    Denied,
    /// The server does not support the request.
    Unsupported,
    /// The run was interrupted before the request ended.
    Interrupted,
    /// Another attempt would fail in the same way.
    Final,
}

impl Failure {
    pub fn new(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into(), progress: false }
    }

    /// The same failure, after bytes arrived.
    pub fn after_progress(self) -> Failure {
        Failure { progress: true, ..self }
    }

    /// Whether another attempt may succeed.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, Kind::Link | Kind::Trouble | Kind::Throttled)
    }

    /// Whether this shows that the store itself was reached and answered.
    pub fn is_answer(&self) -> bool {
        !matches!(self.kind, Kind::Link | Kind::Trouble)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl From<Answer> for Failure {
    fn from(answer: Answer) -> Failure {
        Failure::new(answer.kind(), answer.to_string())
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Failure {
        if let Some(answer) = answer(&error) {
            return Failure::from(answer.clone());
        }
        // An error about one object within an answer about several has no `Answer` of its own.
        if let object_store::Error::NotFound { source, .. } = &error {
            return Failure::new(Kind::Missing { bucket: false }, source.to_string());
        }
        let mut link = None;
        let mut text: Vec<String> = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            if let Some(http) = cause.downcast_ref::<HttpError>() {
                link = Some(http.kind());
            }
            if let Some(advice) = tls_advice(cause) {
                return Failure::new(Kind::Final, advice);
            }
            text.push(cause.to_string());
            next = cause.source();
        }
        // The outer layers repeat the inner ones; the two innermost causes are the most precise.
        text.dedup();
        let text = text.split_off(text.len().saturating_sub(2)).join(": ");
        match link {
            Some(HttpErrorKind::Decode) | None => Failure::new(Kind::Final, text),
            Some(_) => Failure::new(Kind::Link, text),
        }
    }
}

/// Advice about an error of TLS that a retry would meet again; `None` for every other cause.
fn tls_advice(mut cause: &(dyn Error + 'static)) -> Option<String> {
    // The sources of an I/O error do not include the error that it wraps.
    while let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()) {
        cause = inner;
    }
    match cause.downcast_ref::<rustls::Error>()? {
        error @ rustls::Error::InvalidCertificate(_) => {
            Some(format!("{error}; if the endpoint has its own certificate authority, name the certificate (--cacert)"))
        }
        rustls::Error::InvalidMessage(_) => {
            Some("the endpoint does not speak TLS; if this is intended, write http:// in the location".to_owned())
        }
        _ => None,
    }
}

/// The server's answer among the causes of an error.
pub(super) fn answer(error: &object_store::Error) -> Option<&Answer> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(answer) = cause.downcast_ref::<Answer>() {
            return Some(answer);
        }
        next = cause.source();
    }
    None
}

/// An answer that is not a success.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// The standard phrase of the status, such as `Not Found`.
    pub phrase: &'static str,
    /// The error code of the protocol, such as `NoSuchKey`; answers to HEAD have none.
    pub code: String,
    pub message: String,
    /// The bucket's region, if the server named it.
    pub region: String,
}

impl Answer {
    /// Parses the error document that all large object stores send.
    pub fn new(status: u16, phrase: &'static str, region: &str, body: &str) -> Answer {
        let tag = |name| element(body, name).unwrap_or_default();
        let region = if region.is_empty() { tag("Region") } else { region.to_owned() };
        Answer { status, phrase, code: tag("Code"), message: tag("Message"), region }
    }

    /// Sets the code of a header, if the document had none.
    pub fn with_code(self, code: &str) -> Answer {
        if self.code.is_empty() { Answer { code: code.to_owned(), ..self } } else { self }
    }

    fn kind(&self) -> Kind {
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket" | "ContainerNotFound") => Kind::Missing { bucket: true },
            // A server may report an unknown key as XAdminUserNotFound with status 404.
            (_, "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "XAdminUserNotFound") => Kind::Denied,
            (404, "" | "NoSuchKey" | "BlobNotFound") => Kind::Missing { bucket: false },
            (
                _,
                "AuthenticationFailed"
                | "AuthorizationFailure"
                | "AuthorizationPermissionMismatch"
                | "InvalidAuthenticationInfo",
            ) => Kind::Denied,
            (_, "ConditionalRequestConflict" | "OperationAborted" | "ContainerBeingDeleted") => Kind::Trouble,
            (304 | 409 | 412, _) => Kind::Exists,
            (416, _) => Kind::Range,
            (429, _) | (_, "SlowDown" | "ServerBusy") => Kind::Throttled,
            (408, _) | (_, "RequestTimeout" | "InternalError" | "ServiceUnavailable") => Kind::Trouble,
            (401 | 403, _) => Kind::Denied,
            (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => Kind::Denied,
            (400 | 405 | 501 | 505, _) => Kind::Unsupported,
            (500.., _) => Kind::Trouble,
            _ => Kind::Final,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {} {}", self.status, self.phrase)?;
        if !self.code.is_empty() {
            write!(f, ": {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message.trim_end_matches('.'))?;
        }
        // Only redirections and malformed scopes concern the region.
        if matches!(self.status, 301 | 307 | 308 | 400) && !self.region.is_empty() {
            write!(f, "; the bucket is in region {0}: set s3.region={0}", self.region)?;
        }
        Ok(())
    }
}

impl Error for Answer {}

/// The text of the first element `name` in a document, at most 300 characters.
fn element(document: &str, name: &str) -> Option<String> {
    let after = document.split_once(&format!("<{name}>"))?.1;
    let text = after.split_once("</")?.0.trim();
    let escapes = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&#39;", "'")];
    let text = escapes.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain));
    Some(text.replace("&amp;", "&").chars().filter(|c| !c.is_control()).take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(code: &str) -> String {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>It &lt;failed&gt; &amp;c.</Message></Error>")
    }

    #[test]
    fn an_answer_is_judged_by_status_and_code() {
        for (status, code, kind) in [
            (404, "NoSuchKey", Kind::Missing { bucket: false }),
            (404, "", Kind::Missing { bucket: false }),
            (404, "NoSuchBucket", Kind::Missing { bucket: true }),
            (404, "XAdminUserNotFound", Kind::Denied),
            (404, "NoSuchThing", Kind::Final),
            (412, "PreconditionFailed", Kind::Exists),
            (409, "BlobAlreadyExists", Kind::Exists),
            (409, "ConditionalRequestConflict", Kind::Trouble),
            (416, "InvalidRange", Kind::Range),
            (503, "SlowDown", Kind::Throttled),
            (503, "", Kind::Trouble),
            (500, "InternalError", Kind::Trouble),
            (400, "RequestTimeout", Kind::Trouble),
            (400, "ExpiredToken", Kind::Denied),
            (403, "SignatureDoesNotMatch", Kind::Denied),
            (501, "NotImplemented", Kind::Unsupported),
            (301, "PermanentRedirect", Kind::Final),
        ] {
            assert_eq!(Answer::new(status, "", "", &document(code)).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn an_answer_reads_as_a_sentence() {
        let answer = Answer::new(403, "Forbidden", "", &document("AccessDenied"));
        assert_eq!(answer.to_string(), "the server answered 403 Forbidden: AccessDenied (It <failed> &c)");
        let answer = Answer::new(301, "Moved Permanently", "eu-west-1", "<html>");
        let expected =
            "the server answered 301 Moved Permanently; the bucket is in region eu-west-1: set s3.region=eu-west-1";
        assert_eq!(answer.to_string(), expected);
    }

    #[test]
    fn garbage_has_no_elements() {
        for document in ["", "<Code>", "<Code>x", "</Code><Code>"] {
            assert_eq!(element(document, "Code"), None, "{document}");
        }
    }
}
