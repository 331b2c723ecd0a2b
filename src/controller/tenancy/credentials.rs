//! The credentials of a backup location: checks the secret that a request names, and selects the
//! keys that a mover is given.

use super::authorization;
use super::rejected::Rejected;
use super::repository::Base;
use crate::controller::config::Config;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Where repositories may be, and a mover's secrets.
#[derive(Debug)]
pub struct Credentials {
    pub base: Base,
    /// File names and contents, as a mover reads them.
    pub secrets: BTreeMap<String, ByteString>,
}

/// The secret and the namespace that a request names.
pub struct Named<'n> {
    pub secret: &'n str,
    pub protected_namespace: &'n str,
}

/// The name of the certificates among a mover's secrets.
const CA_FILE: &str = "ca.crt";

/// Checks the names in a request and the secret that was found by them. `prefix` is that of the
/// secret's backup location.
pub fn check(
    named: &Named<'_>,
    found: Option<&Secret>,
    prefix: &str,
    config: &Config,
) -> Result<Credentials, Rejected> {
    authorization::protected_namespace(named.protected_namespace, &config.namespace)?;
    let name = named.secret;
    let Some(secret) = found else {
        return Err(Rejected::invalid(format!("there is no secret {name:?} in namespace {}", config.namespace)));
    };
    authorization::secret(name, secret.labels(), &config.allowed_secrets)?;
    let data = secret.data.clone().unwrap_or_default();
    let bytes = data.iter().map(|(key, value)| (key.clone(), &value.0)).collect();
    let location = data.get("RESTIC_REPOSITORY").map(|location| String::from_utf8_lossy(&location.0));
    let base = Base::new(location.unwrap_or_default().trim(), prefix);
    let missing = authorization::missing_keys::<&Vec<u8>>(&bytes, base.as_ref().ok().map(Base::service));
    if !missing.is_empty() {
        let message = format!("the secret {name} lacks {}, or has it empty", missing.join(", "));
        return Err(Rejected::invalid(message));
    }
    let base = base?;
    let given = authorization::given(base.service()).iter();
    let secrets = given.filter_map(|key| Some(((*key).to_owned(), data.get(*key)?.clone())));
    let ca = data.get(authorization::CA_KEY).filter(|ca| !ca.0.is_empty()).map(|ca| (CA_FILE.to_owned(), ca.clone()));
    Ok(Credentials { base, secrets: secrets.chain(ca).collect() })
}
