//! [`Location`]: a repository's address as restic writes it, taken apart.
//!
//! A folder is a path, with or without `local:`; an S3 bucket is `s3:` and an endpoint with or without a scheme (TLS
//! unless it says `http`), the bucket and an optional prefix; a container of Azure is `azure:`, its name, a colon, and an optional prefix.
//! Whatever else has a scheme is refused by name.
//! A location never carries credentials: a URL with some is refused, and the refusal does not repeat them.

use super::StoreError;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    Folder(PathBuf),
    S3(Bucket),
    Azure(Container),
}

/// A place in an S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whether the endpoint is reached by https (it is, unless the location says http).
    pub tls: bool,
    /// `host` or `host:port`.
    pub endpoint: String,
    pub name: String,
    /// Cleaned: no empty, `.` or `..` parts, no slash at either end; empty for the bucket's root.
    pub prefix: String,
}

/// A place in a container of Azure Blob Storage. Whose container it is, the credentials say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// As [`Bucket::prefix`].
    pub prefix: String,
}

impl Location {
    /// A place below this one; `path` has `/` between its parts, which are names.
    pub fn below(&self, path: &str) -> Location {
        match self {
            Location::Folder(folder) => Location::Folder(folder_below(folder, path)),
            Location::S3(bucket) => Location::S3(bucket.below(path)),
            Location::Azure(Container { name, prefix }) => {
                Location::Azure(Container { name: name.clone(), prefix: below(prefix, path) })
            }
        }
    }

    /// The name of the bucket or container, and what all names in it begin with; empty for a folder.
    pub(super) fn in_bucket(&self) -> (&str, &str) {
        match self {
            Location::Folder(_) => ("", ""),
            Location::S3(Bucket { name, prefix, .. }) | Location::Azure(Container { name, prefix }) => (name, prefix),
        }
    }

    /// The names that lead here, outermost first: of folders, or of what is in the bucket.
    pub fn parts(&self) -> Vec<String> {
        let path = match self {
            Location::Folder(folder) => folder.to_string_lossy(),
            Location::S3(_) | Location::Azure(_) => self.in_bucket().1.into(),
        };
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

impl Bucket {
    /// [`Location::below`]
    pub fn below(&self, path: &str) -> Bucket {
        Bucket { prefix: below(&self.prefix, path), ..self.clone() }
    }
}

fn below(prefix: &str, path: &str) -> String {
    let parts = [prefix, path].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("/")
}

/// [`Location::below`] of a folder.
pub(super) fn folder_below(folder: &Path, path: &str) -> PathBuf {
    if path.is_empty() { folder.to_owned() } else { folder.join(path) }
}

/// Schemes restic knows and we do not, with what a person can do about it.
const REFUSED: [(&str, &str); 6] = [
    (
        "gs",
        "Google Cloud Storage is not yet supported; its S3-compatible endpoint is: s3:https://storage.googleapis.com/BUCKET",
    ),
    ("sftp", "SFTP is not supported; mount the folder, or use an S3 endpoint"),
    ("rest", "the REST server is not supported; use a folder or an S3 endpoint"),
    ("rclone", "rclone remotes are not supported; use a folder or an S3 endpoint"),
    (
        "b2",
        "the native B2 protocol is not supported; B2 has an S3 endpoint: s3:https://s3.REGION.backblazeb2.com/BUCKET",
    ),
    ("swift", "Swift is not supported; use its S3 endpoint if there is one"),
];

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Location, StoreError> {
        parse(text).map_err(|reason| StoreError::Location { location: redact(text), reason })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => path.display().fmt(f),
            Location::S3(bucket) => bucket.fmt(f),
            Location::Azure(Container { name, prefix }) => write!(f, "azure:{name}:/{prefix}"),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "s3:{scheme}://{}/{}", self.endpoint, self.name)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        // What the parser of URLs would not take for itself is escaped, so that this can be given to it again.
        f.write_str("/")?;
        for c in self.prefix.chars() {
            match c {
                '%' | '?' | '#' => write!(f, "%{:02X}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Location, String> {
    if text.is_empty() {
        return Err("is empty; give a folder or s3:https://HOST/BUCKET/PREFIX".to_owned());
    }
    if text.contains('\0') {
        return Err("holds a null byte".to_owned());
    }
    // A colon after the first slash belongs to a file name, as it does for scp and rsync.
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| !scheme.contains('/')) else {
        return Ok(Location::Folder(text.into()));
    };
    match scheme {
        "local" if rest.is_empty() => Err("has no path after local:".to_owned()),
        "local" => Ok(Location::Folder(rest.into())),
        "s3" => bucket(rest).map(Location::S3),
        "azure" => container(rest).map(Location::Azure),
        _ => Err(match REFUSED.iter().find(|(name, _)| *name == scheme) {
            Some((_, why)) => (*why).to_owned(),
            None => format!("has the unknown scheme {scheme:?}; if it is a folder, write local:{scheme}:…"),
        }),
    }
}

/// What follows `s3:`.
fn bucket(text: &str) -> Result<Bucket, String> {
    let (tls, rest, url) = if let Some(rest) = text.strip_prefix("https://") {
        (true, rest, true)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, rest, true)
    } else {
        (true, text.strip_prefix("//").unwrap_or(text), false)
    };
    let (endpoint, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_endpoint(endpoint)?;
    // Only the forms that are URLs escape characters; the short forms hold the plain name.
    let path = if url { unescape(path)? } else { path.to_owned() };
    let mut parts = clean(&path)?.into_iter();
    let name = parts.next().ok_or("names no bucket; write s3:https://HOST/BUCKET/PREFIX")?;
    if name.contains(['?', '#', '%', ':', '@', ' ']) {
        return Err(format!("names the bucket {name:?}, which no bucket can be called"));
    }
    let prefix = parts.collect::<Vec<_>>().join("/");
    Ok(Bucket { tls, endpoint: endpoint.to_owned(), name, prefix })
}

/// What follows `azure:`. Unlike that of a URL, the prefix is the plain name.
fn container(text: &str) -> Result<Container, String> {
    let (name, path) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("names no container; write azure:CONTAINER:/PREFIX".to_owned());
    }
    // Azure's rule, but for hyphens side by side; `$root` and its like hold no directories.
    let is_right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(3..=63).contains(&name.len()) || !name.chars().all(is_right) || name.starts_with('-') || name.ends_with('-') {
        return Err(format!("names the container {name:?}, which no container can be called"));
    }
    // The root of the container is above every part.
    let parts = clean(&format!("{name}/{path}"))?;
    Ok(Container { name: name.to_owned(), prefix: parts[1..].join("/") })
}

/// `host` or `host:port`, where the host may be an IPv6 address in brackets.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.contains('@') {
        return Err("carries credentials; take them out and give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned());
    }
    let (host, port) = match endpoint.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => {
            if address.is_empty() || !address.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.')) {
                return Err("has a malformed IPv6 address".to_owned());
            }
            ("", after)
        }
        None => endpoint.split_at(endpoint.find(':').unwrap_or(endpoint.len())),
    };
    if endpoint.is_empty() || endpoint.starts_with(':') {
        return Err("names no host; write s3:https://HOST/BUCKET/PREFIX".to_owned());
    }
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return Err("has a host name with characters no host name has".to_owned());
    }
    let number = port.strip_prefix(':').map(str::parse::<u16>);
    if matches!(number, Some(Err(_) | Ok(0))) || (number.is_none() && !port.is_empty()) {
        return Err("has a port that is not a number from 1 to 65535".to_owned());
    }
    Ok(())
}

/// The parts of a path without the empty and `.` ones; `..` takes the part before it away, but not the bucket.
fn clean(path: &str) -> Result<Vec<String>, String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.len() < 2 => return Err("leaves its bucket by way of \"..\"".to_owned()),
            ".." => drop(parts.pop()),
            _ if part.chars().any(|c| c.is_ascii_control()) => return Err("holds a control character".to_owned()),
            _ => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

/// Undoes `%41` escapes.
fn unescape(path: &str) -> Result<String, String> {
    if path.contains(['?', '#']) {
        return Err("has a query or a fragment, which mean nothing here (write %3F and %23 in a name)".to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.ok_or("has a % that two hex digits do not follow")?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| "has escapes that are not UTF-8".to_owned())
}

/// The text without anything that could be a credential: all from the scheme to the last `@`. Secret keys may hold
/// slashes, so it is not enough to look at the host.
fn redact(text: &str) -> String {
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
    use super::*;

    fn s3(tls: bool, endpoint: &str, name: &str, prefix: &str) -> Location {
        Location::S3(Bucket { tls, endpoint: endpoint.into(), name: name.into(), prefix: prefix.into() })
    }

    #[test]
    fn accepts_the_forms_of_a_folder() {
        for (text, path) in [
            ("/srv/repo", "/srv/repo"),
            ("./repo", "./repo"),
            ("../repo", "../repo"),
            ("repo", "repo"),
            ("dir/a:b", "dir/a:b"),
            ("/srv/s3:x", "/srv/s3:x"),
            ("local:/srv/repo", "/srv/repo"),
            ("local:s3:odd name", "s3:odd name"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location, Location::Folder(path.into()), "{text}");
            assert_eq!(location.to_string(), path);
        }
    }

    #[test]
    fn accepts_the_forms_of_a_bucket() {
        for (text, expected, shown) in [
            ("s3:https://host/b", s3(true, "host", "b", ""), "s3:https://host/b"),
            ("s3:https://host:9000/b/", s3(true, "host:9000", "b", ""), "s3:https://host:9000/b"),
            (
                "s3:http://127.0.0.1:7070/b/p/q/",
                s3(false, "127.0.0.1:7070", "b", "p/q"),
                "s3:http://127.0.0.1:7070/b/p/q",
            ),
            ("s3:http://[::1]:7070/b", s3(false, "[::1]:7070", "b", ""), "s3:http://[::1]:7070/b"),
            ("s3:s3.amazonaws.com/b/p", s3(true, "s3.amazonaws.com", "b", "p"), "s3:https://s3.amazonaws.com/b/p"),
            ("s3://host/b//p/./q/../r", s3(true, "host", "b", "p/r"), "s3:https://host/b/p/r"),
            ("s3:host/b/100%", s3(true, "host", "b", "100%"), "s3:https://host/b/100%25"),
            ("s3:https://host/b/my%20dir", s3(true, "host", "b", "my dir"), "s3:https://host/b/my dir"),
            ("s3:https://host/b/me@work", s3(true, "host", "b", "me@work"), "s3:https://host/b/me@work"),
        ] {
            let location: Location = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(location, expected, "{text}");
            assert_eq!(location.to_string(), shown);
            assert_eq!(shown.parse::<Location>().unwrap(), expected);
        }
    }

    #[test]
    fn accepts_the_forms_of_a_container() {
        let azure = |prefix: &str| Location::Azure(Container { name: "backups-1".into(), prefix: prefix.into() });
        for (text, expected, shown) in [
            ("azure:backups-1:/", azure(""), "azure:backups-1:/"),
            ("azure:backups-1", azure(""), "azure:backups-1:/"),
            ("azure:backups-1:", azure(""), "azure:backups-1:/"),
            ("azure:backups-1:/a/b/", azure("a/b"), "azure:backups-1:/a/b"),
            ("azure:backups-1:a//./b", azure("a/b"), "azure:backups-1:/a/b"),
            ("azure:backups-1:/a:b %41", azure("a:b %41"), "azure:backups-1:/a:b %41"),
        ] {
            let location: Location = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((location.to_string().as_str(), &location), (shown, &expected), "{text}");
            assert_eq!(shown.parse::<Location>().unwrap(), expected);
            assert_eq!(location.below("x/y").parts().last().map(String::as_str), Some("y"));
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (text, why) in [
            ("", "is empty"),
            ("local:", "no path"),
            ("sftp:me@host:/repo", "SFTP is not supported"),
            ("rest:https://host/", "REST server is not supported"),
            ("rclone:remote:x", "rclone"),
            ("b2:bucket", "B2"),
            ("swift:container:/", "Swift"),
            ("gs:bucket:/", "not yet supported"),
            ("azure:", "names no container"),
            ("azure::/x", "names no container"),
            ("azure:Container:/x", "no container can be called"),
            ("azure:ab:/", "no container can be called"),
            ("azure:abc:/x/../..", "leaves its bucket"),
            ("azure:abc:/a\nb", "control"),
            ("ftp://host/x", "unknown scheme \"ftp\""),
            ("c:\\repo", "local:c:"),
            ("s3:", "names no host"),
            ("s3:https://", "names no host"),
            ("s3:https://:9000/b", "names no host"),
            ("s3:https://host", "names no bucket"),
            ("s3:https://host//", "names no bucket"),
            ("s3:host/..", "leaves its bucket"),
            ("s3:https://host/b/../..", "leaves its bucket"),
            ("s3:https://host:port/b", "port"),
            ("s3:https://host:0/b", "port"),
            ("s3:https://[::1/b", "characters"),
            ("s3:https://[::1]x/b", "port"),
            ("s3:https://ho st/b", "characters"),
            ("s3:https://host/b?x=1", "query"),
            ("s3:https://host/b/%4", "two hex digits"),
            ("s3:https://host/b/%ff", "UTF-8"),
            ("s3:https://host/b/a%0ab", "control"),
        ] {
            let error = text.parse::<Location>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

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
