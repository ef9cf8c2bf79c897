//! Makes sure that a server and its directory vanish with the process that started them.
//!
//! `Drop` does not run for statics, nor after `abort` or `kill -9`; a pipe's end does close. So
//! each server has a small shell beside it that waits for the end of its input.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("watchdog.sh");

/// The shell that waits for our end.
pub struct Watchdog {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    /// Guards `directory`; `signal` (as `kill -s` names it) stops the server at once, `container`
    /// is removed too.
    pub fn guard(directory: &Path, signal: &str, container: Option<&str>) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "waldex-watchdog"])
            .arg(directory)
            .args([signal, container.unwrap_or_default()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal goes to the foreground group; this one must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot start \"sh\"")?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// The server now runs as `pid`, which began at `start_time` (field 22 of its stat line).
    pub fn watch(&mut self, pid: u32, start_time: u64) -> Result<()> {
        self.tell(&format!("{pid} {start_time}\n"))
    }

    /// No server runs.
    pub fn forget(&mut self) -> Result<()> {
        self.tell("0 0\n")
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the watchdog was dismissed")?;
        input.write_all(line.as_bytes()).context("the watchdog is gone")
    }
}

impl Watchdog {
    /// Ends the server and removes its directory now.
    pub fn dismiss(&mut self) {
        drop(self.input.take());
        // Nothing useful is left to do about a failure here: the shell does the rest by itself.
        let _ = self.shell.wait();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.dismiss();
    }
}
