//! `vsm-mover`: parses the command line, runs the command, and turns its outcome into restic's exit codes:
//!
//! 0 done; 1 an error; 3 done, but incomplete; 10 no repository; 11 the repository is locked; 12 wrong
//! password; 130 interrupted.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use vsm::cli::{self, Outcome};

/// Settings of glibc's allocator, which reads them from the environment at the start of a process. By
/// default it has 8 arenas per core and serves buffers of up to 32 MiB from them once a buffer of that
/// size was freed: what is freed there stays with the process. A backup of 1,000,000 files with
/// `--memory 64M` had 91 to 109 MiB resident, and has 73 MiB with these. A threshold of 128 KiB saves no
/// more, and costs a tenth of a backup's time.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "4"), ("MALLOC_MMAP_THRESHOLD_", "4194304")];

/// Starts this program again with the settings of the allocator, unless the user has chosen any. If that
/// is impossible, the process goes on without them.
fn set_allocator() {
    if ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into());
    let _ = Command::new(program).arg0(name).args(arguments).envs(ALLOCATOR).exec();
}

fn main() -> ExitCode {
    set_allocator();
    vsm::host::forbid_core_dumps();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match cli::parse(&arguments) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let format = cli.format();
    let (code, message) = match cli::run(cli) {
        Ok(Outcome::Complete) => (0, None),
        Ok(Outcome::Incomplete(what)) => (3, Some(format!("Warning: {what}"))),
        Err(error) => (cli::exit_code(&error), cli::message(&error).map(|message| format!("Fatal: {message}"))),
    };
    if let Some(message) = message {
        cli::report_exit(format, code, &message);
    }
    ExitCode::from(code)
}
