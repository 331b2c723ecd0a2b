//! The body of a request that uploads a large file: spilled parts are read from disk while they are
//! sent.
//!
//! The object store crate accepts only a body in memory. It gets a placeholder of the same length,
//! which repeats one block, and the transport sends the real content instead.

use crate::aside::Aside;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::PutPayload;
use object_store::client::HttpRequest;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

/// Bytes that are read at a time, and bytes in the block of the placeholder.
const PIECE: usize = 1 << 20;

/// A part of a file.
#[derive(Clone)]
pub(super) enum Part {
    Memory(Bytes),
    Aside(Arc<Aside>),
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Part::Memory(bytes) => bytes.len() as u64,
            Part::Aside(aside) => aside.len(),
        }
    }
}

/// A whole file, one part after the other.
#[derive(Clone)]
pub(super) struct Content(Arc<[Part]>);

tokio::task_local! {
    /// The content to send instead of the placeholder.
    static CONTENT: Content;
}

impl Content {
    pub fn new(parts: Vec<Part>) -> Content {
        Content(parts.into())
    }

    pub fn length(&self) -> u64 {
        self.0.iter().map(Part::length).sum()
    }

    /// A body of the same length, for the object store crate.
    pub fn placeholder(&self) -> PutPayload {
        static BLOCK: LazyLock<Bytes> = LazyLock::new(|| vec![0; PIECE].into());
        let length = self.length();
        let block = |start: u64| BLOCK.slice(..usize::try_from(length - start).unwrap_or(PIECE).min(PIECE));
        (0..length).step_by(PIECE).map(block).collect()
    }

    /// Runs a request whose body is the placeholder, and sends this content instead.
    pub async fn sent_by<T>(self, request: impl Future<Output = T>) -> T {
        CONTENT.scope(self, request).await
    }
}

/// The content to send instead of a request's body. A body of another length than the placeholder
/// is an error: it must not be stored.
pub(super) fn of(request: &HttpRequest) -> Result<Option<Sending>, String> {
    let Ok(content) = CONTENT.try_with(Content::clone) else { return Ok(None) };
    let (has, left) = (request.body().content_length() as u64, content.length());
    match request.method().as_str() {
        "PUT" if has == left => Ok(Some(Sending { content, part: 0, at: 0, left })),
        "PUT" if has > 0 => Err(format!("a request has a body of {has} bytes instead of {left}")),
        _ => Ok(None),
    }
}

/// A spill file cannot be read, so that a retry would fail too.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a spill file back: {0}")]
pub(super) struct Gone(#[from] io::Error);

/// A file that is being sent.
pub(super) struct Sending {
    content: Content,
    part: usize,
    /// Bytes of the part that were sent.
    at: u64,
    /// Bytes of the whole file that were not sent yet.
    left: u64,
}

impl Sending {
    fn next(&mut self) -> Result<Option<Bytes>, Gone> {
        loop {
            let Some(part) = self.content.0.get(self.part) else { return Ok(None) };
            let left = part.length() - self.at;
            if left == 0 {
                (self.part, self.at) = (self.part + 1, 0);
                continue;
            }
            let piece = match part {
                Part::Memory(bytes) => bytes.clone(),
                Part::Aside(aside) => {
                    let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
                    aside.read_exact_at(self.at, &mut piece)?;
                    piece.into()
                }
            };
            self.at += piece.len() as u64;
            self.left -= piece.len() as u64;
            return Ok(Some(piece));
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Gone;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        Poll::Ready(self.get_mut().next().map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn parts_are_sent_one_after_the_other() {
        let temp = tempfile::tempdir().unwrap();
        let mut aside = Aside::new(Some(temp.path()));
        let large: Vec<u8> = (0..5_000_000u32).map(|number| (number % 251) as u8).collect();
        aside.write_all(&large).unwrap();
        let parts = [Part::Memory("before".into()), Part::Aside(aside.into()), Part::Memory("behind".into())];
        let content = Content::new(parts.into());
        assert_eq!(content.placeholder().content_length() as u64, content.length());
        let mut sending = Sending { part: 0, at: 0, left: content.length(), content };
        let mut sent = Vec::new();
        while let Some(piece) = sending.next().unwrap() {
            assert!(piece.len() <= PIECE);
            sent.extend_from_slice(&piece);
            assert_eq!(sending.is_end_stream(), sent.len() == large.len() + 12);
        }
        assert!(sent == [b"before", &large[..], b"behind"].concat());
    }

    #[test]
    fn a_placeholder_is_never_sent() {
        let request = |method, length| http::Request::builder().method(method).body(vec![0u8; length].into()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let content = Content::new(vec![Part::Memory("twelve bytes".into())]);
        runtime.block_on(content.sent_by(async {
            assert_eq!(of(&request("PUT", 12)).unwrap().unwrap().left, 12);
            // Other requests of the same call have no body, or another method.
            assert!(of(&request("GET", 0)).unwrap().is_none() && of(&request("POST", 3)).unwrap().is_none());
            assert!(of(&request("PUT", 0)).unwrap().is_none());
            assert!(of(&request("PUT", 13)).is_err());
        }));
        assert!(of(&request("PUT", 12)).unwrap().is_none());
    }
}
