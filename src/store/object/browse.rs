//! A bucket looked at directory by directory, as a person walks through folders.
//!
//! What is below a directory costs nothing until it is asked for: the server names it and passes over its objects, however many
//! there are. A listing goes on page by page, and each page is a request of its own, which is made again if it fails.

use super::client::Client;
use super::store::ObjectStore;
use crate::store::directory::Directory;
use crate::store::error::Result;
use crate::store::file::FileType;
use object_store::list::PaginatedListOptions;
use std::sync::Arc;

impl ObjectStore {
    /// What is below this place, over the same connections and within the same bounds.
    pub fn below(&self, path: &str) -> ObjectStore {
        let mut inner = Client::clone(&self.0);
        inner.remote.place = inner.remote.place.below(path);
        inner.remote.location = inner.remote.place.to_string();
        // A policy may allow to list one place and not the other.
        inner.listed = Arc::default();
        ObjectStore(Arc::new(inner))
    }

    /// What is in this place itself; of objects only those with one of the names that are `wanted`.
    pub fn directory(&self, wanted: &[&str]) -> Result<Directory> {
        let inner = &self.0;
        let prefix = match inner.remote.place.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let action = "list what is";
        let mut found = Directory::default();
        let mut token = None;
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
                    // Its name has no characters at all.
                    None => found.passed_over.push("/".to_owned()),
                }
            }
            let names = page.result.objects.iter().filter_map(|object| object.location.as_ref().get(prefix.len()..));
            found.files.extend(names.filter(|name| wanted.contains(name)).map(str::to_owned));
            token = page.page_token;
            if token.is_none() {
                return Ok(found);
            }
        }
    }
}
