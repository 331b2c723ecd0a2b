//! Counts the sequential round trips of a program, with a proxy before a server.
//!
//! The level of a request is 1 + the highest level of the requests whose response had been passed
//! on before the request arrived. The highest level of a run is its number of sequential round
//! trips. A response is held until all requests in flight have a response and every thread of the
//! program sleeps: concurrent requests have one level, however slow the machine is.
//!
//! A connection costs a round trip before its first request. [`Trips::with_connects`] counts it as
//! a request that gets a response at once; TLS would add another round trip.

use super::peers::Run;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Consecutive looks that must find the program asleep before responses are passed on: a thread may
/// sleep briefly between two steps of its work, and the proxy may not have read its request yet.
const LOOKS: usize = 10;

/// The requests and round trips of a run.
#[derive(Clone, Debug, Default)]
pub struct Trips {
    pub sequential: usize,
    pub with_connects: usize,
    pub connects: usize,
    /// The first line of each request, after its level.
    pub requests: Vec<(usize, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Asking,
    /// The server has responded, and the proxy holds the response.
    Held,
}

struct Connection {
    phase: Phase,
    /// The level of its last request.
    level: Level,
}

/// A level without connects, and one with them.
#[derive(Clone, Copy, Default)]
struct Level {
    plain: usize,
    connects: usize,
}

#[derive(Default)]
struct Traffic {
    connections: BTreeMap<usize, Connection>,
    answered: Level,
    trips: Trips,
}

struct State {
    target: String,
    traffic: Mutex<Traffic>,
    passed_on: Condvar,
}

impl State {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("no panic")
    }
}

/// A proxy that counts round trips.
pub struct RoundTrips {
    state: Arc<State>,
    port: u16,
}

impl RoundTrips {
    /// A proxy to a port of this machine.
    pub fn to(port: u16) -> RoundTrips {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let target = format!("127.0.0.1:{port}");
        let state = Arc::new(State { target, traffic: Mutex::default(), passed_on: Condvar::new() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for (id, client) in listener.incoming().flatten().enumerate() {
                let shared = shared.clone();
                shared.connect(id);
                std::thread::spawn(move || {
                    // A program may end with its connections open.
                    let _ = shared.serve(id, client);
                    shared.traffic().connections.remove(&id);
                    shared.passed_on.notify_all();
                });
            }
        });
        RoundTrips { state, port: own }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a program and counts its requests. No other program may use the proxy meanwhile.
    pub fn count(&self, command: &mut Command) -> (Run, Trips) {
        *self.state.traffic() = Traffic::default();
        let mut asleep = 0;
        let run = Run::watched(command, |program| {
            std::thread::sleep(Duration::from_millis(2));
            asleep = if sleeps(program) { asleep + 1 } else { 0 };
            if asleep >= LOOKS && self.state.pass_on() {
                asleep = 0;
            }
        });
        (run, std::mem::take(&mut self.state.traffic().trips))
    }
}

/// Whether every thread of a process waits for something.
fn sleeps(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.into_iter().all(|thread| {
        // The state is the first field after the name in parentheses (proc_pid_stat(5)).
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('S'))
    })
}

impl State {
    fn connect(&self, id: usize) {
        let mut traffic = self.traffic();
        traffic.trips.connects += 1;
        let level = Level { plain: 0, connects: traffic.answered.connects + 1 };
        traffic.connections.insert(id, Connection { phase: Phase::Idle, level });
    }

    /// Records the beginning of a request.
    fn ask(&self, id: usize, bytes: &[u8]) {
        let mut guard = self.traffic();
        let Traffic { connections, answered, trips } = &mut *guard;
        let Some(connection) = connections.get_mut(&id).filter(|one| one.phase == Phase::Idle) else { return };
        let plain = answered.plain + 1;
        let connects = answered.connects.max(connection.level.connects) + 1;
        *connection = Connection { phase: Phase::Asking, level: Level { plain, connects } };
        trips.sequential = trips.sequential.max(plain);
        trips.with_connects = trips.with_connects.max(connects);
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        trips.requests.push((plain, String::from_utf8_lossy(line).into_owned()));
    }

    /// Holds the beginning of a response.
    fn hold(&self, id: usize) {
        let mut traffic = self.traffic();
        match traffic.connections.get_mut(&id) {
            Some(connection) if connection.phase == Phase::Asking => connection.phase = Phase::Held,
            _ => return,
        }
        let is_held = |traffic: &mut Traffic| traffic.connections.get(&id).is_some_and(|one| one.phase == Phase::Held);
        drop(self.passed_on.wait_while(traffic, is_held).expect("no panic"));
    }

    /// Passes all responses on, if no request waits for one. Returns whether there were any.
    fn pass_on(&self) -> bool {
        let mut guard = self.traffic();
        let Traffic { connections, answered, .. } = &mut *guard;
        if connections.values().any(|one| one.phase == Phase::Asking) {
            return false;
        }
        let mut any = false;
        for connection in connections.values_mut().filter(|one| one.phase == Phase::Held) {
            connection.phase = Phase::Idle;
            answered.plain = answered.plain.max(connection.level.plain);
            answered.connects = answered.connects.max(connection.level.connects);
            any = true;
        }
        self.passed_on.notify_all();
        any
    }

    fn serve(self: &Arc<Self>, id: usize, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(&self.target)?;
        for side in [&client, &server] {
            side.set_nodelay(true)?;
        }
        let (mut from, mut to, shared) = (server.try_clone()?, client.try_clone()?, self.clone());
        let down = std::thread::spawn(move || {
            let _ = copy(&mut from, &mut to, |_| shared.hold(id));
            let _ = to.shutdown(Shutdown::Both);
        });
        let copied = copy(&mut client, &mut server, |bytes| self.ask(id, bytes));
        let _ = server.shutdown(Shutdown::Both);
        // A held response has no receiver any more.
        self.traffic().connections.remove(&id);
        self.passed_on.notify_all();
        let _ = down.join();
        copied
    }
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            got => {
                see(&piece[..got]);
                to.write_all(&piece[..got])?;
            }
        }
    }
}
