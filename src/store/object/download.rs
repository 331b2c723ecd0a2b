//! Downloads a range of an object by one request, and resumes an interrupted transfer by another.

use super::client::{AttemptKind, Client};
use super::failure::{Failure, Kind};
use crate::store::error::{Result, StoreError};
use crate::store::file::File;
use crate::store::interface::Download;
use crate::store::layout;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStoreExt};

pub(super) struct ObjectDownload<'s> {
    store: &'s Client,
    file: File,
    source: Source,
}

/// Where the bytes come from.
struct Source {
    key: Path,
    /// The whole range.
    start: u64,
    end: u64,
    /// The offset of the next byte to return.
    at: u64,
    /// `None` before the request, and after the transfer broke off.
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    /// Bytes that have arrived and were not returned yet.
    part: Bytes,
}

impl<'s> ObjectDownload<'s> {
    /// Requests `length` bytes from `offset` on.
    pub fn start(store: &'s Client, file: File, offset: u64, length: u64) -> Result<ObjectDownload<'s>> {
        let short = || StoreError::Short { file, offset, wanted: length, got: 0 };
        let end = offset.checked_add(length).ok_or_else(short)?;
        let key = store.key(&layout::path(file));
        let mut source = Source { key, start: offset, end, at: offset, stream: None, part: Bytes::new() };
        // HTTP has no empty ranges.
        if length > 0 {
            store
                .run(&format!("read {file}"), file.ty, async || source.open(store).await)
                .map_err(|failure| store.error("read", file, failure))?;
        }
        Ok(ObjectDownload { store, file, source })
    }
}

impl Download for ObjectDownload<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        let ObjectDownload { store, file, source } = self;
        let (wanted, got) = (out.len() as u64, source.end - source.at);
        if got < wanted {
            return Err(StoreError::Short { file: *file, offset: source.at, wanted, got });
        }
        let mut filled = 0;
        store
            .run_attempts(&format!("read {file}"), file.ty, AttemptKind::Transfer, async || {
                let before = filled;
                while filled < out.len() {
                    if source.part.is_empty() {
                        let progress = |failure: Failure| {
                            if filled > before { failure.after_progress() } else { failure }
                        };
                        source.next_part(store).await.map_err(progress)?;
                    }
                    let count = source.part.len().min(out.len() - filled);
                    source.part.copy_to_slice(&mut out[filled..filled + count]);
                    filled += count;
                    source.at += count as u64;
                }
                Ok(())
            })
            .map_err(|failure| store.error("read", *file, failure))
    }
}

impl Source {
    /// Requests the bytes that have not arrived yet.
    async fn open(&mut self, store: &Client) -> std::result::Result<(), Failure> {
        let Source { start, end, at, .. } = *self;
        let short =
            |got| Failure::new(Kind::Short { offset: start, wanted: end - start, got }, "the object is too short");
        let options = GetOptions { range: Some(GetRange::Bounded(at..end)), ..GetOptions::default() };
        let answer = match store.within(0, store.remote.store.get_opts(&self.key, options)).await {
            Err(failure) if failure.kind == Kind::Range => return Err(short(at - start)),
            // A server may answer a range behind the end with the whole object, which the client
            // refuses with an error of its own.
            Err(failure) if failure.kind == Kind::Final => {
                let there = store.within(0, store.remote.store.head(&self.key)).await?.size;
                return Err(if there <= at { short(at - start) } else { failure });
            }
            answer => answer?,
        };
        if answer.range.end < end {
            return Err(short(answer.range.end.saturating_sub(start)));
        }
        let GetResultPayload::Stream(stream) = answer.payload;
        self.stream = Some(stream);
        Ok(())
    }

    async fn next_part(&mut self, store: &Client) -> std::result::Result<(), Failure> {
        if self.stream.is_none() {
            self.open(store).await?;
        }
        // The stream is put back only after it delivered a part: a broken one cannot be used again.
        let mut stream = self.stream.take().expect("opened above");
        match store.within(0, async { stream.next().await.transpose() }).await? {
            Some(part) => {
                (self.part, self.stream) = (part, Some(stream));
                Ok(())
            }
            None => {
                let Source { start, end, at, .. } = self;
                let text = format!("the transfer ended after {} of {} bytes", *at - *start, *end - *start);
                Err(Failure::new(Kind::Link, text))
            }
        }
    }
}
