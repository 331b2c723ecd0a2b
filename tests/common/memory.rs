//! Limits the memory of programs with a memory cgroup: the kernel kills a program beyond the limit,
//! as in a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// A memory cgroup with a limit; removed on drop.
pub struct MemoryLimit(PathBuf);

/// The mount points of the memory controller of cgroup v1 and v2.
const FIRST: &str = "/sys/fs/cgroup/memory";
const SECOND: &str = "/sys/fs/cgroup";

impl MemoryLimit {
    pub fn of_mib(mib: u64) -> MemoryLimit {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("vsm-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let limit = (mib << 20).to_string();
        if Path::new(FIRST).join("memory.limit_in_bytes").exists() {
            let group = MemoryLimit::made(Path::new(FIRST).join(name));
            group.set("memory.limit_in_bytes", &limit);
            return group;
        }
        // The kernel refuses this in a group that has processes; there, the controller is already
        // enabled.
        let _ = fs::write(Path::new(SECOND).join("cgroup.subtree_control"), "+memory");
        let group = MemoryLimit::made(Path::new(SECOND).join(name));
        group.set("memory.max", &limit);
        let _ = fs::write(group.0.join("memory.swap.max"), "0");
        group
    }

    fn made(path: PathBuf) -> MemoryLimit {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create the memory cgroup {path:?}: {error}"));
        MemoryLimit(path)
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.0.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }

    /// A copy of `command` that runs within the limit.
    pub fn command(&self, command: &Command) -> Command {
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        limited.arg(command.get_program()).args(command.get_args());
        limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            limited.current_dir(dir);
        }
        limited
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The kernel may not have reaped the last process yet.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
