//! A Google Cloud Storage server for one test: fake-gcs-server on a free loopback port, behind an
//! [`Xml`] front.

mod xml;

use super::listening::Server;
use super::peers::{Repo, installed};
use super::{loops, scratch};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
pub use xml::Xml;

pub const TOKEN: &str = "tests-token";
pub const BUCKET: &str = "backups";
pub const PROJECT: &str = "tests-project";
pub const EMAIL: &str = "mover@tests-project.iam.gserviceaccount.com";
pub const KEY_ID: &str = "k1";

/// A running server; stopped on drop.
pub struct Google {
    server: Server,
    /// Serves Google's XML API.
    pub front: Xml,
    /// Holds its log.
    _dir: TempDir,
}

impl Default for Google {
    fn default() -> Self {
        Google::new()
    }
}

impl Google {
    /// Starts a server with one empty bucket.
    pub fn new() -> Google {
        let dir = scratch();
        let server = Server::start(&dir.path().join("log"), |port| {
            let mut command = Command::new(installed("fake-gcs-server"));
            let address = format!("127.0.0.1:{port}");
            command.env_clear().args(["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port"]);
            command.arg(port.to_string()).args(["-public-host", &address]);
            command.args(["-external-url", &format!("http://{address}"), "-log-level", "warn"]);
            command
        });
        // restic cannot create the bucket here: it does not recognise its library's error for a
        // missing bucket.
        let bucket = format!("{{\"name\": \"{BUCKET}\"}}");
        let url = format!("http://127.0.0.1:{}/storage/v1/b?project={PROJECT}", server.port);
        loops::run(Command::new("curl").args(["-sf", "-o", "/dev/null", "-d", &bucket, &url]));
        Google { front: Xml::before(server.port), server, _dir: dir }
    }

    /// A repository in the bucket below `prefix`, with everything needed to reach it.
    pub fn repo(&self, prefix: &str) -> Repo {
        self.repo_by(self.front.port, prefix)
    }

    /// A repository that ours reaches through another port, which leads to the front.
    pub fn repo_by(&self, port: u16, prefix: &str) -> Repo {
        let mut repo = Repo::at(format!("gs:{BUCKET}:/{prefix}"));
        repo.set("GOOGLE_ACCESS_TOKEN", TOKEN)
            .set("GOOGLE_PROJECT_ID", PROJECT)
            // restic's libraries find the server by this variable, and ours by the option below.
            .set("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{}", self.server.port));
        repo.own_option(&format!("gs.endpoint=http://127.0.0.1:{port}"));
        repo
    }
}

/// Makes the file of a new service account, and its keys `key.pem` and `public.pem` beside it.
pub fn service_account(dir: &Path) -> PathBuf {
    for line in [
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
        "pkey -in key.pem -pubout -out public.pem",
    ] {
        loops::run(Command::new("openssl").current_dir(dir).args(line.split(' ')));
    }
    let key = fs::read_to_string(dir.join("key.pem")).expect("a key");
    let account = json!({
        "type": "service_account", "project_id": PROJECT, "private_key_id": KEY_ID, "private_key": key,
        "client_email": EMAIL, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
    });
    let file = dir.join("account.json");
    fs::write(&file, account.to_string()).expect("a file");
    file
}
