//! Parses a location from the text that the user writes.

use super::redact::redact;
use super::types::{Bucket, Endpoint, Location, Service};
use crate::store::error::StoreError;
use std::str::FromStr;

/// Schemes that restic supports and we do not, each with the alternative.
const REFUSED: [(&str, &str); 5] = [
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

pub(super) fn parse(text: &str) -> Result<Location, String> {
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
        "s3" => s3(rest).map(Location::Bucket),
        "azure" => azure(rest).map(Location::Bucket),
        "gs" => google(rest).map(Location::Bucket),
        _ => Err(match REFUSED.iter().find(|(name, _)| *name == scheme) {
            Some((_, why)) => (*why).to_owned(),
            None => format!("has the unknown scheme {scheme:?}; if it is a folder, write local:{scheme}:…"),
        }),
    }
}

/// Parses the text after `s3:`.
fn s3(text: &str) -> Result<Bucket, String> {
    let (tls, rest, url) = if let Some(rest) = text.strip_prefix("https://") {
        (true, rest, true)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, rest, true)
    } else {
        (true, text.strip_prefix("//").unwrap_or(text), false)
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_endpoint(host)?;
    // Only the forms that are URLs escape characters; the short forms hold the plain name.
    let path = if url { unescape(path)? } else { path.to_owned() };
    let mut parts = clean(&path)?.into_iter();
    let name = parts.next().ok_or("names no bucket; write s3:https://HOST/BUCKET/PREFIX")?;
    if name.contains(['?', '#', '%', ':', '@', ' ']) {
        return Err(format!("names the bucket {name:?}, which is not a valid bucket name"));
    }
    let prefix = parts.collect::<Vec<_>>().join("/");
    Ok(Bucket { service: Service::S3(Endpoint { tls, host: host.to_owned() }), name, prefix })
}

/// Parses the text after `azure:`.
fn azure(text: &str) -> Result<Bucket, String> {
    // Azure's rule, except that adjacent hyphens are accepted. `$root` and other special
    // containers are refused: they hold no directories.
    let is_right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    named(Service::Azure, "azure", "container", text, |name| {
        (3..=63).contains(&name.len()) && name.chars().all(is_right) && !name.starts_with('-') && !name.ends_with('-')
    })
}

/// Parses the text after `gs:`.
fn google(text: &str) -> Result<Bucket, String> {
    // Google's rule; names with dots, which are domain names, may be longer.
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_right = |c: char| is_end(c) || matches!(c, '-' | '_' | '.');
    named(Service::Google, "gs", "bucket", text, |name| {
        let fits = (3..=222).contains(&name.len()) && name.split('.').all(|part| part.len() <= 63);
        fits && name.chars().all(is_right) && name.starts_with(is_end) && name.ends_with(is_end)
    })
}

/// Parses a name, a colon, and a prefix. Unlike in a URL, the prefix has no escapes.
fn named(
    service: Service,
    scheme: &str,
    what: &str,
    text: &str,
    is_name: impl Fn(&str) -> bool,
) -> Result<Bucket, String> {
    let (name, path) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() || name.starts_with('/') {
        return Err(format!("names no {what}; write {scheme}:{}:/PREFIX", what.to_ascii_uppercase()));
    }
    if !is_name(name) {
        return Err(format!("names the {what} {name:?}, which is not a valid {what} name"));
    }
    // With the name as the first part, `..` cannot leave the bucket.
    let parts = clean(&format!("{name}/{path}"))?;
    Ok(Bucket { service, name: name.to_owned(), prefix: parts[1..].join("/") })
}

/// Checks `host` or `host:port`, where the host may be an IPv6 address in brackets.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.contains('@') {
        return Err("contains credentials; remove them, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
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
        return Err("has a host name with invalid characters".to_owned());
    }
    let number = port.strip_prefix(':').map(str::parse::<u16>);
    if matches!(number, Some(Err(_) | Ok(0))) || (number.is_none() && !port.is_empty()) {
        return Err("has a port that is not a number from 1 to 65535".to_owned());
    }
    Ok(())
}

/// The parts of a path without the empty and `.` ones; `..` removes the part before it, but never
/// the bucket.
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

/// Decodes escapes such as `%41`.
fn unescape(path: &str) -> Result<String, String> {
    if path.contains(['?', '#']) {
        return Err("has a query or a fragment, which is not supported (in a name, write %3F and %23)".to_owned());
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
        bytes.push(code.ok_or("has a % without two hex digits after it")?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| "has escapes that are not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(tls: bool, host: &str, name: &str, prefix: &str) -> Location {
        let service = Service::S3(Endpoint { tls, host: host.into() });
        Location::Bucket(Bucket { service, name: name.into(), prefix: prefix.into() })
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
            assert_eq!(location.to_string(), if path.starts_with("s3:") { text } else { path });
            assert_eq!(location.to_string().parse::<Location>().unwrap(), location);
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
    fn accepts_the_forms_of_azure_and_google() {
        let bucket = |service, name: &str, prefix: &str| {
            Location::Bucket(Bucket { service, name: name.into(), prefix: prefix.into() })
        };
        let azure = |prefix| bucket(Service::Azure, "backups-1", prefix);
        let google = |prefix| bucket(Service::Google, "my_backups.example.org", prefix);
        for (text, expected, shown) in [
            ("azure:backups-1:/", azure(""), "azure:backups-1:/"),
            ("azure:backups-1", azure(""), "azure:backups-1:/"),
            ("azure:backups-1:", azure(""), "azure:backups-1:/"),
            ("azure:backups-1:/a/b/", azure("a/b"), "azure:backups-1:/a/b"),
            ("azure:backups-1:a//./b", azure("a/b"), "azure:backups-1:/a/b"),
            ("azure:backups-1:/a:b %41", azure("a:b %41"), "azure:backups-1:/a:b %41"),
            ("gs:my_backups.example.org:/", google(""), "gs:my_backups.example.org:/"),
            ("gs:my_backups.example.org:a//b/", google("a/b"), "gs:my_backups.example.org:/a/b"),
        ] {
            let location: Location = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((location.to_string().as_str(), &location), (shown, &expected), "{text}");
            assert_eq!(shown.parse::<Location>().unwrap(), expected);
            assert_eq!(location.below("x/y").parts().last().map(String::as_str), Some("y"));
        }
    }

    #[test]
    fn refuses_invalid_locations_with_a_reason() {
        for (text, why) in [
            ("", "is empty"),
            ("local:", "no path"),
            ("sftp:me@host:/repo", "SFTP is not supported"),
            ("rest:https://host/", "REST server is not supported"),
            ("rclone:remote:x", "rclone"),
            ("b2:bucket", "B2"),
            ("swift:container:/", "Swift"),
            ("gs:", "names no bucket"),
            ("gs://bucket/x", "names no bucket"),
            ("gs:Bucket:/", "not a valid bucket name"),
            ("gs:bucket/x", "not a valid bucket name"),
            ("gs:-bucket:/", "not a valid bucket name"),
            ("gs:bucket:/..", "leaves its bucket"),
            ("azure:", "names no container"),
            ("azure::/x", "names no container"),
            ("azure:Container:/x", "not a valid container name"),
            ("azure:ab:/", "not a valid container name"),
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
}
