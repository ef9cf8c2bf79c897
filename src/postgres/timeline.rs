//! Timelines: the answer to `TIMELINE_HISTORY`, which tells where each branch of the WAL left the one before
//! (PostgreSQL docs, "Timelines").
//!
//! Pure.

use crate::lsn::Lsn;

/// The ancestors of one timeline, oldest first, each with the position at which the next one left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    ancestors: Vec<(u32, Lsn)>,
}

impl History {
    /// Reads a history file: one line an ancestor, `<timeline> <position> <why>`; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let ancestors = lines.filter(|line| !line.is_empty()).map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        Some(Self { ancestors: ancestors.collect::<Option<_>>()? })
    }

    /// Where `timeline` was left, if it is an ancestor: what lies before is common to both.
    pub fn left_at(&self, timeline: u32) -> Option<Lsn> {
        let found = self.ancestors.iter().find(|(ancestor, _)| *ancestor == timeline);
        found.map(|(_, lsn)| *lsn)
    }

    /// Where `timeline` (an ancestor, or the timeline that this is the history of) left the one before it;
    /// `None` of the first.
    pub fn begun_at(&self, timeline: u32) -> Option<Lsn> {
        let before = self.ancestors.iter().take_while(|(ancestor, _)| *ancestor != timeline);
        before.last().map(|(_, lsn)| *lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_writes() {
        let text = "1\t0/177CFD0\tno recovery target specified\n\n\
                    # a comment\n3\t16/B374D848\tbefore 2026-01-01 00:00:00+00 # here\n";
        let history = History::parse(text).unwrap();
        assert_eq!(history.left_at(1), Some(Lsn::new(0x0177_CFD0)));
        assert_eq!(history.left_at(3), Some(Lsn::new(0x16_B374_D848)));
        assert_eq!(history.left_at(2), None);
        assert_eq!(history.begun_at(1), None);
        assert_eq!(history.begun_at(3), Some(Lsn::new(0x0177_CFD0)));
        assert_eq!(history.begun_at(4), Some(Lsn::new(0x16_B374_D848)));
        for odd in ["1", "x 0/1 why", "1 0 why", "-1 0/1"] {
            assert_eq!(History::parse(odd), None, "{odd}");
        }
        assert_eq!(History::parse(""), Some(History::default()));
    }
}
