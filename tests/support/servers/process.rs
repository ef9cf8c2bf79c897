//! One throwaway server process: start, kill, stop, freeze, start again with the same data.
//!
//! Linux only: `/proc` tells which processes belong to the server. Postgres backends leave its
//! process group, and Elasticsearch's launcher is the parent of the real server, so everything
//! here acts on the whole family. All methods block; none is meant for a hot path.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;

use super::locate::User;
use super::watchdog::Watchdog;

/// How long a graceful stop may take before it is a kill.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What to run, and how to stop it.
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment, apart from `PATH` and `HOME`.
    pub env: Vec<(String, String)>,
    /// The server's own directory; removed at the end.
    pub directory: PathBuf,
    /// Who to be when we are root: the servers refuse to run as root.
    pub user: Option<User>,
    /// The signal of a graceful stop.
    pub graceful: Signal,
}

struct State {
    child: Option<Child>,
    watchdog: Watchdog,
}

/// A server of this machine.
pub struct Process {
    launch: Launch,
    state: Mutex<State>,
}

impl Process {
    /// Starts the server, which need not be ready yet. The watchdog guards its directory already.
    pub fn start(launch: Launch, watchdog: Watchdog) -> Result<Self> {
        let process = Self { launch, state: Mutex::new(State { child: None, watchdog }) };
        process.start_again()?;
        Ok(process)
    }

    /// Starts the server after [`Process::kill`] or [`Process::stop`], on its old port and data.
    pub fn start_again(&self) -> Result<()> {
        let mut state = self.state();
        if state.child.is_some() {
            bail!("\"{}\" is running", self.launch.program.display());
        }
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.launch.program);
        command
            .args(&self.launch.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", &self.launch.directory)
            .envs(self.launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(user) = self.launch.user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start \"{}\"", self.launch.program.display()))?;
        let start_time = stat(child.id()).map_or(0, |stat| stat.start_time);
        let watched = state.watchdog.watch(child.id(), start_time);
        state.child = Some(child);
        watched
    }

    /// `kill -9` of the server and all its processes at once; returns when they are gone.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        self.kill_locked(&mut state)
    }

    fn kill_locked(&self, state: &mut State) -> Result<()> {
        let Some(child) = state.child.as_mut() else { return Ok(()) };
        let family = family(child.id());
        // The parent first, so that it starts nothing new while its children fall.
        for pid in &family {
            signal(*pid, Signal::KILL);
        }
        child.wait().context("cannot wait for the server")?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while family.iter().any(|pid| stat(*pid).is_some_and(|stat| !stat.is_zombie)) {
            if Instant::now() > deadline {
                bail!("a killed server is still there after {STOP_DEADLINE:?}");
            }
            sleep(POLL);
        }
        state.child = None;
        state.watchdog.forget()
    }

    /// Asks the server to stop in good order and waits for it.
    pub fn stop(&self) -> Result<()> {
        let mut state = self.state();
        let Some(child) = state.child.as_mut() else { return Ok(()) };
        signal(child.id(), self.launch.graceful);
        let deadline = Instant::now() + STOP_DEADLINE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return self.kill_locked(&mut state);
            }
            sleep(POLL);
        }
        state.child = None;
        state.watchdog.forget()
    }

    /// Freezes the server (`SIGSTOP`): its sockets stay open and nothing answers.
    pub fn suspend(&self) {
        for pid in self.pids() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets a frozen server go on.
    pub fn resume(&self) {
        for pid in self.pids() {
            signal(pid, Signal::CONT);
        }
    }

    /// The process that was started; none while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// All the server's processes, parents before children.
    pub fn pids(&self) -> Vec<u32> {
        self.pid().map(family).unwrap_or_default()
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&self) -> bool {
        let mut state = self.state();
        state.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The last lines the server wrote, for an error message.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // Java's stack frames say little and push the reason out of sight.
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("\tat ")).collect();
        lines.split_at(lines.len().saturating_sub(12)).1.join("\n")
    }

    /// The executable.
    pub fn program(&self) -> &Path {
        &self.launch.program
    }

    /// The server's directory.
    pub fn directory(&self) -> &Path {
        &self.launch.directory
    }

    fn log_path(&self) -> PathBuf {
        self.launch.directory.join("server.log")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog ends the server when it is dropped; only its zombie is left to us.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let child = state.child.take();
        state.watchdog.dismiss();
        if let Some(mut child) = child {
            let _ = child.wait();
        }
    }
}

/// Polls until `ready` says so; the server's own words are in the error.
pub fn wait_ready(
    process: &Process,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if process.has_ended() {
            bail!("the server ended while it started:\n{}", process.log_tail());
        }
        if Instant::now() > deadline {
            bail!("the server is not ready after {limit:?}:\n{}", process.log_tail());
        }
        sleep(POLL);
    }
    Ok(())
}

/// Sends `signal` to one process; one that is already gone is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

struct Stat {
    parent: u32,
    start_time: u64,
    is_zombie: bool,
}

/// Reads `/proc/<pid>/stat`; the command in parentheses may itself hold spaces and parentheses.
fn stat(pid: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        is_zombie: *fields.first()? == "Z",
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// `root` and its descendants, parents before children.
fn family(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}
