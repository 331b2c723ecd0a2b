//! Lists one directory of a bucket, as if the bucket were a file system.
//!
//! Objects below its subdirectories cost nothing: the server returns the names of the
//! subdirectories and skips their objects. A listing is read page by page; each page is a request
//! of its own, which is retried if it fails.

use super::client::Client;
use super::page_tokens::PageTokens;
use super::store::ObjectStore;
use crate::store::directory::Directory;
use crate::store::error::Result;
use crate::store::file::FileType;
use object_store::list::PaginatedListOptions;
use std::sync::Arc;

impl ObjectStore {
    /// The place at `path` below this one, with the same connections and limits.
    pub fn below(&self, path: &str) -> ObjectStore {
        let mut inner = Client::clone(&self.0);
        inner.remote.place = inner.remote.place.below(path);
        inner.remote.location = inner.remote.place.to_string();
        // A policy may allow listing one place and not the other.
        inner.listed = Arc::default();
        ObjectStore(Arc::new(inner))
    }

    /// The entries of this place; of objects, only those whose name is in `wanted`.
    pub fn directory(&self, wanted: &[&str]) -> Result<Directory> {
        let inner = &self.0;
        let prefix = match inner.remote.place.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let action = "list the entries";
        let mut found = Directory::default();
        let (mut token, mut tokens) = (None, PageTokens::default());
        loop {
            let listed = inner.run(action, FileType::Config, async || {
                let delimiter = Some("/".into());
                let options =
                    PaginatedListOptions { delimiter, page_token: token.clone(), ..PaginatedListOptions::default() };
                inner.within(0, inner.remote.pages.list_paginated(Some(&prefix), options)).await
            });
            let page = listed.map_err(|failure| inner.general(action, failure))?;
            for directory in page.result.common_prefixes {
                match directory.as_ref().get(prefix.len()..).filter(|name| !name.is_empty()) {
                    Some(name) => found.directories.push(name.to_owned()),
                    // The directory has an empty name.
                    None => found.passed_over.push("/".to_owned()),
                }
            }
            let names = page.result.objects.iter().filter_map(|object| object.location.as_ref().get(prefix.len()..));
            found.files.extend(names.filter(|name| wanted.contains(name)).map(str::to_owned));
            token = tokens.advance(page.page_token).map_err(|failure| inner.general(action, failure))?;
            if token.is_none() {
                return Ok(found);
            }
        }
    }
}
