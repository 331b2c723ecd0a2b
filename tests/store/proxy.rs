//! A proxy between a client and a server that breaks connections on demand, and counts requests.
//!
//! It handles one request per connection: the server is asked to close after every answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The fault of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is closed after this number of bytes of the answer.
    CutAnswer(usize),
    /// The connection is closed after this number of bytes of the request.
    CutRequest(usize),
    /// The server gets the request and answers, but the client does not get the answer.
    LoseAnswer,
    /// The connection stays open and nothing happens.
    Hang,
    /// An answer that the server never gave.
    Answer(&'static str),
}

struct State {
    target: String,
    faults: Mutex<Vec<(&'static str, Fault)>>,
    requests: Mutex<Vec<String>>,
    down: AtomicBool,
    ended: AtomicBool,
}

pub struct Proxy {
    state: Arc<State>,
    port: u16,
}

impl Proxy {
    /// A proxy to `host:port`.
    pub fn to(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            target: target.to_owned(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, Ok(client)) = (shared.clone(), client) else { continue };
                if !shared.down.load(Ordering::SeqCst) {
                    // Broken connections are the purpose of the proxy, so errors do not matter.
                    std::thread::spawn(move || drop(serve(&shared, client)));
                }
            }
        });
        Proxy { state, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks the next requests whose head contains `what`, one for each fault.
    pub fn inject(&self, what: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().expect("no panic").extend(faults.into_iter().map(|fault| (what, fault)));
    }

    /// Closes every connection at once, if `down`.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// The heads of all requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().expect("no panic"))
    }

    pub fn left(&self) -> usize {
        self.state.faults.lock().expect("no panic").len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(state: &State, mut client: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        match client.read(&mut piece)? {
            0 => return Ok(()),
            got => head.extend_from_slice(&piece[..got]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    state.requests.lock().expect("no panic").push(text.clone());
    let fault = {
        let mut faults = state.faults.lock().expect("no panic");
        let next = faults.iter().position(|(what, _)| text.contains(what));
        next.map(|next| faults.remove(next).1)
    };
    match fault {
        Some(Fault::Hang) => {
            std::thread::sleep(Duration::from_secs(10));
            return Ok(());
        }
        Some(Fault::Answer(answer)) => return client.write_all(answer.as_bytes()),
        Some(Fault::CutRequest(0)) => return Ok(()),
        _ => {}
    }
    let mut server = TcpStream::connect(&state.target)?;
    let (line, rest) = head.split_at(head.iter().position(|byte| *byte == b'\n').expect("a first line") + 1);
    for piece in [line, b"connection: close\r\n", rest] {
        server.write_all(piece)?;
    }
    let (up, down) = match fault {
        Some(Fault::CutRequest(limit)) => (limit, 0),
        Some(Fault::CutAnswer(limit)) => (usize::MAX, limit),
        Some(Fault::LoseAnswer) => (usize::MAX, 0),
        _ => (usize::MAX, usize::MAX),
    };
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let upwards = std::thread::spawn(move || {
        let _ = copy(&mut from, &mut to, up);
        if up != usize::MAX {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    });
    if matches!(fault, Some(Fault::LoseAnswer)) {
        // Only an answer shows that the server has processed the request.
        server.read_exact(&mut [0; 12])?;
    } else {
        copy(&mut server, &mut client, down)?;
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = upwards.join();
    Ok(())
}

/// Copies up to `limit` bytes.
fn copy(from: &mut TcpStream, to: &mut TcpStream, limit: usize) -> io::Result<()> {
    let mut left = limit;
    let mut piece = vec![0; 16 << 10];
    while left > 0 {
        let got = from.read(&mut piece[..left.min(16 << 10)])?;
        if got == 0 {
            break;
        }
        to.write_all(&piece[..got])?;
        left -= got;
    }
    Ok(())
}
