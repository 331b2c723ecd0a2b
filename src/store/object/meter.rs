//! Counts the bytes of requests and answers in [`Traffic`], and delays them to its rate limits.

use crate::store::traffic::{Pace, Traffic};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Sleep;

/// The direction of a body.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Up,
    Down,
}

pub(super) struct Metered<B, F> {
    body: B,
    /// Converts the errors of `body` to those that the reader expects.
    error: F,
    traffic: Arc<Traffic>,
    way: Way,
    /// Bytes that `body` returned and that have not passed yet.
    held: Bytes,
    /// The wait for the rate limit, and the number of held bytes that pass after it.
    wait: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<B, F> Metered<B, F> {
    pub fn new(body: B, traffic: Arc<Traffic>, way: Way, error: F) -> Metered<B, F> {
        Metered { body, error, traffic, way, held: Bytes::new(), wait: None }
    }

    /// Counts held bytes and returns them.
    fn pass(&mut self, bytes: usize) -> Frame<Bytes> {
        match self.way {
            Way::Up => self.traffic.count_sent(bytes as u64),
            Way::Down => self.traffic.count_received(bytes as u64),
        }
        Frame::data(self.held.split_to(bytes))
    }

    fn pace(&self) -> &Pace {
        match self.way {
            Way::Up => &self.traffic.upload,
            Way::Down => &self.traffic.download,
        }
    }
}

impl<B, F, E> Body for Metered<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: Fn(B::Error) -> E + Unpin,
{
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.held = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err((this.error)(error)))),
                None => return Poll::Ready(None),
            }
        }
        if this.wait.is_none() {
            let portion = usize::try_from(this.pace().portion()).unwrap_or(usize::MAX).min(this.held.len());
            let Some(wait) = this.pace().reserve(portion as u64) else {
                return Poll::Ready(Some(Ok(this.pass(this.held.len()))));
            };
            this.wait = Some((portion, Box::pin(tokio::time::sleep(wait))));
        }
        let (portion, sleep) = this.wait.as_mut().expect("set above");
        ready!(sleep.as_mut().poll(cx));
        let portion = *portion;
        this.wait = None;
        Poll::Ready(Some(Ok(this.pass(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.body.size_hint(), self.held.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
