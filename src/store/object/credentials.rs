//! Finds the credentials for an S3 endpoint in the usual sources, in the usual order.
//!
//! First come keys in the environment, then a profile of the shared credentials file, then the
//! tokens that a cluster mounts into a pod, then (at AWS only) the machine's own role. No other
//! network answers a request for that role, so that missing credentials would look like a stalled
//! store.

use super::remote::Operator;
use crate::store::environment::Environment;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Whether requests are signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    Required,
    Anonymous,
}

/// How requests are signed.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    Anonymous,
    Keys {
        id: String,
        secret: String,
        token: Option<String>,
    },
    /// A token that is exchanged for keys; the client keeps them fresh.
    Exchange(Vec<(AmazonS3ConfigKey, String)>),
    /// The role of the machine.
    Machine,
}

/// The variables of each exchange: those of the first list are required, the others optional.
type Exchange = (&'static [(&'static str, AmazonS3ConfigKey)], &'static [(&'static str, AmazonS3ConfigKey)]);
const EXCHANGES: [Exchange; 3] = [
    (
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
            ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
        ],
        &[
            ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
            ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
        ],
    ),
    (&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri)], &[]),
    (
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
        ],
        &[],
    ),
];

impl Credentials {
    /// The credentials for an endpoint.
    pub fn find(environment: &Environment, signing: Signing, operator: Operator) -> Result<Credentials, String> {
        if signing == Signing::Anonymous {
            return Ok(Credentials::Anonymous);
        }
        match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => {
                let token = environment.get("AWS_SESSION_TOKEN").map(str::to_owned);
                return Ok(Credentials::Keys { id: id.to_owned(), secret: secret.to_owned(), token });
            }
            (Some(_), None) => return Err("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not".to_owned()),
            (None, Some(_)) => return Err("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not".to_owned()),
            (None, None) => {}
        }
        if let Some(credentials) = profile(environment)? {
            return Ok(credentials);
        }
        for (needed, optional) in EXCHANGES {
            let value = |(name, key): &(&str, AmazonS3ConfigKey)| Some((*key, environment.get(name)?.to_owned()));
            if let Some(mut values) = needed.iter().map(value).collect::<Option<Vec<_>>>() {
                values.extend(optional.iter().filter_map(value));
                return Ok(Credentials::Exchange(values));
            }
        }
        if operator == Operator::Cloud && environment.get("AWS_EC2_METADATA_DISABLED") != Some("true") {
            return Ok(Credentials::Machine);
        }
        Err("no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE \
             (s3.unsafe-anonymous-auth=true sends requests unsigned)"
            .to_owned())
    }

    pub fn apply(self, builder: AmazonS3Builder) -> AmazonS3Builder {
        match self {
            Credentials::Anonymous => builder.with_skip_signature(true),
            Credentials::Keys { id, secret, token } => {
                let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                if let Some(token) = token { builder.with_token(token) } else { builder }
            }
            Credentials::Exchange(values) => {
                values.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value))
            }
            Credentials::Machine => builder,
        }
    }
}

/// The keys of a profile. A missing file or profile is an error only if the environment asks for
/// one.
fn profile(environment: &Environment) -> Result<Option<Credentials>, String> {
    let file = environment.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let asked = file.is_some() || environment.get("AWS_PROFILE").is_some();
    let home = || environment.get("HOME").map(|home| Path::new(home).join(".aws/credentials"));
    let Some(path) = file.or_else(home) else { return Ok(None) };
    let name = environment.get("AWS_PROFILE").unwrap_or("default");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if !asked && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot read credentials from {}: {error}", path.display())),
    };
    let Some(mut section) = section(&text, name) else {
        return if asked { Err(format!("{} has no profile {name:?}", path.display())) } else { Ok(None) };
    };
    match (section.remove("aws_access_key_id"), section.remove("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            Ok(Some(Credentials::Keys { id, secret, token: section.remove("aws_session_token") }))
        }
        _ => Err(format!(
            "profile {name:?} in {} lacks aws_access_key_id or aws_secret_access_key; only profiles with keys are \
             supported",
            path.display()
        )),
    }
}

/// The settings below `[name]`; later ones override earlier ones. Blanks and quotes around a value
/// are removed: no key contains them.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut inside = false;
    let mut found: Option<BTreeMap<String, String>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            let title = title.0.trim();
            inside = title == name || title.strip_prefix("profile ").is_some_and(|title| title.trim() == name);
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some(settings), Some((key, value))) = (inside, &mut found, line.split_once('=')) {
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            settings.insert(key.trim().to_ascii_lowercase(), value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operator::{Cloud, Other};

    const FILE: &str = "# mine\n[default]\naws_access_key_id = AK\naws_secret_access_key=\"S=K/+\"\n\n\
                        [work]\n; old\naws_access_key_id=WK\nAWS_SECRET_ACCESS_KEY = WS\naws_session_token = T\n\
                        region = x\n[role]\nrole_arn = arn:x\n";

    fn find(pairs: &[(&str, &str)], operator: Operator) -> Result<Credentials, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Credentials::find(&pairs.collect(), Signing::Required, operator)
    }

    fn keys(id: &str, secret: &str, token: Option<&str>) -> Credentials {
        Credentials::Keys { id: id.into(), secret: secret.into(), token: token.map(str::to_owned) }
    }

    #[track_caller]
    fn refused(pairs: &[(&str, &str)], why: &str) {
        let error = find(pairs, Other).err().expect("no credentials");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn keys_come_before_profiles() {
        let pairs = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_PROFILE", "none")];
        assert!(find(&pairs, Other).unwrap() == keys("a", "s", None));
        let pairs = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")];
        assert!(find(&pairs, Other).unwrap() == keys("a", "s", Some("t")));
        refused(&[("AWS_ACCESS_KEY_ID", "a")], "AWS_SECRET_ACCESS_KEY is not");
        refused(&[("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_ACCESS_KEY_ID", "")], "AWS_ACCESS_KEY_ID is not");
    }

    #[test]
    fn profiles_are_read_from_the_shared_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".aws/credentials");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, FILE).unwrap();
        let home = home.path().to_str().unwrap();
        let path = path.to_str().unwrap();
        assert!(find(&[("HOME", home)], Other).unwrap() == keys("AK", "S=K/+", None));
        assert!(find(&[("AWS_SHARED_CREDENTIALS_FILE", path)], Other).unwrap() == keys("AK", "S=K/+", None));
        let work = [("HOME", home), ("AWS_PROFILE", "work")];
        assert!(find(&work, Other).unwrap() == keys("WK", "WS", Some("T")));
        refused(&[("HOME", home), ("AWS_PROFILE", "missing")], "has no profile \"missing\"");
        refused(&[("HOME", home), ("AWS_PROFILE", "role")], "only profiles with keys");
        refused(&[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/c")], "cannot read credentials from /nowhere/c");
    }

    #[test]
    fn pods_and_machines_come_last() {
        let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token");
        let Ok(Credentials::Exchange(values)) = find(&[token, ("AWS_ROLE_ARN", "arn:x")], Other) else {
            panic!("a web identity")
        };
        assert_eq!(values.len(), 2);
        refused(&[token], "no credentials were found");
        assert!(find(&[], Cloud).unwrap() == Credentials::Machine);
        assert!(find(&[("AWS_EC2_METADATA_DISABLED", "true")], Cloud).is_err());
        assert!(
            Credentials::find(&Environment::default(), Signing::Anonymous, Cloud).unwrap() == Credentials::Anonymous
        );
    }
}
