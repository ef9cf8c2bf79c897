//! What a child process costs: CPU time and peak memory, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::support::waldex::Running;

const POLL: Duration = Duration::from_millis(10);
/// `USER_HZ`, the unit of `/proc/<pid>/stat` on every Linux of today.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time, user and system, of all its threads.
    pub(crate) cpu: Duration,
    /// Most memory it ever had in RAM.
    pub(crate) peak_rss_bytes: u64,
}

impl Usage {
    /// CPU time divided by `rows`, in microseconds.
    pub(crate) fn cpu_micros_per(&self, rows: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rows = rows as f64;
        self.cpu.as_secs_f64() * 1e6 / rows
    }
}

/// Waits until the child has ended, and says what it used in all.
pub(crate) async fn until_end(child: &Running) -> Result<Usage> {
    let mut last = Usage::default();
    while let Some((usage, has_ended)) = usage(child) {
        // An ended process keeps its times until it is waited for; its memory is gone at once.
        last =
            Usage { cpu: usage.cpu, peak_rss_bytes: usage.peak_rss_bytes.max(last.peak_rss_bytes) };
        if has_ended {
            return Ok(last);
        }
        tokio::time::sleep(POLL).await;
    }
    anyhow::bail!("the child vanished before it was waited for")
}

/// What the child has used so far.
pub(crate) fn so_far(child: &Running) -> Result<Usage> {
    usage(child).map(|(usage, _)| usage).context("the child has vanished")
}

fn usage(child: &Running) -> Option<(Usage, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS_PER_SECOND);
    let has_ended = *fields.first()? == "Z";
    Some((Usage { cpu, peak_rss_bytes: child.peak_rss_bytes().unwrap_or(0) }, has_ended))
}
