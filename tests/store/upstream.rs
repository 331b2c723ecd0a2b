//! Runs the conformance functions of the `object_store` crate with our transport and signing on a
//! server.

use super::on_a_new_runtime;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::integration as suite;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore as Upstream,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::Runtime;
use vsm::store::object::ObjectStore;
use vsm::store::{Location, Options, Store};

/// Runs all functions that test a call that we make, in an empty bucket. Exactly those in `fails`
/// fail, because the server does not support them.
pub fn conforms(location: &Location, options: &Options, fails: &[&str]) {
    let Location::Bucket(bucket) = location else { panic!("{location} is no bucket") };
    let store = ObjectStore::open(bucket, options).expect("a store");
    store.prepare().expect("a bucket");
    let (client, pages) = store.clients();
    let failed = on_a_new_runtime(|runtime| run(location, runtime, &Kinds(client), &*pages));
    assert_eq!(failed, fails, "{location}");
}

/// Returns the functions that fail.
fn run(location: &Location, runtime: &Runtime, client: &Kinds, pages: &dyn PaginatedListStore) -> Vec<&'static str> {
    let mut failed = Vec::new();
    macro_rules! run {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {$(
            let run = || runtime.block_on(async {
                // A function that failed has left its objects.
                let there = client.list(None).map_ok(|object| object.location).boxed();
                client.delete_stream(there).try_collect::<Vec<_>>().await.expect("an empty bucket");
                let _ = suite::$name($($argument),*).await;
            });
            println!("{location}: {}", stringify!($name));
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                failed.push(stringify!($name));
            }
        )*};
    }
    run! {
        put_get_delete_list(client),
        get_nonexistent_object(client, None),
        get_opts(client),
        put_opts(client, true),
        put_get_attributes(client),
        stream_get(client),
        list_uses_directories_correctly(client),
        list_with_delimiter(client),
        list_with_offset_exclusivity(client),
        list_paginated(client, pages),
        rename_and_copy(client),
        copy_if_not_exists(client),
        copy_rename_nonexistent_object(client),
    }
    failed
}

/// The client, with the kinds of errors that these functions expect. Our transport keeps the
/// server's answer, from which the engine makes its own errors; the crate finds no status then.
#[derive(Debug)]
struct Kinds(Arc<dyn Upstream>);

fn kind(error: Error) -> Error {
    let text = format!("{error:?}");
    let status = text.split_once("Answer { status: ").and_then(|(_, rest)| rest.get(..3)).map(str::to_owned);
    let uri = text.split_once("uri: Some(").and_then(|(_, rest)| rest.split_once(')'));
    let path = uri.map(|(uri, _)| uri.replace("%5F", "_")).unwrap_or_default();
    let source = error.to_string().into();
    match status.as_deref() {
        Some("304") => Error::NotModified { path, source },
        Some("404") => Error::NotFound { path, source },
        Some("409") => Error::AlreadyExists { path, source },
        Some("412") => Error::Precondition { path, source },
        _ => error,
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl Upstream for Kinds {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (creates, updates) = (options.mode == PutMode::Create, matches!(options.mode, PutMode::Update(_)));
        self.0.put_opts(to, payload, options).await.map_err(|error| match kind(error) {
            Error::Precondition { path, source } if creates => Error::AlreadyExists { path, source },
            // As in the crate's own client for S3: the object to be changed is missing.
            Error::NotFound { path, source } if updates => Error::Precondition { path, source },
            error => error,
        })
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(to, options).await.map_err(kind)
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(from, options).await.map_err(kind)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths).map(|done| done.map_err(kind)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await.map_err(kind)
    }
}
