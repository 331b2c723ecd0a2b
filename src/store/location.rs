//! [`Location`]: a repository's address as restic writes it.
//!
//! A folder is a path, with or without `local:`. An S3 bucket is `s3:` and an endpoint with or
//! without a scheme (TLS unless it is `http`), the bucket and an optional prefix. A container of
//! Azure is `azure:`, its name, a colon, and an optional prefix; a bucket of Google is `gs:` and
//! the same. Any other scheme is refused by name.
//!
//! A location never carries credentials: a URL with credentials is refused, and the error does not
//! repeat them.

mod display;
mod parse;
mod redact;
mod types;

pub(super) use types::folder_below;
pub use types::{Bucket, Endpoint, Location, Service};
