//! A waldex that is started again whenever it ended, as an init system does, and whose log is kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::support::waldex::{Finished, Running, Waldex};

/// Words of a log line after which no restart helps.
const HOPELESS: [&str; 2] = ["needs_resync", "panicked"];

/// Keeps one waldex running.
pub(crate) struct Supervised {
    command: Box<dyn Fn() -> Result<Waldex> + Send>,
    running: Option<Running>,
    past: Vec<String>,
    starts: u32,
    peak_rss_bytes: u64,
}

impl Supervised {
    /// Starts it.
    pub(crate) fn start(command: impl Fn() -> Result<Waldex> + Send + 'static) -> Result<Self> {
        let command = Box::new(command);
        let mut new =
            Self { command, running: None, past: Vec::new(), starts: 0, peak_rss_bytes: 0 };
        new.keep_up()?;
        Ok(new)
    }

    /// Starts it again if it has ended; an error if it ended for a reason that stays.
    pub(crate) fn keep_up(&mut self) -> Result<()> {
        self.sample_rss();
        if let Some(running) = &mut self.running {
            if running.is_running() {
                return Ok(());
            }
            self.kill()?;
            self.fail_if_hopeless()?;
        }
        self.starts += 1;
        self.past.push(format!("--- start {}", self.starts));
        self.running = Some((self.command)()?.spawn()?);
        Ok(())
    }

    fn fail_if_hopeless(&self) -> Result<()> {
        let hopeless = |line: &&String| HOPELESS.iter().any(|word| line.contains(word));
        match self.past.iter().find(hopeless) {
            Some(line) => bail!("waldex gave up: {line}"),
            None => Ok(()),
        }
    }

    /// `kill -9`; it stays down until [`Supervised::keep_up`].
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.sample_rss();
        if let Some(running) = self.running.take() {
            let finished = running.kill()?;
            self.remember(&finished);
        }
        Ok(())
    }

    /// SIGTERM; waits for its end, which must be one in good order.
    pub(crate) async fn stop(&mut self, limit: Duration) -> Result<Finished> {
        let finished = self.try_stop(limit).await?.context("it does not run")?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    /// SIGTERM; waits for its end, of whatever kind. None if it does not run.
    pub(crate) async fn try_stop(&mut self, limit: Duration) -> Result<Option<Finished>> {
        self.sample_rss();
        let Some(running) = self.running.take() else { return Ok(None) };
        running.terminate();
        let finished = running.finish(limit).await?;
        self.remember(&finished);
        Ok(Some(finished))
    }

    fn remember(&mut self, finished: &Finished) {
        self.past.extend(finished.stderr.iter().chain(&finished.stdout).cloned());
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, which: Signal) {
        if let Some(running) = &self.running {
            running.signal(which);
        }
    }

    fn sample_rss(&mut self) {
        let now = self.running.as_ref().and_then(Running::peak_rss_bytes).unwrap_or(0);
        self.peak_rss_bytes = self.peak_rss_bytes.max(now);
    }

    /// Peak of all its lives so far.
    pub(crate) fn peak_rss_bytes(&mut self) -> u64 {
        self.sample_rss();
        self.peak_rss_bytes
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        let now = self.running.as_ref().map(Running::lines).unwrap_or_default();
        self.past.iter().cloned().chain(now).collect()
    }

    /// Writes the whole log to a file that outlives the test, and says where.
    pub(crate) fn keep_log(&self, name: &str) -> Result<PathBuf> {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = directory.join(format!("{name}.log"));
        std::fs::write(&file, self.log().join("\n"))?;
        Ok(file)
    }
}
