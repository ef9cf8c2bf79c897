//! The commands of the binary, one file each; `run` is the module [`crate::run`].

mod check;
mod dead_letters;
mod output;
mod retry;
mod setup;
mod status;
mod teardown;

use crate::cli::{Command, RunArgs};
use crate::error::Error;
use crate::run::shutdown::Shutdown;
use crate::run::{self, Options, dry_run};
use crate::settings::Settings;

/// Runs one command to its end.
///
/// # Errors
/// Why it did not do what it is for.
pub async fn run(command: &Command, settings: &Settings) -> Result<(), Error> {
    match command {
        Command::Run(args) => stream(args, settings).await,
        Command::Check => check::check(settings).await,
        Command::Setup(args) => setup::setup(settings, args.apply).await,
        Command::Status(args) => status::status(settings, args.json).await,
        Command::Teardown(args) => teardown::teardown(settings, args.yes).await,
        Command::DeadLetters(args) => dead_letters::dead_letters(settings, &args.action).await,
        // Refused before the configuration is read.
        Command::Plan(_) | Command::Reindex(_) | Command::Verify(_) => Ok(()),
    }
}

async fn stream(args: &RunArgs, settings: &Settings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals().map_err(Error::Signals)?;
    if args.dry_run {
        return Box::pin(dry_run::dry_run(settings, args.until, shutdown)).await;
    }
    let options = Options { until: args.until, reload: args.reload() };
    Box::pin(run::run(settings, options, shutdown)).await
}
