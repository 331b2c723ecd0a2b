//! An Azure Blob Storage server for one test: Azurite, Azure's own emulator, on a free loopback
//! port.

use super::listening::Server;
use super::peers::{Repo, installed};
use super::{certificates, scratch};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub const ACCOUNT: &str = "tests";
pub const KEY: &str = "dGhlIGtleSBvZiBhbiBhY2NvdW50IG9mIHRlc3RzIGFsb25l";
pub const CONTAINER: &str = "backups";
/// A suffix that no name server resolves: it is reachable through the proxy only.
const SUFFIX: &str = "azurite.test";

/// A running server; stopped on drop.
pub struct Azurite {
    _server: Server,
    pub port: u16,
    /// The authority that signed its certificate, if it speaks TLS.
    authority: Option<PathBuf>,
    /// Holds its data.
    _dir: TempDir,
}

impl Azurite {
    /// Starts a server for plain http, with paths that begin with the account.
    pub fn new() -> Azurite {
        Azurite::start(false)
    }

    /// Starts a server for https, with the account in the host name, as in Azure itself.
    pub fn with_tls() -> Azurite {
        Azurite::start(true)
    }

    fn start(tls: bool) -> Azurite {
        let dir = scratch();
        if tls {
            certificates::make(dir.path(), &format!("DNS:*.blob.{SUFFIX}"));
        }
        let server = Server::start(&dir.path().join("log"), |port| {
            let mut command = Command::new(installed("azurite-blob"));
            command.env_clear().env("HOME", dir.path()).env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
            command.args([
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port.to_string(),
                "--silent",
                "--disableTelemetry",
            ]);
            command.arg("--location").arg(dir.path().join("data"));
            if tls {
                command
                    .arg("--cert")
                    .arg(dir.path().join("server.pem"))
                    .arg("--key")
                    .arg(dir.path().join("server.key"));
            }
            command
        });
        let authority = tls.then(|| dir.path().join("ca.pem"));
        Azurite { port: server.port, _server: server, authority, _dir: dir }
    }

    /// The URL of the account's blob service.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    /// A repository in the container below `prefix`, with everything needed to reach it.
    pub fn repo(&self, prefix: &str) -> Repo {
        self.repo_by(self.port, prefix)
    }

    /// A repository that is reached through another port, which leads to the server.
    pub fn repo_by(&self, port: u16, prefix: &str) -> Repo {
        let authority = self.authority.as_ref().expect("only by https");
        let mut repo = Repo::at(format!("azure:{CONTAINER}:/{prefix}"));
        repo.set("AZURE_ACCOUNT_NAME", ACCOUNT)
            .set("AZURE_ACCOUNT_KEY", KEY)
            .set("AZURE_ENDPOINT_SUFFIX", SUFFIX)
            .set("HTTPS_PROXY", format!("http://127.0.0.1:{}", forwards_to(port)))
            .set("RESTIC_CACERT", authority)
            // Without a tier, restic sends an empty one, which Azurite refuses.
            .option("azure.access-tier=Hot");
        repo
    }
}

impl Default for Azurite {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a proxy that connects each client to one port, whatever host it asks for, and returns the
/// proxy's own port. It runs until the process ends.
fn forwards_to(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || forward(client, port));
        }
    });
    own
}

fn forward(mut client: TcpStream, port: u16) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(std::net::Shutdown::Write)
    });
    let _ = std::io::copy(&mut server, &mut client);
    client.shutdown(std::net::Shutdown::Write).ok()
}
