//! What a command prints. Whoever reads it may leave early, as `head` does: that is no error of the command.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::Error;

/// Prints a line.
///
/// # Errors
/// The output cannot be written, for another reason than that nobody reads it any more.
pub(super) fn line(text: impl Display) -> Result<(), Error> {
    print(format_args!("{text}\n"))
}

/// Prints text as it is, at once.
///
/// # Errors
/// As [`line`].
pub(super) fn print(text: impl Display) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
