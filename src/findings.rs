//! What is found before a start: what is in the way, and what is worth knowing. Each is one line with what to do.

/// One thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub what: String,
    /// The SQL, request or command that puts it right.
    pub fix: String,
    /// Who or what does that.
    pub cure: Cure,
    /// The table that it is about, schema-qualified as the state has it; none if it is about more than one.
    pub table: Option<String>,
}

/// How a problem goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Somebody acts.
    ByHand,
    /// `run --reload` puts it right.
    ByReload,
    /// Somebody acts, and a run waits for that.
    WhileRunning,
    /// It may pass by itself: another process reads the slot.
    ByWaiting {
        /// Whether that process calls itself as we do.
        is_waldex: bool,
    },
}

/// One thing that works and is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What there is, in one sentence.
    pub what: String,
    /// What can be done about it.
    pub advice: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is in the way.
    pub problems: Vec<Problem>,
    /// What is not.
    pub notes: Vec<Note>,
}

impl Problem {
    /// One that somebody has to put right.
    pub fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into(), cure: Cure::ByHand, table: None }
    }

    /// The same, of one table.
    #[must_use]
    pub fn of_table(self, schema: &str, name: &str) -> Self {
        Self { table: Some(format!("{schema}.{name}")), ..self }
    }
}

impl Note {
    /// A note.
    pub fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into() }
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "note: {}; {}", self.what, self.advice)
    }
}

impl Findings {
    /// Adds what another look has found.
    pub fn extend(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }
}
