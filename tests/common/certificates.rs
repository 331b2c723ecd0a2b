//! TLS certificates for the servers of tests.

use super::loops;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes an authority, and a server's certificate signed by it for a name such as `IP:127.0.0.1`.
pub fn make(dir: &Path, name: &str) {
    fs::write(dir.join("extensions"), format!("subjectAltName={name}\nbasicConstraints=critical,CA:FALSE\n"))
        .expect("a file");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for line in [
        &format!(
            "req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE"
        ),
        &format!("req -new {key} -subj /CN=server -keyout server.key -out server.csr"),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem",
    ] {
        loops::run(Command::new("openssl").current_dir(dir).args(line.split(' ')));
    }
}
