//! Emulates a link with latency and bounded rates: a TCP proxy before a server on this machine.
//!
//! It models half a round trip of delay in each direction, one round trip for a connect, a rate for
//! each connection and one that all connections share, for each direction separately. It does not
//! model slow start, loss and TLS handshakes. The proxy reads no faster than the link passes bytes
//! on, so a sender gets backpressure as on a real link. Connections take turns in pieces.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The latency and the rates of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    pub round_trip: Duration,
    /// Bytes per second of one connection, each way.
    pub each: f64,
    /// Bytes per second of all connections together, each way.
    pub shared: f64,
}

/// Bytes passed on at a time: few compared with the bytes that a connection carries in a round
/// trip.
const PIECE: usize = 32 << 10;
/// Pieces in flight in one direction of a connection: more than any profile carries in its delay.
const UNDER_WAY: usize = 256;
/// The time that a rate may catch up after its thread was scheduled late.
const SLACK: Duration = Duration::from_millis(5);

/// A running link; new connections are refused after its drop.
pub struct Link {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Link {
    /// A link to the server at a port of this machine.
    pub fn to(port: u16, profile: Profile) -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let (ends, up, down) =
            (ended.clone(), Arc::new(Rate::new(profile.shared)), Arc::new(Rate::new(profile.shared)));
        thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                // If the client or the server has disconnected, no response is needed.
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let _ = carry(&client, &server, profile, &up, profile.round_trip);
                let _ = carry(&server, &client, profile, &down, Duration::ZERO);
            }
        });
        Link { address, ended }
    }

    /// The port at this end.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// A rate limit: bytes pass one after the other.
struct Rate {
    per_second: f64,
    /// When the last byte has passed.
    busy_until: Mutex<Instant>,
}

impl Rate {
    fn new(per_second: f64) -> Rate {
        Rate { per_second, busy_until: Mutex::new(Instant::now()) }
    }

    /// When these bytes will have passed.
    fn pass(&self, bytes: usize) -> Instant {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = Instant::now().checked_sub(SLACK).unwrap_or(*busy_until);
        *busy_until = (*busy_until).max(earliest) + Duration::from_secs_f64(bytes as f64 / self.per_second);
        *busy_until
    }
}

/// A piece and the time of its arrival; an empty piece is the end.
type Piece = (Instant, Vec<u8>);

/// Carries one direction of a connection on two threads; the first bytes take `connect` longer.
fn carry(from: &TcpStream, to: &TcpStream, profile: Profile, shared: &Arc<Rate>, connect: Duration) -> io::Result<()> {
    let (mut from, mut to, shared) = (from.try_clone()?, to.try_clone()?, shared.clone());
    to.set_nodelay(true)?;
    let (pieces, arriving): (SyncSender<Piece>, Receiver<Piece>) = sync_channel(UNDER_WAY);
    thread::spawn(move || {
        let own = Rate::new(profile.each);
        let mut delay = profile.round_trip / 2 + connect;
        loop {
            let mut piece = vec![0; PIECE];
            // A broken connection counts as ended.
            let length = from.read(&mut piece).unwrap_or(0);
            piece.truncate(length);
            let passed = own.pass(length).max(shared.pass(length));
            wait_until(passed);
            if pieces.send((passed + delay, piece)).is_err() || length == 0 {
                // A sender must not block forever.
                let _ = from.shutdown(Shutdown::Read);
                return;
            }
            delay = profile.round_trip / 2;
        }
    });
    thread::spawn(move || {
        for (arrives, piece) in arriving {
            wait_until(arrives);
            if piece.is_empty() || to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    Ok(())
}

fn wait_until(moment: Instant) {
    let wait = moment.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        thread::sleep(wait);
    }
}
