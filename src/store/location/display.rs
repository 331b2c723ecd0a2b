//! A location as text, which can be parsed again.

use super::parse::parse;
use super::types::{Bucket, Endpoint, Location, Service};
use std::fmt::{self, Write};

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => {
                let text = path.display().to_string();
                // A path like `a:b` would be parsed as a scheme.
                let again = parse(&text).is_ok_and(|again| again == *self);
                write!(f, "{}{text}", if again { "" } else { "local:" })
            }
            Location::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bucket { service, name, prefix } = self;
        let Endpoint { tls, host } = match service {
            Service::S3(endpoint) => endpoint,
            Service::Azure => return write!(f, "azure:{name}:/{prefix}"),
            Service::Google => return write!(f, "gs:{name}:/{prefix}"),
        };
        write!(f, "s3:{}://{host}/{name}", if *tls { "https" } else { "http" })?;
        if prefix.is_empty() {
            return Ok(());
        }
        // Characters that have a meaning in a URL are escaped, so that the text can be parsed
        // again.
        f.write_str("/")?;
        for c in prefix.chars() {
            match c {
                '%' | '?' | '#' => write!(f, "%{:02X}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
