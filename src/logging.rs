//! The log: to stderr, so that stdout is free for what a command prints.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging. Our own lines at the chosen level, those of libraries from `warn` on: at lower levels some
/// of them print what they send.
pub fn start(settings: LogSettings) {
    let level = settings.level.as_str();
    let filter = EnvFilter::new(format!("warn,waldex={level}"));
    let may_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(may_colour && std::io::stderr().is_terminal())
        // Whoever reads the log may leave; to complain of that would end the process.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // Only one log is started in a process; a second start changes nothing.
    let _ = match settings.format {
        LogFormat::Human => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_target(false).try_init(),
    };
}
