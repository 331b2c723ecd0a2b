//! Single attempts at the requests that are more than one call of the client.
//!
//! An attempt sends what it has to send once, watches that something moves, and checks that what came is what was asked
//! for. Whether another attempt follows is `retry`'s business; what one has achieved before it failed (bytes read, a file
//! perhaps created) is kept by the caller and given to the next.

use super::failure::{Failure, Kind};
use super::{Inner, SLOWEST_UPLOAD, layout};
use crate::store::{File, FileType};
use bytes::BytesMut;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{
    Attributes, GetOptions, GetRange, GetResultPayload, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

type Result<T> = std::result::Result<T, Failure>;

impl Inner {
    /// Waits for an answer to a request that carries `bytes`.
    pub(super) async fn within<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let limit = self.retry.policy().stall + Duration::from_secs(bytes / SLOWEST_UPLOAD);
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::new(Kind::Link, format!("nothing was heard for {} s", limit.as_secs()))),
        }
    }

    /// One attempt at reading on from the end of `buffer`: up to `wanted` bytes from `offset`, or all of at most `max`.
    pub(super) async fn fetch(
        &self,
        key: &Path,
        offset: u64,
        wanted: Option<u64>,
        max: u64,
        buffer: &mut BytesMut,
    ) -> Result<()> {
        let range = wanted.map(|wanted| GetRange::Bounded(offset + buffer.len() as u64..offset + wanted));
        let options = GetOptions { range, ..GetOptions::default() };
        let short = |got| {
            let wanted = wanted.unwrap_or_default();
            Failure::new(Kind::Short { offset, wanted, got }, "the object is too short")
        };
        let mut answer = match self.within(0, self.remote.store.get_opts(key, options)).await {
            Err(failure) if failure.kind == Kind::Range => return Err(short(0)),
            answer => answer?,
        };
        let end = wanted.map_or(answer.meta.size, |wanted| offset + wanted);
        if answer.range.end < end {
            return Err(short(answer.range.end.saturating_sub(offset)));
        }
        let size = end - offset;
        if size > max {
            return Err(Failure::new(Kind::TooLarge { size, max }, "the object is too large"));
        }
        let had = buffer.len();
        let missing = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(had);
        buffer.reserve(missing);
        let GetResultPayload::Stream(stream) = &mut answer.payload;
        while buffer.len() < had + missing {
            let part = self.within(0, async { stream.next().await.transpose() }).await;
            match part.map_err(|failure| failure.after_progress(buffer.len() > had))? {
                Some(part) => buffer.extend_from_slice(&part),
                None => {
                    let text = format!("the transfer ended after {} of {missing} bytes", buffer.len() - had);
                    return Err(Failure::new(Kind::Link, text).after_progress(buffer.len() > had));
                }
            }
        }
        buffer.truncate(had + missing);
        Ok(())
    }

    pub(super) async fn put(&self, file: File, payload: &PutPayload, mode: PutMode) -> Result<()> {
        let attributes = if file.ty == FileType::Pack { self.remote.packs.clone() } else { Attributes::new() };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let key = self.key(&layout::path(file));
        let size = payload.content_length() as u64;
        self.within(size, self.remote.store.put_opts(&key, payload.clone(), options)).await.map(|_| ())
    }

    /// One attempt at creating a file. `unsure` says that an attempt before this one may have succeeded unnoticed.
    pub(super) async fn put_new(&self, file: File, payload: &PutPayload, unsure: bool) -> Result<()> {
        let key = self.key(&layout::path(file));
        // Not every server honours the condition, or admits that it does not: so look first, always.
        let there = match self.within(0, self.remote.store.head(&key)).await {
            Ok(_) => Err(Failure::new(Kind::Exists, "it is there already")),
            Err(failure) if failure.kind == (Kind::Missing { bucket: false }) => {
                if self.unconditional.load(Ordering::Relaxed) {
                    return self.put(file, payload, PutMode::Overwrite).await;
                }
                self.put(file, payload, PutMode::Create).await
            }
            Err(failure) => return Err(failure),
        };
        match there {
            Err(failure) if failure.kind == Kind::Exists && unsure && self.holds(&key, payload).await? => Ok(()),
            Err(failure) if failure.kind == Kind::Unsupported => {
                self.put(file, payload, PutMode::Overwrite).await?;
                // Only now is it clear that it was the condition that the server did not like.
                self.unconditional.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// Whether an object is what we were about to write: then it was us.
    pub(super) async fn holds(&self, key: &Path, payload: &PutPayload) -> Result<bool> {
        let mut there = BytesMut::new();
        match self.fetch(key, 0, None, payload.content_length() as u64, &mut there).await {
            Ok(()) => Ok(payload.iter().flatten().eq(there.iter())),
            Err(failure) if matches!(failure.kind, Kind::TooLarge { .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}
