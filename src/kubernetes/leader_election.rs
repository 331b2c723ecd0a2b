//! Leader election: of several controllers the holder of a Lease works, and the others wait until
//! it releases the Lease or stops renewing it.
//!
//! Every write has the resource version that it was decided on, so that of two candidates only one
//! succeeds. Clocks of machines are not compared: a lease expires if it was not renewed for its
//! duration by the candidate's own clock.

use crate::clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use std::time::Duration;
use tokio::select;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The Lease of the leader election: VolumeSnapshotMover's, so that it and this controller never
/// run at the same time.
pub const LEASE: &str = "0acc6105.oadp.openshift.io";
/// How long a lease lasts without a renewal.
const DURATION: Duration = Duration::from_secs(30);
/// Deadline of the holder for a renewal: it stops before another candidate may start.
const DEADLINE: Duration = Duration::from_secs(20);
/// Interval of renewals, and of attempts by candidates.
const RETRY: Duration = Duration::from_secs(5);

/// The next step with a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseStep {
    /// It does not exist.
    Create,
    /// It has no holder, or has expired.
    Take,
    /// We hold it.
    Renew,
    /// Another controller holds it.
    Wait,
}

fn decide(lease: Option<&Lease>, identity: &str, unchanged: Duration) -> LeaseStep {
    let Some(lease) = lease else { return LeaseStep::Create };
    let spec = lease.spec.clone().unwrap_or_default();
    let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    match spec.holder_identity.as_deref().unwrap_or_default() {
        "" => LeaseStep::Take,
        holder if holder == identity => LeaseStep::Renew,
        _ if unchanged >= lasts.unwrap_or(DURATION) => LeaseStep::Take,
        _ => LeaseStep::Wait,
    }
}

/// The Lease after a step, with the resource version that was read.
fn after(step: LeaseStep, lease: Option<&Lease>, identity: &str, now: MicroTime) -> Lease {
    let before = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let acquired = if step == LeaseStep::Renew { before.acquire_time } else { None };
    let taken = i32::from(step == LeaseStep::Take);
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).expect("seconds")),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(taken)),
        ..before
    };
    let metadata = lease.map(|lease| lease.metadata.clone());
    let metadata = metadata.unwrap_or_else(|| ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() });
    Lease { metadata, spec: Some(spec) }
}

/// A candidate for the Lease.
pub struct Candidate {
    leases: Api<Lease>,
    /// The holder identity: the name of the pod.
    identity: String,
}

/// The Lease is lost: all work must end.
#[derive(Debug, thiserror::Error)]
#[error("the lease {LEASE} is lost: {0}")]
pub struct Lost(String);

/// The Lease as this controller wrote it last.
struct Held {
    lease: Lease,
    /// When the write was requested.
    renewed: Instant,
}

impl Candidate {
    pub fn new(leases: Api<Lease>, identity: String) -> Candidate {
        Candidate { leases, identity }
    }

    /// Waits for the Lease and then works until the work is done or the Lease is lost; releases the
    /// Lease after the work. `stop` ends only the wait.
    pub async fn lead(&self, stop: &CancellationToken, work: impl Future<Output = ()>) -> Result<(), Lost> {
        let mut held = select! {
            held = self.acquire() => held,
            () = stop.cancelled() => return Ok(()),
        };
        info!(lease = LEASE, identity = self.identity, "acquired the lease");
        select! {
            () = work => {}
            why = self.keep(&mut held) => return Err(Lost(why)),
        }
        if let Err(error) = self.release(held).await {
            warn!(lease = LEASE, %error, "cannot release the lease: the next controller waits until it expires");
        }
        Ok(())
    }

    /// Waits until the Lease is acquired.
    async fn acquire(&self) -> Held {
        let mut seen = (None, Instant::now());
        let mut logged = String::new();
        loop {
            match self.attempt(&mut seen, &mut logged).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(error) => warn!(lease = LEASE, %error, "cannot read or take the lease"),
            }
            sleep(RETRY).await;
        }
    }

    /// One attempt. `seen`: the last resource version and since when; `logged`: the last holder in
    /// the log.
    async fn attempt(
        &self,
        seen: &mut (Option<String>, Instant),
        logged: &mut String,
    ) -> Result<Option<Held>, kube::Error> {
        let lease = self.leases.get_opt(LEASE).await?;
        let version = lease.as_ref().and_then(ResourceExt::resource_version);
        if seen.0 != version {
            *seen = (version, Instant::now());
        }
        let step = decide(lease.as_ref(), &self.identity, seen.1.elapsed());
        if step == LeaseStep::Wait {
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            if *logged != holder {
                info!(lease = LEASE, holder, "waiting for the lease: another controller holds it");
                *logged = holder;
            }
            return Ok(None);
        }
        // An earlier process of this pod may have held it: take it, because only the process that
        // took a lease renews it.
        let step = if step == LeaseStep::Renew { LeaseStep::Take } else { step };
        self.write(step, lease.as_ref()).await
    }

    /// Writes the Lease; `None` if another process wrote it first.
    async fn write(&self, step: LeaseStep, lease: Option<&Lease>) -> Result<Option<Held>, kube::Error> {
        let renewed = Instant::now();
        let wanted = after(step, lease, &self.identity, now());
        let written = match lease {
            None => self.leases.create(&PostParams::default(), &wanted).await,
            Some(_) => self.leases.replace(LEASE, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(lease) => Ok(Some(Held { lease, renewed })),
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renews the Lease until it is lost; returns why, for people.
    async fn keep(&self, held: &mut Held) -> String {
        loop {
            sleep(RETRY).await;
            let left = DEADLINE.saturating_sub(held.renewed.elapsed());
            match timeout(left, self.renew(held)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(holder))) => return format!("{holder:?} holds it now"),
                Ok(Err(error)) => warn!(lease = LEASE, %error, "cannot renew the lease"),
                Err(_) => return format!("it could not be renewed for {} s", DEADLINE.as_secs()),
            }
        }
    }

    /// Renews the Lease once; `Some`: another controller holds it.
    async fn renew(&self, held: &mut Held) -> Result<Option<String>, kube::Error> {
        if let Some(renewed) = self.write(LeaseStep::Renew, Some(&held.lease)).await? {
            *held = renewed;
            return Ok(None);
        }
        // Another process wrote it, but perhaps not its holder.
        held.lease = self.leases.get(LEASE).await?;
        let holder = held.lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        Ok((holder != self.identity).then_some(holder))
    }

    /// Releases the Lease, so that the next controller does not wait for its expiry.
    async fn release(&self, held: Held) -> Result<(), kube::Error> {
        let mut lease = held.lease;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(now());
        }
        match self.leases.replace(LEASE, &PostParams::default(), &lease).await {
            // Another controller has taken it already.
            Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
            written => written.map(drop),
        }
    }
}

fn now() -> MicroTime {
    let (seconds, nanos) = clock::now();
    let nanos = i32::try_from(nanos).expect("less than a second");
    MicroTime(Timestamp::new(seconds, nanos).expect("a time that clocks show"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{Method, Request, Response, StatusCode};
    use kube::client::{Body, Client};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        Lease { metadata: ObjectMeta::default(), spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_taken_without_a_holder_or_a_renewal() {
        let seconds = Duration::from_secs;
        for (lease, unchanged, expected) in [
            (None, seconds(0), LeaseStep::Create),
            (Some(lease(None, None)), seconds(0), LeaseStep::Take),
            (Some(lease(Some(""), Some(15))), seconds(0), LeaseStep::Take),
            (Some(lease(Some("me"), Some(15))), seconds(99), LeaseStep::Renew),
            (Some(lease(Some("other"), Some(15))), seconds(14), LeaseStep::Wait),
            (Some(lease(Some("other"), Some(15))), seconds(15), LeaseStep::Take),
            // The holder's own duration counts.
            (Some(lease(Some("other"), Some(137))), seconds(136), LeaseStep::Wait),
            (Some(lease(Some("other"), None)), seconds(29), LeaseStep::Wait),
            (Some(lease(Some("other"), Some(-1))), seconds(30), LeaseStep::Take),
        ] {
            assert_eq!(decide(lease.as_ref(), "me", unchanged), expected, "{lease:?} {unchanged:?}");
        }
    }

    /// An apiserver with one Lease, which reports conflicts.
    #[derive(Clone, Default)]
    struct Server {
        lease: Arc<Mutex<Option<Value>>>,
        down: Arc<Mutex<bool>>,
    }

    impl Server {
        fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
            let mut there = self.lease.lock().unwrap();
            let failure = |code: u16, reason: &str| {
                let status =
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
                (StatusCode::from_u16(code).unwrap(), status)
            };
            if *self.down.lock().unwrap() {
                return failure(500, "InternalError");
            }
            let before = there.as_ref().map(|it| it["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
            let mut given: Value = serde_json::from_slice(body).unwrap_or_default();
            let based_on = given["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            match (method.as_str(), before) {
                ("GET", None) => failure(404, "NotFound"),
                ("GET", Some(_)) => (StatusCode::OK, there.clone().unwrap()),
                ("POST", Some(_)) => failure(409, "AlreadyExists"),
                ("PUT", before) if before != based_on || before.is_none() => failure(409, "Conflict"),
                ("POST" | "PUT", before) => {
                    let version = before.map_or(1, |before| before.parse::<u32>().unwrap() + 1);
                    given["metadata"]["resourceVersion"] = version.to_string().into();
                    *there = Some(given.clone());
                    (StatusCode::OK, given)
                }
                _ => failure(405, "MethodNotAllowed"),
            }
        }

        fn candidate(&self, identity: &str) -> Candidate {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect_bytes().await?;
                    let (status, answer) = server.answer(&parts.method, &body);
                    let body = Body::from(serde_json::to_vec(&answer).unwrap());
                    Ok::<_, kube::Error>(Response::builder().status(status).body(body).unwrap())
                }
            });
            Candidate::new(Api::namespaced(Client::new(service, "adp"), "adp"), identity.to_owned())
        }

        fn spec(&self, field: &str) -> Value {
            self.lease.lock().unwrap().as_ref().unwrap()["spec"][field].clone()
        }
    }

    async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> Option<T> {
        timeout(Duration::from_secs(seconds), future).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_candidate_works_and_the_next_takes_a_released_lease() {
        let server = Server::default();
        let (first, second) = (server.candidate("first"), server.candidate("second"));
        let mut held = within(1, first.acquire()).await.expect("the lease has no holder");
        // While the holder renews the lease, it is neither lost nor taken.
        let (lost, taken) = tokio::join!(within(300, first.keep(&mut held)), within(300, second.acquire()));
        assert!(lost.is_none() && taken.is_none());
        assert_eq!(server.spec("holderIdentity"), "first");
        first.release(held).await.unwrap();
        assert!(within(1, second.acquire()).await.is_some());
        assert_eq!((server.spec("holderIdentity"), server.spec("leaseTransitions")), (json!("second"), json!(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_stops_renewing_is_replaced_and_notices_it() {
        let server = Server::default();
        let (first, second) = (server.candidate("first"), server.candidate("second"));
        let mut held = within(1, first.acquire()).await.unwrap();
        // The holder was killed. The other candidate waits until the lease expires.
        assert!(within(29, second.acquire()).await.is_none());
        assert!(within(40, second.acquire()).await.is_some());
        // The first holder was only suspended: its deadline has passed.
        assert!(within(10, first.keep(&mut held)).await.is_some());
        first.release(held).await.unwrap();
        assert_eq!(server.spec("holderIdentity"), "second", "a lease of another holder is not released");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_cannot_reach_the_apiserver_gives_up_before_the_lease_expires() {
        let server = Server::default();
        let first = server.candidate("first");
        let mut held = within(1, first.acquire()).await.unwrap();
        *server.down.lock().unwrap() = true;
        let start = Instant::now();
        let why = within(60, first.keep(&mut held)).await.expect("it is lost");
        assert!(start.elapsed() <= DEADLINE && why.contains("20 s"), "{why} after {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_is_released_after_the_work_and_the_work_ends_if_the_lease_is_lost() {
        let server = Server::default();
        let stop = CancellationToken::new();
        server.candidate("first").lead(&stop, sleep(Duration::from_secs(100))).await.unwrap();
        assert_eq!(server.spec("holderIdentity"), Value::Null, "the lease is released");
        // A candidate that is stopped while it waits has nothing to release.
        let held = within(1, server.candidate("first").acquire()).await.unwrap();
        let second = server.candidate("second");
        let waits = second.lead(&stop, async { panic!("another controller holds the lease") });
        let stopped = async {
            sleep(Duration::from_secs(10)).await;
            stop.cancel();
        };
        assert!(tokio::join!(waits, stopped).0.is_ok());
        // Work that has not finished ends when the lease is lost.
        let stop = CancellationToken::new();
        server.candidate("first").release(held).await.unwrap();
        let first = server.candidate("first");
        let works = first.lead(&stop, std::future::pending());
        let stolen = async {
            sleep(Duration::from_secs(1)).await;
            server.lease.lock().unwrap().as_mut().unwrap()["spec"]["holderIdentity"] = "thief".into();
            server.lease.lock().unwrap().as_mut().unwrap()["metadata"]["resourceVersion"] = "77".into();
        };
        let lost = tokio::join!(works, stolen).0.unwrap_err().to_string();
        assert!(lost.contains("thief"), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_container_takes_its_own_lease_at_once() {
        let server = Server::default();
        drop(within(1, server.candidate("first").acquire()).await.unwrap());
        assert!(within(1, server.candidate("first").acquire()).await.is_some());
    }
}
