//! Azure Blob Storage: the account, its credentials, and the creation of a container.
//!
//! The variables are restic's. Credentials are looked up in restic's order: the account's key, a
//! shared access signature, then the sources of Azure's own tools: a client's secret, the token
//! that a cluster mounts into a pod, and last the identity of the machine. The identity is
//! requested only if the endpoint is Azure's own, because no other network answers. Velero's
//! credentials file has the same values, some of them under other names.

use super::failure::{Failure, Kind};
use super::remote::{Connections, Make, Operator, Remote};
use super::transport::{Clients, Scheme, Transport, client_options, no_retries};
use crate::store::environment::Environment;
use crate::store::error::StoreError;
use crate::store::location::Bucket;
use crate::store::options::Options;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::azure::{AzureAuthorizer, AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequestBody;
use object_store::{Attribute, Attributes};
use std::fs;
use std::sync::Arc;

/// One of Azure's clouds.
struct Cloud {
    names: &'static [&'static str],
    /// The suffix of its host names.
    suffix: &'static str,
    /// The endpoint that issues tokens.
    authority: &'static str,
}

/// The public cloud comes first, because it is the default.
const CLOUDS: [Cloud; 3] = [
    Cloud {
        names: &["AzureCloud", "AzurePublicCloud"],
        suffix: "core.windows.net",
        authority: "https://login.microsoftonline.com",
    },
    Cloud {
        names: &["AzureUSGovernment", "AzureUSGovernmentCloud"],
        suffix: "core.usgovcloudapi.net",
        authority: "https://login.microsoftonline.us",
    },
    Cloud {
        names: &["AzureChinaCloud"],
        suffix: "core.chinacloudapi.cn",
        authority: "https://login.partner.microsoftonline.cn",
    },
];

/// Variables of Velero's file that restic names differently: Velero's name, then restic's.
const RENAMED: [(&str, &str); 2] =
    [("AZURE_STORAGE_ACCOUNT_ACCESS_KEY", "AZURE_ACCOUNT_KEY"), ("AZURE_STORAGE_KEY", "AZURE_ACCOUNT_KEY")];

/// Connects a container.
pub(super) fn remote(container: &Bucket, options: &Options) -> Result<Remote, StoreError> {
    let refused = |reason: String| StoreError::Location { location: container.to_string(), reason };
    let environment = &with_file(&options.environment).map_err(&refused)?;
    let account = environment
        .get("AZURE_ACCOUNT_NAME")
        .ok_or_else(|| refused("no storage account is named: set AZURE_ACCOUNT_NAME".to_owned()))?;
    let cloud = cloud(environment).map_err(&refused)?;
    let endpoint = match &options.azure.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => endpoint(environment, cloud, account).map_err(&refused)?,
    };
    let operator = if options.azure.endpoint.is_none() { Operator::Cloud } else { Operator::Other };
    let credentials = Credentials::find(environment, operator).map_err(&refused)?;
    let scheme = Scheme::of_url(&endpoint);
    let failed = |source| StoreError::Failed {
        action: "connect to the container".to_owned(),
        location: container.to_string(),
        source,
    };
    let clients = Arc::new(Clients::new(options, scheme).map_err(|reason| failed(reason.into()))?);
    let transport = Transport(clients);
    let builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&container.name)
        .with_endpoint(endpoint.clone())
        .with_http_connector(transport.clone())
        .with_config(AzureConfigKey::AuthorityHost, environment.get("AZURE_AUTHORITY_HOST").unwrap_or(cloud.authority))
        .with_client_options(client_options(scheme))
        .with_retry(no_retries());
    let store = credentials.apply(builder).build().map_err(|error| failed(error.into()))?;
    let store = Arc::new(store);
    let mut packs = Attributes::new();
    if let Some(tier) = &options.azure.access_tier {
        packs.insert(Attribute::StorageClass, tier.clone().into());
    }
    let (made, url, account) = (store.clone(), format!("{endpoint}/{}", container.name), account.to_owned());
    let make: Make = Arc::new(move || {
        let (store, transport, url, account) = (made.clone(), transport.clone(), url.clone(), account.clone());
        Box::pin(async move { make_container(&store, &transport, &url, &account).await })
    });
    Ok(Remote {
        pages: store.clone(),
        store,
        location: container.to_string(),
        place: container.clone(),
        connections: Connections::new(options.azure.connections),
        packs,
        make: Some(make),
    })
}

/// Adds the variables of Velero's credentials file, which `AZURE_CREDENTIALS_FILE` names: a
/// variable and its value in each line.
fn with_file(environment: &Environment) -> Result<Environment, String> {
    let Some(path) = environment.get("AZURE_CREDENTIALS_FILE") else { return Ok(environment.clone()) };
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read credentials from {path}: {error}"))?;
    let lines = text.lines().map(|line| line.trim().trim_start_matches("export ").trim());
    let pairs = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Ok(environment.or(pairs.map(|(name, value)| {
        let name = name.trim();
        let ours = RENAMED.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours);
        (ours, value.trim().trim_matches(['"', '\'']))
    })))
}

/// The one of [`CLOUDS`] that the environment names.
fn cloud(environment: &Environment) -> Result<&'static Cloud, String> {
    let Some(named) = environment.get("AZURE_CLOUD_NAME") else { return Ok(&CLOUDS[0]) };
    let known = CLOUDS.iter().find(|cloud| cloud.names.iter().any(|name| name.eq_ignore_ascii_case(named)));
    known.ok_or_else(|| {
        let names: Vec<&str> = CLOUDS.iter().flat_map(|cloud| cloud.names).copied().collect();
        format!("AZURE_CLOUD_NAME is {named:?}; it must be one of {}", names.join(", "))
    })
}

/// The URL of the account's blob service.
fn endpoint(environment: &Environment, cloud: &Cloud, account: &str) -> Result<String, String> {
    // The account and the suffix become parts of a host name.
    let is_right = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'));
    let suffix = environment.get("AZURE_ENDPOINT_SUFFIX").unwrap_or(cloud.suffix);
    if !is_right(account) || account.contains(['.', ':']) {
        return Err("AZURE_ACCOUNT_NAME is not a valid account name".to_owned());
    }
    if !is_right(suffix) {
        return Err("AZURE_ENDPOINT_SUFFIX is not a valid host name suffix".to_owned());
    }
    Ok(format!("https://{account}.blob.{suffix}"))
}

/// How requests are signed.
#[derive(Debug, PartialEq, Eq)]
enum Credentials<'e> {
    Key(&'e str),
    Signature(&'e str),
    Client {
        tenant: &'e str,
        id: &'e str,
        secret: &'e str,
    },
    Federated {
        tenant: &'e str,
        id: &'e str,
        token_file: &'e str,
    },
    /// The identity of the machine, or the one of this id if it has several.
    Machine(Option<&'e str>),
}

impl<'e> Credentials<'e> {
    /// The credentials for an endpoint.
    fn find(environment: &'e Environment, operator: Operator) -> Result<Credentials<'e>, String> {
        let get = |name| environment.get(name);
        if let Some(key) = get("AZURE_ACCOUNT_KEY") {
            // Checked here, because the server would only report a signature that does not match.
            STANDARD
                .decode(key)
                .map_err(|_| "AZURE_ACCOUNT_KEY is not base64; set it to a key of the account".to_owned())?;
            return Ok(Credentials::Key(key));
        }
        if let Some(signature) = get("AZURE_ACCOUNT_SAS") {
            return Ok(Credentials::Signature(signature.trim_start_matches('?')));
        }
        let id = get("AZURE_CLIENT_ID");
        match (get("AZURE_TENANT_ID"), id, get("AZURE_CLIENT_SECRET"), get("AZURE_FEDERATED_TOKEN_FILE")) {
            (Some(tenant), Some(id), Some(secret), _) => Ok(Credentials::Client { tenant, id, secret }),
            (Some(tenant), Some(id), None, Some(token_file)) => Ok(Credentials::Federated { tenant, id, token_file }),
            (_, _, Some(_), _) => {
                Err("AZURE_CLIENT_SECRET is set, but AZURE_TENANT_ID or AZURE_CLIENT_ID is not".to_owned())
            }
            (_, _, None, Some(_)) => {
                Err("AZURE_FEDERATED_TOKEN_FILE is set, but AZURE_TENANT_ID or AZURE_CLIENT_ID is not".to_owned())
            }
            (_, id, None, None) if operator == Operator::Cloud => Ok(Credentials::Machine(id)),
            _ => Err("no credentials were found: set AZURE_ACCOUNT_KEY or AZURE_ACCOUNT_SAS".to_owned()),
        }
    }

    fn apply(self, builder: MicrosoftAzureBuilder) -> MicrosoftAzureBuilder {
        match self {
            Credentials::Key(key) => builder.with_access_key(key),
            Credentials::Signature(signature) => builder.with_config(AzureConfigKey::SasKey, signature),
            Credentials::Client { tenant, id, secret } => builder.with_client_secret_authorization(id, secret, tenant),
            Credentials::Federated { tenant, id, token_file } => {
                builder.with_tenant_id(tenant).with_client_id(id).with_federated_token_file(token_file)
            }
            Credentials::Machine(Some(id)) => builder.with_client_id(id),
            Credentials::Machine(None) => builder,
        }
    }
}

/// Creates the container.
async fn make_container(
    store: &MicrosoftAzure,
    transport: &Transport,
    url: &str,
    account: &str,
) -> Result<(), Failure> {
    let hopeless = |text: String| Failure::new(Kind::Final, text);
    let credential = store.credentials().get_credential().await?;
    let mut request = http::Request::put(format!("{url}?restype=container"))
        .header("content-length", "0")
        .body(HttpRequestBody::empty())
        .map_err(|error| hopeless(error.to_string()))?;
    AzureAuthorizer::new(&credential, account).try_authorize(&mut request)?;
    transport.make(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operator::{Cloud, Other};

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn credentials_come_in_restics_order() {
        let all = environment(&[
            ("AZURE_ACCOUNT_KEY", "c2VjcmV0"),
            ("AZURE_ACCOUNT_SAS", "?sv=1&sig=x"),
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_CLIENT_SECRET", "s"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ]);
        let names = ["AZURE_ACCOUNT_KEY", "AZURE_ACCOUNT_SAS", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"];
        let without = |count: usize| {
            let left = [
                "AZURE_ACCOUNT_KEY",
                "AZURE_ACCOUNT_SAS",
                "AZURE_TENANT_ID",
                "AZURE_CLIENT_ID",
                "AZURE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE",
            ];
            let left = left.into_iter().filter(|name| !names[..count].contains(name));
            left.map(|name| (name.to_owned(), all.get(name).unwrap().to_owned())).collect::<Environment>()
        };
        assert_eq!(Credentials::find(&without(0), Cloud), Ok(Credentials::Key("c2VjcmV0")));
        assert_eq!(Credentials::find(&without(1), Cloud), Ok(Credentials::Signature("sv=1&sig=x")));
        let (tenant, id) = ("t", "c");
        assert_eq!(Credentials::find(&without(2), Other), Ok(Credentials::Client { tenant, id, secret: "s" }));
        let federated = Credentials::Federated { tenant, id, token_file: "/token" };
        assert_eq!(Credentials::find(&without(3), Other), Ok(federated));
        assert_eq!(Credentials::find(&without(4), Cloud), Ok(Credentials::Machine(Some("c"))));
        assert!(Credentials::find(&without(4), Other).unwrap_err().contains("no credentials were found"));
    }

    #[test]
    fn incomplete_credentials_are_an_error() {
        for (pairs, why) in [
            (&[("AZURE_ACCOUNT_KEY", "not base64!")][..], "not base64"),
            (&[("AZURE_CLIENT_SECRET", "s")], "AZURE_TENANT_ID or AZURE_CLIENT_ID is not"),
            (&[("AZURE_FEDERATED_TOKEN_FILE", "/token"), ("AZURE_TENANT_ID", "t")], "AZURE_CLIENT_ID is not"),
        ] {
            let environment = environment(pairs);
            let error = Credentials::find(&environment, Cloud).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_endpoint_follows_from_the_account() {
        let at = |pairs: &[(&str, &str)], account| {
            let environment = environment(pairs);
            endpoint(&environment, cloud(&environment)?, account)
        };
        assert_eq!(at(&[], "acc1").unwrap(), "https://acc1.blob.core.windows.net");
        let china = "https://acc1.blob.core.chinacloudapi.cn";
        assert_eq!(at(&[("AZURE_ENDPOINT_SUFFIX", "core.chinacloudapi.cn")], "acc1").unwrap(), china);
        assert_eq!(at(&[("AZURE_CLOUD_NAME", "AzureChinaCloud")], "acc1").unwrap(), china);
        assert!(at(&[("AZURE_CLOUD_NAME", "AzureMoon")], "acc1").unwrap_err().contains("AzureUSGovernment"));
        assert!(at(&[], "acc1/../x").is_err() && at(&[], "a.b").is_err());
        assert!(at(&[("AZURE_ENDPOINT_SUFFIX", "x/y")], "a").is_err());
    }

    /// The form is that of the examples of velero-plugin-for-microsoft-azure.
    #[test]
    fn veleros_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloud");
        let text = "# mine\nAZURE_SUBSCRIPTION_ID=s\nAZURE_TENANT_ID = \"t\"\nAZURE_CLIENT_ID=c\nexport AZURE_CLIENT_SECRET=a=b\n\n\
                    AZURE_CLOUD_NAME=AzurePublicCloud\nAZURE_STORAGE_ACCOUNT_ACCESS_KEY=c2VjcmV0\n";
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let whole = with_file(&environment(&[("AZURE_CREDENTIALS_FILE", path), ("AZURE_TENANT_ID", "mine")])).unwrap();
        let get = |name| whole.get(name).unwrap();
        assert_eq!((get("AZURE_TENANT_ID"), get("AZURE_CLIENT_ID"), get("AZURE_CLIENT_SECRET")), ("mine", "c", "a=b"));
        assert_eq!(Credentials::find(&whole, Cloud), Ok(Credentials::Key("c2VjcmV0")));
        let nowhere = environment(&[("AZURE_CREDENTIALS_FILE", "/nowhere/cloud")]);
        assert!(with_file(&nowhere).unwrap_err().contains("cannot read credentials from /nowhere/cloud"));
    }
}
