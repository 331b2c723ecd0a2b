//! Counts the traffic between this process and its object stores, and limits its rate.
//!
//! A run has one [`Traffic`], which all stores that it opens share. The limits hold for all of them
//! together and can be changed at any time; requests under way continue at the new rate.

use crate::clock::{self, Moment};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Rate limits, and counters of requests and bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of uploads a second.
    pub upload: Pace,
    /// Bytes of downloads a second.
    pub download: Pace,
    /// Requests a second.
    pub requests: Pace,
    counts: [AtomicU64; 6],
    sent: AtomicU64,
    received: AtomicU64,
}

/// The kind of a request, by which providers bill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Put,
    Get,
    List,
    Head,
    Delete,
    /// Any other method, such as a POST for credentials.
    Other,
}

/// The number of requests that were sent, retries included, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    pub puts: u64,
    pub gets: u64,
    pub lists: u64,
    pub heads: u64,
    pub deletes: u64,
    pub others: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Account {
    pub fn requests(&self) -> u64 {
        let Account { puts, gets, lists, heads, deletes, others, .. } = self;
        puts + gets + lists + heads + deletes + others
    }
}

impl Traffic {
    pub fn count(&self, request: Request) {
        self.counts[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn account(&self) -> Account {
        let [puts, gets, lists, heads, deletes, others] =
            self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bytes_sent = self.sent.load(Ordering::Relaxed);
        let bytes_received = self.received.load(Ordering::Relaxed);
        Account { puts, gets, lists, heads, deletes, others, bytes_sent, bytes_received }
    }
}

/// A rate limit: each caller reserves the time for its amount, behind all earlier reservations.
#[derive(Debug, Default)]
pub struct Pace {
    /// 0: no limit.
    per_second: AtomicU64,
    /// When the next reservation may begin; `None` before the first.
    free: Mutex<Option<Moment>>,
}

impl Pace {
    /// `None`: no limit.
    pub fn set(&self, per_second: Option<u64>) {
        self.per_second.store(per_second.unwrap_or(0), Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<u64> {
        Some(self.per_second.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// The amount to reserve at a time: small enough that a changed limit soon takes effect.
    pub fn portion(&self) -> u64 {
        /// Portions a second, and the smallest portion that is worth a system call.
        const PORTIONS: u64 = 8;
        const SMALLEST: u64 = 1 << 10;
        self.get().map_or(u64::MAX, |rate| (rate / PORTIONS).max(SMALLEST))
    }

    /// Reserves `amount` and returns the wait until it may pass; `None` without a limit.
    pub fn reserve(&self, amount: u64) -> Option<Duration> {
        self.reserve_at(amount, clock::moment())
    }

    fn reserve_at(&self, amount: u64, now: Moment) -> Option<Duration> {
        let rate = self.get()?;
        let mut free = self.free.lock().expect("no holder of this lock panics");
        let start = free.map_or(now, |free| free.max(now));
        let end = start + Duration::from_secs_f64(amount as f64 / rate as f64);
        *free = Some(end);
        Some(end.since(now))
    }

    /// The longest time that `amount` may take if `others` reserve as much at the same time.
    pub fn longest(&self, amount: u64, others: usize) -> Duration {
        let rate = self.get().unwrap_or(u64::MAX);
        Duration::from_secs_f64(amount as f64 * (others + 1) as f64 / rate as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_waits_for_the_earlier_ones() {
        let pace = Pace::default();
        let now = clock::moment();
        let reserve = |after: u64| pace.reserve_at(500, now + Duration::from_millis(after));
        assert_eq!((pace.reserve_at(1 << 40, now), pace.portion()), (None, u64::MAX));
        pace.set(Some(1000));
        let wait = |milliseconds| Some(Duration::from_millis(milliseconds));
        assert_eq!([reserve(0), reserve(0), reserve(300)], [wait(500), wait(1000), wait(1200)]);
        assert_eq!(reserve(10_000), wait(500), "unused capacity is not saved up");
        assert_eq!(pace.longest(500, 1), Duration::from_secs(1));
        pace.set(None);
        assert_eq!(pace.reserve(1), None);
    }

    #[test]
    fn every_request_is_counted_by_its_kind() {
        let traffic = Traffic::default();
        for (request, times) in [
            (Request::Put, 1),
            (Request::Get, 2),
            (Request::List, 3),
            (Request::Head, 4),
            (Request::Delete, 5),
            (Request::Other, 6),
        ] {
            (0..times).for_each(|_| traffic.count(request));
        }
        traffic.count_sent(7);
        traffic.count_received(8);
        let account = traffic.account();
        let expected =
            Account { puts: 1, gets: 2, lists: 3, heads: 4, deletes: 5, others: 6, bytes_sent: 7, bytes_received: 8 };
        assert_eq!((account, account.requests()), (expected, 21));
    }
}
