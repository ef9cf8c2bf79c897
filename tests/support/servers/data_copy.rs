//! A second server on a copy of a first one's data: a standby, or a backup that was restored.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::backend::{Backend, scratch_directory};
use super::locate;
use super::postgres::{PASSWORD, Postgres, USER};
use super::watchdog::Watchdog;

/// A cold copy of a server's data, not yet started.
pub struct DataCopy {
    program: PathBuf,
    directory: PathBuf,
    watchdog: Watchdog,
}

impl Postgres {
    /// Copies the data of this server, which must be stopped in good order.
    pub fn copy_data(&self) -> Result<DataCopy> {
        let Backend::Local(process) = self.backend() else {
            bail!("only a server of this machine can be copied");
        };
        if process.pid().is_some() {
            bail!("a server that runs cannot be copied cold");
        }
        let (directory, watchdog) = scratch_directory("pg", "QUIT", None)?;
        fs::create_dir(directory.join("socket"))?;
        locate::give(&directory, locate::server_user())?;
        let (from, to) = (process.directory().join("data"), directory.join("data"));
        locate::run(Command::new("cp").arg("-a").arg(from).arg(to))?;
        Ok(DataCopy { program: process.program().to_owned(), directory, watchdog })
    }
}

impl DataCopy {
    /// Starts a server on it as it is, at a port of its own.
    pub fn start(self) -> Result<Postgres> {
        Postgres::start_on(&self.program, self.directory, self.watchdog, &[])
    }

    /// Starts it as a standby of `primary` that uses its physical slot `slot`, with these further settings.
    pub fn start_standby(self, primary: &Postgres, slot: &str, conf: &[&str]) -> Result<Postgres> {
        let signal = self.directory.join("data/standby.signal");
        fs::write(&signal, "").context("cannot write standby.signal")?;
        locate::give(&signal, locate::server_user())?;
        let port = primary.port();
        let mut lines = vec![
            format!(
                "primary_conninfo='host=127.0.0.1 port={port} user={USER} password={PASSWORD} \
                 dbname=postgres'"
            ),
            format!("primary_slot_name='{slot}'"),
            "hot_standby_feedback=on".to_owned(),
        ];
        lines.extend(conf.iter().map(|line| (*line).to_owned()));
        Postgres::start_on(&self.program, self.directory, self.watchdog, &lines)
    }
}
