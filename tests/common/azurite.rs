//! Azure Blob Storage of a test's own: Azurite, Azure's own emulator, on a free port of the loopback interface.

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
/// A suffix that no name server knows: who asks for it comes by the proxy.
const SUFFIX: &str = "azurite.test";

/// A running server; stopped on drop.
pub struct Azurite {
    _server: Server,
    pub port: u16,
    /// The authority that its certificate is of, if it speaks TLS.
    authority: Option<PathBuf>,
    /// Holds its data.
    _dir: TempDir,
}

impl Azurite {
    /// By plain http, with paths that begin with the account.
    pub fn new() -> Azurite {
        Azurite::start(false)
    }

    /// By https, with the account in the name of the host, as Azure itself.
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

    /// A repository in the container below `prefix`, with all that is needed to reach it.
    pub fn repo(&self, prefix: &str) -> Repo {
        self.repo_by(self.port, prefix)
    }

    /// The same by another port that leads to the server.
    pub fn repo_by(&self, port: u16, prefix: &str) -> Repo {
        let authority = self.authority.as_ref().expect("only by https");
        let mut repo = Repo::at(format!("azure:{CONTAINER}:/{prefix}"));
        repo.set("AZURE_ACCOUNT_NAME", ACCOUNT)
            .set("AZURE_ACCOUNT_KEY", KEY)
            .set("AZURE_ENDPOINT_SUFFIX", SUFFIX)
            .set("HTTPS_PROXY", format!("http://127.0.0.1:{}", forwards_to(port)))
            .set("RESTIC_CACERT", authority)
            // Without a tier, restic sends an empty one, which Azurite does not take.
            .option("azure.access-tier=Hot");
        repo
    }
}

impl Default for Azurite {
    fn default() -> Self {
        Self::new()
    }
}

/// A proxy that connects everybody to one port, whatever host they name; its own port. It lives as long as the process.
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
