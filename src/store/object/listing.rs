//! Lists the files of one type: page by page, and in parallel if there are many pages.
//!
//! A page has up to 1,000 objects (5,000 on Azure) and the token of the next one, so that the pages
//! of one listing can only be requested one after the other. But names are hashes: the last name of
//! a page shows which share of all names has been seen, and so how many pages are left. If those
//! are more than a few, the remaining names are listed by their first digits, over all connections.

use super::client::Client;
use super::failure::Failure;
use super::page_tokens::PageTokens;
use crate::id::Id;
use crate::parallel::side_by_side;
use crate::store::error::Result;
use crate::store::file::FileType;
use crate::store::layout;
use object_store::list::PaginatedListOptions;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The most remaining pages that are requested one after the other. Listing 16 prefixes over 5
/// connections takes half as long as these.
const FEW: f64 = 8.0;

/// The most remaining pages that are listed by 16 prefixes; more are listed by 256. Each prefix
/// costs half a page more, and more prefixes balance the load of the connections.
const MANY: f64 = 512.0;

/// One listing.
pub(super) struct Listing<'i> {
    inner: &'i Client,
    ty: FileType,
    action: String,
    found: Mutex<Vec<(Id, u64)>>,
    failed: AtomicBool,
}

/// The properties of a page, without its files.
struct Page {
    objects: usize,
    /// The last file.
    last: Option<Id>,
    next: Option<String>,
}

impl<'i> Listing<'i> {
    pub fn new(inner: &'i Client, ty: FileType) -> Listing<'i> {
        let action = format!("list {}", layout::directory(ty));
        Listing { inner, ty, action, found: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// All files of the type, in the order of their names.
    pub fn run(self) -> Result<Vec<(Id, u64)>> {
        self.all().map_err(|failure| self.inner.general(&self.action, failure))?;
        let mut found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The prefix in which the first pages ended was listed again as a whole.
        found.sort_unstable();
        found.dedup_by_key(|(id, _)| *id);
        Ok(found)
    }

    fn all(&self) -> std::result::Result<(), Failure> {
        let (mut token, mut tokens) = (None, PageTokens::default());
        loop {
            let page = self.page("", token)?;
            if page.next.is_none() {
                return Ok(());
            }
            if let Some(prefixes) = self.prefixes_left(&page) {
                let listed =
                    side_by_side(self.inner.remote.connections.downloads, &prefixes, |prefix| self.below(prefix));
                return listed.into_iter().collect();
            }
            token = tokens.advance(page.next)?;
        }
    }

    /// Lists the names that begin with `prefix`, unless another prefix has failed.
    fn below(&self, prefix: &str) -> std::result::Result<(), Failure> {
        let (mut token, mut tokens) = (None, PageTokens::default());
        while !self.failed.load(Ordering::Relaxed) {
            match self.page(prefix, token.take()).and_then(|page| tokens.advance(page.next)) {
                Ok(None) => break,
                Ok(next) => token = next,
                Err(failure) => {
                    self.failed.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Requests one page of the names that begin with `prefix`, with retries, and adds its files.
    /// Foreign names are skipped.
    fn page(&self, prefix: &str, token: Option<String>) -> std::result::Result<Page, Failure> {
        let inner = self.inner;
        let directory = inner.key(layout::directory(self.ty));
        let prefix = format!("{directory}/{prefix}");
        let answer = inner.run(&self.action, self.ty, async || {
            let options = PaginatedListOptions { page_token: token.clone(), ..PaginatedListOptions::default() };
            inner.within(0, inner.remote.pages.list_paginated(Some(&prefix), options)).await
        })?;
        inner.listed.store(true, Ordering::Relaxed);
        let place = &inner.remote.place.prefix;
        let above = place.len() + usize::from(!place.is_empty());
        let (mut last, objects) = (None, answer.result.objects);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for object in &objects {
            let file = object.location.as_ref().get(above..).and_then(layout::parse);
            if let Some(file) = file.filter(|file| file.ty == self.ty) {
                found.push((file.id, object.size));
                last = Some(file.id);
            }
        }
        Ok(Page { objects: objects.len(), last, next: answer.page_token })
    }

    /// The prefixes of the remaining names, if enough pages remain to list them in parallel.
    fn prefixes_left(&self, page: &Page) -> Option<Vec<String>> {
        let last = page.last?;
        let seen = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            // A server may list in another order; then the last name says nothing.
            found.is_sorted().then_some(found.len())?
        };
        let pages = pages_left(seen, last, page.objects);
        let [first, ..] = last.0;
        match pages {
            pages if pages <= FEW => None,
            pages if pages <= MANY => Some((first >> 4..=0xf).map(|digit| format!("{digit:x}")).collect()),
            _ => Some((first..=0xff).map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

/// An estimate of the pages that are left when `seen` names up to `last` are known, by the even
/// distribution of hashes.
fn pages_left(seen: usize, last: Id, objects_per_page: usize) -> f64 {
    let position = u64::from_be_bytes(*last.0.first_chunk().expect("32 bytes"));
    let share = (position as f64 + 1.0) / (u64::MAX as f64);
    seen as f64 * (1.0 - share) / share / objects_per_page.max(1) as f64
}

#[cfg(test)]
mod tests;
