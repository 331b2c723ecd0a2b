//! [`Environment`]: the environment variables of a store.

use std::collections::BTreeMap;
use std::fmt;

/// The variables that a store reads. The HTTP client reads some more itself: the proxies
/// (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), `SSL_CERT_FILE` and `GCE_METADATA_HOST`.
pub const VARIABLES: [&str; 30] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_ENDPOINT_URL_STS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_ACCOUNT_KEY",
    "AZURE_ACCOUNT_NAME",
    "AZURE_ACCOUNT_SAS",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLOUD_NAME",
    "AZURE_CREDENTIALS_FILE",
    "AZURE_ENDPOINT_SUFFIX",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "GOOGLE_ACCESS_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_PROJECT_ID",
    "HOME",
];

/// The values of [`VARIABLES`] when a store was opened.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Empty variables count as unset.
    pub fn of_process() -> Environment {
        let value = |name: &&str| std::env::var(name).ok().map(|value| ((*name).to_owned(), value));
        VARIABLES.iter().filter_map(value).collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not in the table");
        self.0.get(name).map(String::as_str)
    }

    /// Adds those of `more` that are in [`VARIABLES`] and not set yet.
    pub fn or<'p>(&self, more: impl Iterator<Item = (&'p str, &'p str)>) -> Environment {
        let mut all = self.clone();
        for (name, value) in more.filter(|(name, value)| VARIABLES.contains(name) && !value.is_empty()) {
            all.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        all
    }
}

/// Variables whose value is the path of a file.
pub const FILES: [&str; 6] = [
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CREDENTIALS_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Environment {
        Environment(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// Names only: the values are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Options;

    #[test]
    fn shows_no_secret() {
        let pair = ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned());
        let options = Options { environment: [pair].into_iter().collect(), ..Options::default() };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
