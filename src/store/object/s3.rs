//! S3: the endpoint, the region, the credentials, and the creation of a bucket.
//!
//! The choices are restic's: the bucket's name is part of the path except for Amazon's and Google's
//! hosts, and the service is asked for an unknown region. Payloads are signed on https too, so that
//! the server checks every upload against our hash before it confirms it.

use super::credentials::{Credentials, Signing};
use super::failure::{self, Answer, Failure, Kind};
use super::remote::{Connections, Make, Operator, Remote};
use super::runtime::Runtimes;
use super::signing;
use super::transport::{Clients, Scheme, Transport, client_options, no_retries};
use crate::store::error::StoreError;
use crate::store::location::{Bucket, Endpoint};
use crate::store::options::BucketLookup;
use crate::store::options::Options;
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Attribute, Attributes, ObjectStore};
use reqwest::Method;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Amazon's oldest region, which services without regions accept, too.
const DEFAULT_REGION: &str = "us-east-1";

/// The timeout for looking up the bucket's region.
const REGION_PATIENCE: Duration = Duration::from_secs(10);

/// Connects a bucket.
pub(super) fn remote(
    bucket: &Bucket,
    endpoint: &Endpoint,
    options: &Options,
    runtimes: &Runtimes,
) -> Result<Remote, StoreError> {
    let clients =
        Arc::new(Clients::new(options, Scheme::from(endpoint)).map_err(|reason| failed(bucket, reason.into()))?);
    let given = |option: &str| options.environment.get(option).map(str::to_owned);
    let region = options.s3.region.clone();
    let region = region.or_else(|| given("AWS_DEFAULT_REGION")).or_else(|| given("AWS_REGION"));
    let region = match region.or_else(|| region_of_host(&endpoint.host)) {
        Some(region) => region,
        None => {
            let probe = build(bucket, endpoint, options, DEFAULT_REGION, &clients)?;
            let asked = async { tokio::time::timeout(REGION_PATIENCE, ask_region(&probe)).await };
            runtimes
                .block_on(asked)
                .ok()
                .and_then(std::result::Result::ok)
                .flatten()
                .unwrap_or_else(|| DEFAULT_REGION.to_owned())
        }
    };
    let store = Arc::new(build(bucket, endpoint, options, &region, &clients)?);
    let mut packs = Attributes::new();
    if let Some(class) = &options.s3.storage_class {
        packs.insert(Attribute::StorageClass, class.clone().into());
    }
    let made = store.clone();
    let make: Make = Arc::new(move || {
        let (store, clients, region) = (made.clone(), clients.clone(), region.clone());
        Box::pin(async move { make_bucket(&store, &clients, &region).await })
    });
    Ok(Remote {
        pages: store.clone(),
        store,
        place: bucket.clone(),
        location: bucket.to_string(),
        connections: Connections::new(options.s3.connections),
        packs,
        make: Some(make),
    })
}

fn failed(bucket: &Bucket, source: Box<dyn Error + Send + Sync>) -> StoreError {
    StoreError::Failed { action: "connect to the bucket".to_owned(), location: bucket.to_string(), source }
}

fn build(
    bucket: &Bucket,
    endpoint: &Endpoint,
    options: &Options,
    region: &str,
    clients: &Arc<Clients>,
) -> Result<AmazonS3, StoreError> {
    let operator = if is_amazon(host(&endpoint.host)) { Operator::Cloud } else { Operator::Other };
    let signing = if options.s3.anonymous { Signing::Anonymous } else { Signing::Required };
    let credentials = Credentials::find(&options.environment, signing, operator)
        .map_err(|reason| StoreError::Location { location: bucket.to_string(), reason })?;
    let (url, virtual_host) = url(endpoint, &bucket.name, options.s3.bucket_lookup, region);
    let builder = AmazonS3Builder::new()
        .with_endpoint(url)
        .with_virtual_hosted_style_request(virtual_host)
        .with_bucket_name(&bucket.name)
        .with_region(region)
        .with_http_connector(Transport(clients.clone()))
        .with_crypto_provider(Arc::new(signing::Provider))
        .with_client_options(client_options(Scheme::from(endpoint)))
        // Every server supports single deletes, and bulk deletes gain nothing here.
        .with_disable_bulk_delete(true)
        .with_retry(no_retries());
    // Amazon's buckets with object lock refuse an upload without a checksum header; other servers
    // may not support it.
    let builder = match operator {
        Operator::Cloud => builder.with_checksum_algorithm(Checksum::SHA256),
        Operator::Other => builder,
    };
    credentials.apply(builder).build().map_err(|error| failed(bucket, error.into()))
}

/// The endpoint's URL, and whether the bucket's name is part of its host.
fn url(endpoint: &Endpoint, bucket: &str, lookup: BucketLookup, region: &str) -> (String, bool) {
    let scheme = if endpoint.tls { "https" } else { "http" };
    let host = match endpoint.host.as_str() {
        "s3.amazonaws.com" if region.starts_with("cn-") => format!("s3.{region}.amazonaws.com.cn"),
        "s3.amazonaws.com" => format!("s3.{region}.amazonaws.com"),
        given => given.to_owned(),
    };
    let known = is_amazon(self::host(&host)) || self::host(&host) == "storage.googleapis.com";
    // A certificate for *.host does not cover names with dots in them.
    let fits = !(endpoint.tls && bucket.contains('.'));
    match lookup {
        BucketLookup::Dns => (format!("{scheme}://{bucket}.{host}"), true),
        BucketLookup::Auto if known && fits => (format!("{scheme}://{bucket}.{host}"), true),
        BucketLookup::Auto | BucketLookup::Path => (format!("{scheme}://{host}"), false),
    }
}

fn host(endpoint: &str) -> &str {
    match endpoint.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => endpoint,
    }
}

fn is_amazon(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|domain| host.ends_with(domain))
}

/// The region in one of Amazon's host names: `s3.REGION.amazonaws.com`, and older and rarer forms.
fn region_of_host(endpoint: &str) -> Option<String> {
    let name = host(endpoint);
    let name = name.strip_suffix(".cn").unwrap_or(name).strip_suffix(".amazonaws.com")?;
    let name = name.strip_prefix("s3-fips").or_else(|| name.strip_prefix("s3"))?.strip_prefix(['.', '-'])?;
    let region = name.strip_prefix("dualstack.").unwrap_or(name);
    // A region has at least three words, the last a number; any other name is another service.
    let last = region.rsplit_once('-').filter(|(words, _)| words.contains('-'))?.1;
    (last.parse::<u8>().is_ok() && !region.contains('.')).then(|| region.to_owned())
}

/// Looks up the bucket's region: services refuse a request in a wrong region and name the right
/// one. Any other failure recurs in the first call, with a better explanation.
async fn ask_region(store: &AmazonS3) -> Option<String> {
    // No object has this prefix, so that every answer is short.
    let nothing = Path::from("vsm-region-probe");
    let refusal = store.list(Some(&nothing)).next().await?.err()?;
    let region = failure::answer(&refusal)?.region.clone();
    let plain = region.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    (plain && !region.is_empty()).then_some(region)
}

/// Creates the bucket. An existing bucket is a success; the next call shows whether it may be used.
async fn make_bucket(store: &AmazonS3, clients: &Clients, region: &str) -> Result<(), Failure> {
    let url = store.signed_url(Method::PUT, &Path::ROOT, Duration::from_secs(300)).await?;
    let body = if region == DEFAULT_REGION {
        String::new()
    } else {
        format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    };
    let lost = |error: reqwest::Error| Failure::new(Kind::Link, error.without_url().to_string());
    let client = clients.get().map_err(|error| Failure::new(Kind::Final, error))?;
    let response = client.put(url).body(body).send().await.map_err(lost)?;
    let status = response.status();
    if status.is_success() || status.as_u16() == 409 {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    Err(Answer::new(status.as_u16(), status.canonical_reason().unwrap_or("status"), "", &text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_endpoint() {
        use BucketLookup::{Auto, Dns, Path};
        for (host, name, lookup, expected) in [
            ("minio:9000", "b", Auto, ("https://minio:9000", false)),
            ("minio:9000", "b", Dns, ("https://b.minio:9000", true)),
            ("s3.amazonaws.com", "b", Auto, ("https://b.s3.eu-west-3.amazonaws.com", true)),
            ("s3.amazonaws.com", "b.c", Auto, ("https://s3.eu-west-3.amazonaws.com", false)),
            ("s3.eu-west-3.amazonaws.com", "b", Path, ("https://s3.eu-west-3.amazonaws.com", false)),
            ("storage.googleapis.com", "b", Auto, ("https://b.storage.googleapis.com", true)),
            ("s3.amazonaws.com.example.org", "b", Auto, ("https://s3.amazonaws.com.example.org", false)),
            ("[::1]:7070", "b", Auto, ("https://[::1]:7070", false)),
        ] {
            let (url, virtual_host) = url(&Endpoint { tls: true, host: host.into() }, name, lookup, "eu-west-3");
            assert_eq!((url.as_str(), virtual_host), expected, "{host} {name} {lookup:?}");
        }
    }

    #[test]
    fn reads_the_region_off_amazons_host_names() {
        for (host, region) in [
            ("s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3-us-west-2.amazonaws.com:443", Some("us-west-2")),
            ("s3.dualstack.us-gov-east-1.amazonaws.com", Some("us-gov-east-1")),
            ("s3-fips.us-east-2.amazonaws.com", Some("us-east-2")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("s3.amazonaws.com", None),
            ("s3-accelerate.amazonaws.com", None),
            ("s3.eu-west-1.example.org", None),
            ("minio:9000", None),
        ] {
            assert_eq!(region_of_host(host).as_deref(), region, "{host}");
        }
    }
}
