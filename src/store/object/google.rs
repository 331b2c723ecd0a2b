//! Google Cloud Storage: the credentials, and the creation of a bucket.
//!
//! The variables are restic's. Credentials are looked up in restic's order, which is Google's own:
//! a token, the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the file that `gcloud` writes,
//! and last the identity of the machine or of the pod. The identity is requested only if the
//! endpoint is Google's own, because no other network answers.

use super::failure::{Failure, Kind};
use super::remote::{Connections, Make, Operator, Remote};
use super::transport::{Clients, Scheme, Transport, client_options, no_retries};
use crate::store::environment::Environment;
use crate::store::error::StoreError;
use crate::store::location::Bucket;
use crate::store::options::Options;
use object_store::Attributes;
use object_store::client::HttpRequestBody;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use serde::Deserialize;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Google's own endpoint.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// The default region of new buckets, which is restic's.
const DEFAULT_REGION: &str = "us";

/// The file that `gcloud auth application-default login` writes, below the home directory.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

/// Connects a bucket.
pub(super) fn remote(bucket: &Bucket, options: &Options) -> Result<Remote, StoreError> {
    let refused = |reason: String| StoreError::Location { location: bucket.to_string(), reason };
    let endpoint = options.google.endpoint.as_deref().unwrap_or(ENDPOINT);
    let operator = if endpoint == ENDPOINT { Operator::Cloud } else { Operator::Other };
    let credentials = Credentials::find(&options.environment, operator).map_err(refused)?;
    let failed = |source| StoreError::Failed {
        action: "connect to the bucket".to_owned(),
        location: bucket.to_string(),
        source,
    };
    let scheme = Scheme::of_url(endpoint);
    let clients = Arc::new(Clients::new(options, scheme).map_err(|reason| failed(reason.into()))?);
    let transport = Transport(clients);
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&bucket.name)
        .with_base_url(endpoint)
        .with_http_connector(transport.clone())
        .with_client_options(client_options(scheme))
        .with_retry(no_retries());
    let store = Arc::new(credentials.apply(builder).build().map_err(|error| failed(error.into()))?);
    let new = NewBucket {
        url: format!("{endpoint}/{}", bucket.name),
        project: options.environment.get("GOOGLE_PROJECT_ID").map(str::to_owned),
        region: options.google.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
    };
    let (made, new) = (store.clone(), Arc::new(new));
    let make: Make = Arc::new(move || {
        let (store, transport, new) = (made.clone(), transport.clone(), new.clone());
        Box::pin(async move { make_bucket(&store, &transport, &new).await })
    });
    Ok(Remote {
        pages: store.clone(),
        store,
        location: bucket.to_string(),
        place: bucket.clone(),
        connections: Connections::new(options.google.connections),
        packs: Attributes::new(),
        make: Some(make),
    })
}

/// How requests are authorized.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Token(String),
    /// The content of a service account's file.
    ServiceAccount(String),
    /// The path of a user's file.
    User(PathBuf),
    Machine,
}

/// The field of a credentials file that names the type of the credentials.
#[derive(Deserialize)]
struct Kinded {
    #[serde(rename = "type")]
    kind: String,
}

impl Credentials {
    /// The credentials for an endpoint.
    fn find(environment: &Environment, operator: Operator) -> Result<Credentials, String> {
        if let Some(token) = environment.get("GOOGLE_ACCESS_TOKEN") {
            return Ok(Credentials::Token(token.to_owned()));
        }
        if let Some(path) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
            let path = Path::new(path);
            let text = fs::read_to_string(path)
                .map_err(|error| format!("cannot read credentials from {}: {error}", path.display()))?;
            return Credentials::of_file(path, text);
        }
        if let Some(path) = environment.get("HOME").map(|home| Path::new(home).join(WELL_KNOWN)) {
            match fs::read_to_string(&path) {
                Ok(text) => return Credentials::of_file(&path, text),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(format!("cannot read credentials from {}: {error}", path.display())),
            }
        }
        if operator == Operator::Cloud {
            return Ok(Credentials::Machine);
        }
        Err("no credentials were found: set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_ACCESS_TOKEN".to_owned())
    }

    fn of_file(path: &Path, text: String) -> Result<Credentials, String> {
        let kind = serde_json::from_str::<Kinded>(&text).map(|file| file.kind);
        match kind.as_deref() {
            Ok("service_account") => Ok(Credentials::ServiceAccount(text)),
            Ok("authorized_user") => Ok(Credentials::User(path.to_owned())),
            Ok(kind) => Err(format!(
                "{} holds credentials of the type {kind:?}; only those of a service account and of a user are supported (in GKE, \
                 a pod's own identity needs no file)",
                path.display()
            )),
            // The parser's error may quote the file, which is secret.
            Err(_) => Err(format!("{} is not a Google credentials file", path.display())),
        }
    }

    fn apply(self, builder: GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder {
        match self {
            Credentials::Token(token) => builder.with_bearer_token(token),
            Credentials::ServiceAccount(text) => builder.with_service_account_key(text),
            Credentials::User(path) => builder.with_application_credentials(path.to_string_lossy()),
            Credentials::Machine => builder,
        }
    }
}

/// The parameters of a new bucket.
struct NewBucket {
    url: String,
    /// The project that pays for the bucket.
    project: Option<String>,
    region: String,
}

/// Creates the bucket. An existing bucket is a success; the next call shows whether it may be used.
async fn make_bucket(store: &GoogleCloudStorage, transport: &Transport, new: &NewBucket) -> Result<(), Failure> {
    let hopeless = |text: String| Failure::new(Kind::Final, text);
    let Some(project) = &new.project else {
        return Err(hopeless("a bucket is created in a project: set GOOGLE_PROJECT_ID".to_owned()));
    };
    let body = format!(
        "<CreateBucketConfiguration><LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
        new.region
    );
    let credential = store.credentials().get_credential().await?;
    let request = http::Request::put(&new.url)
        .header("content-length", body.len())
        .header("x-goog-project-id", project)
        .header("authorization", format!("Bearer {}", credential.bearer))
        .body(HttpRequestBody::from(body))
        .map_err(|error| hopeless(error.to_string()))?;
    transport.make(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operator::{Cloud, Other};

    fn find(pairs: &[(&str, &str)], operator: Operator) -> Result<Credentials, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Credentials::find(&pairs.collect(), operator)
    }

    #[test]
    fn credentials_come_in_googles_order() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let account = write("account.json", r#"{"type": "service_account"}"#);
        let user = write(WELL_KNOWN, r#"{"type": "authorized_user"}"#);
        let at_home = ("HOME", home.path().to_str().unwrap());
        let file = ("GOOGLE_APPLICATION_CREDENTIALS", account.as_str());
        let token = ("GOOGLE_ACCESS_TOKEN", "t");
        assert_eq!(find(&[at_home, file, token], Cloud), Ok(Credentials::Token("t".into())));
        let whole = Credentials::ServiceAccount(r#"{"type": "service_account"}"#.into());
        assert_eq!(find(&[at_home, file], Cloud), Ok(whole));
        assert_eq!(find(&[at_home], Cloud), Ok(Credentials::User(user.into())));
        assert_eq!(find(&[], Cloud), Ok(Credentials::Machine));
        assert!(find(&[], Other).unwrap_err().contains("no credentials were found"));
    }

    #[test]
    fn an_unusable_file_is_named_and_its_content_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        let path = path.to_str().unwrap();
        let given = [("GOOGLE_APPLICATION_CREDENTIALS", path)];
        assert!(find(&given, Cloud).unwrap_err().starts_with(&format!("cannot read credentials from {path}")));
        for (text, why) in
            [(r#"{"type": "external_account"}"#, "the type \"external_account\""), ("hush", "not a Google credentials")]
        {
            fs::write(path, text).unwrap();
            let error = find(&given, Cloud).unwrap_err();
            assert!(error.contains(path) && error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
