//! Single attempts at requests that take more than one call of the client.
//!
//! An attempt sends its requests once, detects a stall, and checks that the answer is complete.
//! `retry` decides whether another attempt follows. The caller keeps the progress of a failed
//! attempt (bytes read, a file perhaps created) and passes it to the next.

use super::client::Client;
use super::failure::{Failure, Kind};
use super::signing;
use crate::id::Id;
use crate::store::file::{File, FileType};
use crate::store::layout;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Attributes, GetOptions, GetResultPayload, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::sync::atomic::Ordering;

type Result<T> = std::result::Result<T, Failure>;

/// The attempts at the same request before this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EarlierAttempts {
    None,
    /// They failed, but the server may have carried out one of them.
    Unconfirmed,
}

impl Client {
    /// One attempt at reading a whole object of at most `max` bytes.
    pub async fn fetch(&self, key: &Path, max: u64) -> Result<Bytes> {
        let mut answer = self.within(0, self.remote.store.get_opts(key, GetOptions::default())).await?;
        let size = answer.meta.size;
        if size > max {
            return Err(Failure::new(Kind::TooLarge { size, max }, "the object is too large"));
        }
        let size = usize::try_from(size).expect("bounded by memory");
        let mut buffer = BytesMut::with_capacity(size);
        let GetResultPayload::Stream(stream) = &mut answer.payload;
        while buffer.len() < size {
            match self.within(0, async { stream.next().await.transpose() }).await? {
                Some(part) => buffer.extend_from_slice(&part),
                None => {
                    let text = format!("the transfer ended after {} of {size} bytes", buffer.len());
                    return Err(Failure::new(Kind::Link, text));
                }
            }
        }
        buffer.truncate(size);
        Ok(buffer.freeze())
    }

    pub async fn put(&self, file: File, payload: &PutPayload, mode: PutMode) -> Result<()> {
        let attributes = if file.ty == FileType::Pack { self.remote.packs.clone() } else { Attributes::new() };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let key = self.key(&layout::path(file));
        let size = payload.content_length();
        let request = self.within(size as u64, self.remote.store.put_opts(&key, payload.clone(), options));
        let sent = match file.id {
            Id::NULL => request.await,
            // Every file but the config has the name of its hash.
            id => signing::with_known_payload(id, size, request).await,
        };
        sent.map(|_| ())
    }

    /// One attempt at creating a file.
    pub async fn put_new(&self, file: File, payload: &PutPayload, earlier: EarlierAttempts) -> Result<()> {
        let key = self.key(&layout::path(file));
        // Some servers ignore the condition without an error, so the name is always looked up
        // first.
        let there = match self.within(0, self.remote.store.head(&key)).await {
            Ok(_) => Err(Failure::new(Kind::Exists, "the object already exists")),
            Err(failure) if failure.kind == (Kind::Missing { bucket: false }) => {
                if self.unconditional.load(Ordering::Relaxed) {
                    return self.put(file, payload, PutMode::Overwrite).await;
                }
                self.put(file, payload, PutMode::Create).await
            }
            Err(failure) => return Err(failure),
        };
        match there {
            Err(failure)
                if failure.kind == Kind::Exists
                    && earlier == EarlierAttempts::Unconfirmed
                    && self.holds(&key, payload).await? =>
            {
                Ok(())
            }
            Err(failure) if failure.kind == Kind::Unsupported => {
                self.put(file, payload, PutMode::Overwrite).await?;
                // The write without the condition succeeded: the server refuses the condition.
                self.unconditional.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// Whether an object has the bytes to write: then an earlier attempt has written it.
    pub async fn holds(&self, key: &Path, payload: &PutPayload) -> Result<bool> {
        match self.fetch(key, payload.content_length() as u64).await {
            Ok(there) => Ok(payload.iter().flatten().eq(there.iter())),
            Err(failure) if matches!(failure.kind, Kind::TooLarge { .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}
