//! Which bucket a request may use, and with what: its secret, looked at once and for both directions.

use crate::controller::domain::flow::{Common, Config, Instead, failed};
use crate::controller::tenancy::authorization::{self, Denied};
use crate::controller::tenancy::repository::{Base, Refused};
use k8s_openapi::ByteString;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Where repositories may be, and what a mover is given to reach them.
#[derive(Debug)]
pub struct Access {
    pub base: Base,
    /// As the files that a mover reads.
    pub secrets: BTreeMap<String, ByteString>,
}

/// Why a request is not carried out.
#[derive(Debug)]
pub struct Rejected {
    /// One word in CamelCase.
    pub reason: &'static str,
    pub message: String,
}

impl Rejected {
    pub fn invalid(message: impl Into<String>) -> Rejected {
        Rejected { reason: "Invalid", message: message.into() }
    }
}

impl From<Denied> for Rejected {
    fn from(denied: Denied) -> Rejected {
        Rejected { reason: "Denied", message: denied.to_string() }
    }
}

impl From<Refused> for Rejected {
    fn from(refused: Refused) -> Rejected {
        Denied::from(refused).into()
    }
}

impl<S, D> From<Rejected> for Instead<S, D> {
    fn from(Rejected { reason, message }: Rejected) -> Self {
        Box::new(failed(reason, message))
    }
}

/// The name of the certificates among a mover's secrets.
const CA_FILE: &str = "ca.crt";

/// Looks at the secret that a request names, and at the protected namespace.
pub fn look(seen: &Common, secret_name: &str, protected: &str, config: &Config) -> Result<Access, Rejected> {
    authorization::protected_namespace(protected, &config.namespace)?;
    let Some(secret) = &seen.secret else {
        let message = format!("there is no secret {secret_name:?} in namespace {}", config.namespace);
        return Err(Rejected::invalid(message));
    };
    authorization::secret(secret_name, secret.labels(), &config.allowed_secrets)?;
    let data = secret.data.clone().unwrap_or_default();
    let bytes = data.iter().map(|(key, value)| (key.clone(), &value.0)).collect();
    let location = data.get("RESTIC_REPOSITORY").map(|location| String::from_utf8_lossy(&location.0));
    let base = Base::new(location.unwrap_or_default().trim(), &seen.prefix);
    let missing = authorization::missing_keys::<&Vec<u8>>(&bytes, base.as_ref().ok().map(Base::service));
    if !missing.is_empty() {
        let message = format!("the secret {secret_name} lacks {}, or has it empty", missing.join(", "));
        return Err(Rejected::invalid(message));
    }
    let base = base?;
    let given = authorization::given(base.service()).iter();
    let secrets = given.filter_map(|key| Some(((*key).to_owned(), data.get(*key)?.clone())));
    let ca = data.get(authorization::CA_KEY).filter(|ca| !ca.0.is_empty()).map(|ca| (CA_FILE.to_owned(), ca.clone()));
    Ok(Access { base, secrets: secrets.chain(ca).collect() })
}
