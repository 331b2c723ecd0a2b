//! The command `version`: prints the version of the program.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use anyhow::Result;
use serde::Serialize;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover version
  vsm-mover version --json")]
pub struct Args {}

/// restic's fields. The Go version is empty, because this program is not written in Go.
#[derive(Serialize)]
struct Version {
    message_type: &'static str,
    version: &'static str,
    go_version: &'static str,
    go_os: &'static str,
    go_arch: &'static str,
}

pub fn run(_: Args, context: &Context) -> Result<Outcome> {
    let go_arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (version, go_os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    if context.out.is_json() {
        context.out.json(&Version { message_type: "version", version, go_version: "", go_os, go_arch })?;
    } else {
        context.out.line(format_args!("vsm-mover {version} on {go_os}/{go_arch}"))?;
    }
    Ok(Outcome::Complete)
}
