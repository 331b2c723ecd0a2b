//! Attempts, the waits between them, and their end after an interrupt.
//!
//! All retrying is done here: it is disabled in the layers below, so that waits do not multiply and
//! no request is repeated without our knowledge. A store that has answered once gets the whole
//! retry budget of the policy. One that never has gets only a few attempts: a wrong address must
//! not look like a slow network.

use super::failure::{Failure, Kind};
use crate::clock;
use crate::store::file::FileType;
use crate::store::options::{Attempt, Options, RetryPolicy};
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often a request looks for an interrupt.
const INTERRUPT_WATCH: Duration = Duration::from_millis(200);

/// How long a request may run on after an interrupt, so that a mover ends within 20 s whatever the
/// store does. Packs get the first 8 s. The packs that have arrived by then are indexed in the next
/// 6 s, and the lock is removed in the 2 s after that.
fn patience_after_interrupt(ty: FileType) -> Duration {
    Duration::from_secs(match ty {
        FileType::Pack => 8,
        FileType::Config | FileType::Key | FileType::Index | FileType::Snapshot => 14,
        FileType::Lock => 16,
    })
}

/// Makes attempts for one store.
pub(super) struct Retry {
    options: Options,
    /// Whether the store itself has ever answered.
    answered: AtomicBool,
}

impl Retry {
    pub fn new(options: &Options) -> Retry {
        Retry { options: options.clone(), answered: AtomicBool::new(false) }
    }

    pub fn policy(&self) -> &RetryPolicy {
        &self.options.retry
    }

    /// Repeats `attempt` until it succeeds, fails for good, or the retry budget is spent.
    pub async fn run<T>(
        &self,
        action: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut start = Instant::now();
        let mut failed = 0u32;
        loop {
            let failure = match attempt().await {
                Ok(value) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if failure.is_answer() || failure.progress {
                self.answered.store(true, Ordering::Relaxed);
            }
            if !failure.is_passing() {
                return Err(failure);
            }
            if failure.progress {
                (start, failed) = (Instant::now(), 0);
            }
            failed += 1;
            let wait = self.wait(failed);
            if self.is_enough(failed, start.elapsed() + wait) {
                return Err(given_up(failure, failed, start.elapsed()));
            }
            if let Some(notify) = &self.options.notify {
                notify.0(&Attempt { action, error: &failure, wait });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Runs a request, and cancels it [some time](patience_after_interrupt) after an interrupt.
    pub async fn until_interrupted<T>(
        &self,
        ty: FileType,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let expired = async {
            while !self.options.interrupt.is_older_than(patience_after_interrupt(ty)) {
                tokio::time::sleep(INTERRUPT_WATCH).await;
            }
        };
        match select(pin!(expired), pin!(request)).await {
            Either::Left(((), _)) => Err(Failure::new(Kind::Interrupted, "the run was interrupted")),
            Either::Right((outcome, _)) => outcome,
        }
    }

    fn is_enough(&self, failed: u32, elapsed: Duration) -> bool {
        let policy = self.policy();
        let opening = !self.answered.load(Ordering::Relaxed);
        elapsed > policy.patience || (opening && failed >= policy.opening_attempts)
    }

    /// The wait after `failed` failures: it doubles each time, with a jitter that keeps many movers
    /// from retrying at the same moment.
    fn wait(&self, failed: u32) -> Duration {
        let policy = self.policy();
        let doubled = policy.first_wait.saturating_mul(1 << (failed - 1).min(20));
        let random = f64::from(u32::from_le_bytes(clock::random_bytes())) / f64::from(u32::MAX);
        doubled.min(policy.longest_wait).mul_f64(0.75 + random / 2.0)
    }
}

fn given_up(failure: Failure, attempts: u32, elapsed: Duration) -> Failure {
    if attempts == 1 {
        return failure;
    }
    let text = format!("{}; gave up after {attempts} attempts in {} s", failure.text, elapsed.as_secs());
    Failure { text, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::options::Notify;
    use std::sync::{Arc, Mutex};

    fn retry(patience: Duration) -> (Retry, Arc<Mutex<Vec<Duration>>>) {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = waits.clone();
        let retry = RetryPolicy { patience, first_wait: Duration::from_millis(4), ..RetryPolicy::default() };
        let notify = Notify(Arc::new(move |attempt| seen.lock().unwrap().push(attempt.wait)));
        (Retry::new(&Options { retry, notify: Some(notify), ..Options::default() }), waits)
    }

    /// Runs on a clock that only waits advance.
    fn run(retry: &Retry, outcomes: &[Option<Kind>]) -> (Result<(), Failure>, usize) {
        let mut calls = 0;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let result = runtime.block_on(retry.run("try", async || {
            let outcome = outcomes[calls.min(outcomes.len() - 1)];
            calls += 1;
            outcome.map_or(Ok(()), |kind| Err(Failure::new(kind, "failed")))
        }));
        (result, calls)
    }

    #[test]
    fn waits_double_until_it_succeeds() {
        let (retry, waits) = retry(Duration::from_secs(60));
        let (result, calls) = run(&retry, &[Some(Kind::Link), Some(Kind::Trouble), Some(Kind::Throttled), None]);
        assert!(result.is_ok());
        assert_eq!(calls, 4);
        for (wait, base) in waits.lock().unwrap().iter().zip([4.0, 8.0, 16.0]) {
            let wait = wait.as_secs_f64() * 1000.0;
            assert!((base * 0.75..=base * 1.25).contains(&wait), "{wait} ms, not {base} ms");
        }
    }

    #[test]
    fn a_store_that_never_answered_gets_few_attempts() {
        let (retry, _) = retry(Duration::from_secs(3600));
        let (result, calls) = run(&retry, &[Some(Kind::Link)]);
        assert_eq!(calls, 4);
        assert!(result.unwrap_err().text.contains("gave up after 4 attempts"));
    }

    #[test]
    fn a_store_that_answered_gets_the_whole_retry_budget_and_no_more() {
        let patience = Duration::from_millis(200);
        let (retry, waits) = retry(patience);
        assert_eq!(run(&retry, &[Some(Kind::Missing { bucket: false })]).1, 1);
        let (result, calls) = run(&retry, &[Some(Kind::Link)]);
        assert!(result.is_err() && calls > 4, "{calls} attempts");
        let waited: Duration = waits.lock().unwrap().iter().sum();
        assert!(waited <= patience, "{waited:?}");
    }

    #[test]
    fn a_request_ends_some_time_after_an_interrupt_and_packs_end_first() {
        let (retry, _) = retry(Duration::from_secs(3600));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wait = |ty, time| {
            let request = async {
                tokio::time::sleep(time).await;
                Ok(())
            };
            runtime.block_on(retry.until_interrupted(ty, request))
        };
        assert!(wait(FileType::Pack, Duration::from_millis(300)).is_ok());
        retry.options.interrupt.set();
        assert!(wait(FileType::Pack, Duration::ZERO).is_ok(), "it has time to end");
        assert_eq!(wait(FileType::Pack, Duration::MAX).unwrap_err().kind, Kind::Interrupted);
        assert!(wait(FileType::Index, Duration::from_millis(300)).is_ok(), "the index may still be written");
        assert_eq!(wait(FileType::Pack, Duration::from_millis(1)).unwrap_err().kind, Kind::Interrupted);
    }

    #[test]
    fn a_final_failure_is_not_retried() {
        let (retry, waits) = retry(Duration::from_secs(60));
        for kind in [Kind::Denied, Kind::Final, Kind::Exists, Kind::Unsupported, Kind::Range] {
            assert_eq!(run(&retry, &[Some(kind)]).1, 1, "{kind:?}");
        }
        assert!(waits.lock().unwrap().is_empty());
    }
}
