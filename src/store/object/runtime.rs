//! Runs async calls from plain threads: each thread drives its own calls, in a runtime of its own.
//!
//! A thread thus reads its connections itself, while the bytes are in the cache of its core, and
//! waits for no other thread. Its requests make no progress while it does something else.

use std::io;
use thread_local::ThreadLocal;
use tokio::runtime::{Builder, Runtime};

/// The runtimes of all threads that have called.
#[derive(Default)]
pub(super) struct Runtimes(ThreadLocal<Runtime>);

impl Runtimes {
    /// Runs `work` to its end. An error means that the kernel lacks what a runtime needs.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        let runtime = self.0.get_or_try(|| Builder::new_current_thread().enable_all().build())?;
        Ok(runtime.block_on(async {
            // Servers may have closed connections since the last call: one turn receives that, the
            // other one handles it.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            work.await
        }))
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        // No call runs in them any more, and some threads must not block.
        std::mem::take(&mut self.0).into_iter().for_each(Runtime::shutdown_background);
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::{Clients, Scheme};
    use super::*;
    use crate::store::Options;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// On a connection that the server closed between two calls, the second call would fail.
    #[test]
    fn a_connection_that_the_server_closed_is_not_reused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (answered, may_close) = crossbeam_channel::bounded(0);
        let (closed, may_go_on) = crossbeam_channel::bounded(0);
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().take(20) {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                // The answer did not announce this.
                may_close.recv().unwrap();
                drop(stream);
                closed.send(()).unwrap();
            }
        });
        let (runtimes, clients) = (Runtimes::default(), Clients::new(&Options::default(), Scheme::Http).unwrap());
        for _ in 0..20 {
            let status =
                runtimes.block_on(async { clients.get().unwrap().get(&url).send().await.map(|got| got.status()) });
            assert_eq!(status.unwrap().unwrap(), 200);
            answered.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        server.join().unwrap();
    }
}
