//! A server in a container, where a Docker engine answers.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::backend::scratch_directory;
use super::locate;
use super::watchdog::Watchdog;

/// A container that vanishes with us.
pub struct Container {
    name: String,
    _watchdog: Watchdog,
}

impl Container {
    /// `docker run` with these arguments (options, image, command).
    pub fn start(args: &[String]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("waldex-test-{}-{number}", std::process::id());
        let watchdog = scratch_directory("docker", "TERM", Some(&name))?.1;
        locate::say(&format!("starting container \"{name}\""));
        locate::run(Command::new("docker").args(["run", "-d", "--name", &name]).args(args))?;
        Ok(Self { name, _watchdog: watchdog })
    }

    /// One of docker's verbs: kill, stop, start, pause, unpause.
    pub fn tell(&self, verb: &str) -> Result<()> {
        locate::run(Command::new("docker").args([verb, &self.name])).map(drop)
    }

    /// Waits until a command succeeds inside the container.
    pub fn wait_until(&self, limit: Duration, command: &[&str]) -> Result<()> {
        let deadline = Instant::now() + limit;
        let probe =
            || locate::output(Command::new("docker").args(["exec", &self.name]).args(command));
        while probe().is_none() {
            if Instant::now() > deadline {
                bail!("container \"{}\" is not ready after {limit:?}", self.name);
            }
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}
