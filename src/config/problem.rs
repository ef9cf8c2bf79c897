//! What is wrong with a configuration, and where it was written.
//!
//! A message may quote what stands in the file or in a flag, never a secret and never what a `${VAR}`
//! was replaced by.

use std::cmp::Ordering;
use std::fmt;

/// Where a setting was given, or should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file; line and column count from 1, the column in characters.
    File {
        /// The path as it was given.
        path: String,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// The configuration file as a whole.
    WholeFile {
        /// The path as it was given.
        path: String,
    },
    /// An environment variable.
    Variable(&'static str),
    /// A flag.
    Flag(&'static str),
    /// Nowhere: it is missing, or it follows from the configuration as a whole.
    Nowhere,
}

impl Place {
    /// File before variables before flags; inside the file by position.
    fn order(&self) -> (u8, usize, usize, &str) {
        match self {
            Self::WholeFile { path } => (0, 0, 0, path),
            Self::File { path, line, column } => (0, *line, *column, path),
            Self::Variable(name) => (1, 0, 0, name),
            Self::Flag(name) => (2, 0, 0, name),
            Self::Nowhere => (3, 0, 0, ""),
        }
    }

    /// Whether this comes after `other` in the order problems are shown in.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        self.order() > other.order()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::WholeFile { path } => f.write_str(path),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and how it can be put right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong, one line each, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Sorts by place; problems of one place keep their order.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| -> Ordering { a.place.order().cmp(&b.place.order()) });
        problems.dedup();
        Self { problems }
    }

    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
