//! The life of the process: command line, log, settings, runtime, command, exit code.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use waldex::cli::{self, Cli, EXIT_DONE, EXIT_STOPPED, EXIT_USAGE};
use waldex::commands;
use waldex::config::{load_from_process, load_logging, process_variable};
use waldex::error::Error;
use waldex::logging;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(&cli) {
        Ok(()) => ExitCode::from(EXIT_DONE),
        Err(error) => report(&error),
    }
}

/// Help and version go to stdout, everything else to stderr.
fn usage(error: &clap::Error) -> ExitCode {
    let code = cli::exit_code_for(error);
    if code == EXIT_DONE {
        // A closed pipe is no mistake of the user's.
        let _ = error.print();
    } else {
        let _ = write!(std::io::stderr(), "{}", cli::usage_text(error));
    }
    ExitCode::from(code)
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if let Some(sentence) = cli.command.not_in_this_version() {
        return Err(Usage(sentence).into());
    }
    let on_terminal = std::io::stderr().is_terminal();
    let log = load_logging(&cli.common, &process_variable, on_terminal)
        .map_err(|errors| Usage(errors.to_string()))?;
    let settings = load_from_process(&cli.common).map_err(|errors| Usage(errors.to_string()))?;
    logging::start(log);
    // One thread: with more, each message of the stream wakes one thread to wake another, which costs four
    // times what the rows themselves do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(commands::run(&cli.command, &settings));
    // A task that still waits for an answer must not hold up the end.
    runtime.shutdown_background();
    Ok(done?)
}

/// Bad usage or configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The reason comes last, each problem on a line of its own, with what to do.
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Usage(text)) = error.downcast_ref() {
        complain(text);
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(error) = error.downcast_ref::<Error>() else {
        complain(format_args!("waldex: {error:#}"));
        return ExitCode::from(EXIT_STOPPED);
    };
    complain(format_args!("waldex: {error}"));
    if let Error::Preflight(problems) = error {
        for problem in problems {
            complain(format_args!("  {}; fix: {}", problem.what, problem.fix));
        }
    }
    if let Some(remedy) = error.remedy() {
        complain(format_args!("  {remedy}"));
    }
    ExitCode::from(error.exit_code())
}

/// A line on stderr; `eprintln!` would panic if nobody reads it any more.
fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
