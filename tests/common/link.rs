//! A link with latency and bounded rates, emulated: a TCP proxy before a server on this machine.
//!
//! What it models: half a round trip of delay in each direction, one round trip for a connect, a
//! rate for each connection and one that all connections share, each way by itself. What it does
//! not model: slow start, loss, TLS handshakes. A connection is read no faster than it may be
//! passed on, so that a sender is slowed down as on a real link; connections take turns in pieces.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a link does to bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    pub round_trip: Duration,
    /// Bytes per second of one connection, each way.
    pub each: f64,
    /// Bytes per second of all connections together, each way.
    pub shared: f64,
}

/// Bytes passed on at a time. Small beside what a connection carries in a round trip.
const PIECE: usize = 32 << 10;
/// Pieces under way in one direction of a connection: more than any profile carries in its delay.
const UNDER_WAY: usize = 256;
/// The time that a rate may catch up with after its thread was late.
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
                // A client that is gone already needs no answer, and a server that is gone no client.
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

/// Bytes that pass one after the other.
struct Rate {
    per_second: f64,
    /// When the last of them has passed.
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

/// A piece and when it arrives; an empty one is the end.
type Piece = (Instant, Vec<u8>);

/// Carries one direction of a connection on two threads of its own; the first bytes take `connect` longer.
fn carry(from: &TcpStream, to: &TcpStream, profile: Profile, shared: &Arc<Rate>, connect: Duration) -> io::Result<()> {
    let (mut from, mut to, shared) = (from.try_clone()?, to.try_clone()?, shared.clone());
    to.set_nodelay(true)?;
    let (pieces, arriving): (SyncSender<Piece>, Receiver<Piece>) = sync_channel(UNDER_WAY);
    thread::spawn(move || {
        let own = Rate::new(profile.each);
        let mut delay = profile.round_trip / 2 + connect;
        loop {
            let mut piece = vec![0; PIECE];
            // A connection that broke has ended, too.
            let length = from.read(&mut piece).unwrap_or(0);
            piece.truncate(length);
            let passed = own.pass(length).max(shared.pass(length));
            wait_until(passed);
            if pieces.send((passed + delay, piece)).is_err() || length == 0 {
                // Whoever still sends must not wait for ever.
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
