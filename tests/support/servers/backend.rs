//! What a server handle stands on, and what faults can be done to it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::docker::Container;
use super::process::Process;
use super::watchdog::Watchdog;

/// Where a server comes from.
pub enum Backend {
    /// We were pointed at it; it is not ours to stop.
    Given,
    /// A process of ours.
    Local(Process),
    /// A container of ours.
    Docker(Container),
}

impl Backend {
    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        match self {
            Self::Given => not_ours(),
            Self::Local(process) => process.kill(),
            Self::Docker(container) => container.tell("kill"),
        }
    }

    /// A stop in good order.
    pub fn stop(&self) -> Result<()> {
        match self {
            Self::Given => not_ours(),
            Self::Local(process) => process.stop(),
            Self::Docker(container) => container.tell("stop"),
        }
    }

    /// Starts the server again on its old port and data; does not wait until it is ready.
    pub fn start_again(&self) -> Result<()> {
        match self {
            Self::Given => not_ours(),
            Self::Local(process) => process.start_again(),
            Self::Docker(container) => container.tell("start"),
        }
    }

    /// Freezes the server: its sockets stay open and nothing answers.
    pub fn suspend(&self) -> Result<()> {
        match self {
            Self::Given => not_ours(),
            Self::Local(process) => {
                process.suspend();
                Ok(())
            }
            Self::Docker(container) => container.tell("pause"),
        }
    }

    /// Lets a frozen server go on.
    pub fn resume(&self) -> Result<()> {
        match self {
            Self::Given => not_ours(),
            Self::Local(process) => {
                process.resume();
                Ok(())
            }
            Self::Docker(container) => container.tell("unpause"),
        }
    }

    /// The process that was started, if it is one of this machine and runs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Local(process) => process.pid(),
            Self::Given | Self::Docker(_) => None,
        }
    }
}

fn not_ours() -> Result<()> {
    bail!("this server was pointed at: it is not ours to stop")
}

/// A new directory with the watchdog that will remove it. Short, because a Unix socket's path has 107
/// bytes.
pub fn scratch_directory(
    kind: &str,
    signal: &str,
    container: Option<&str>,
) -> Result<(PathBuf, Watchdog)> {
    let directory = tempfile::Builder::new().prefix(&format!("waldex-{kind}-")).tempdir()?;
    let watchdog = Watchdog::guard(directory.path(), signal, container)?;
    let directory = directory.keep();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    Ok((directory, watchdog))
}
