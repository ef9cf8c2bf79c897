//! `synchronous_standby_names`: whether it covers us, and the same without us.
//!
//! Pure. A logical walsender counts as a standby like any other (seen: with `*` it becomes the synchronous
//! one), so a name that matches ours makes every commit on the primary wait for the search cluster.
//! The grammar is that of the PostgreSQL docs: `a, b`, `2 (a, b)`, `FIRST 2 (a, b)`, `ANY 2 ("x", *)`.

use super::pinned::APPLICATION_NAME;

/// Matches every standby.
const ANY_NAME: &str = "*";

/// The setting, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StandbyNames {
    /// `FIRST` or `ANY`; `FIRST` if none is written.
    method: &'static str,
    /// How many of them a commit waits for.
    count: usize,
    names: Vec<String>,
}

impl StandbyNames {
    /// Reads the setting; Postgres has checked it, so that anything odd is only passed over.
    pub(crate) fn parse(setting: &str) -> Self {
        let words = words(setting);
        let mut parsed = Self { method: "FIRST", count: 1, names: Vec::new() };
        let list = match words.iter().position(|word| *word == Word::Open) {
            Some(open) => {
                let (head, list) = words.split_at(open);
                for word in head {
                    if let Word::Plain(text) = word {
                        if text.eq_ignore_ascii_case("any") {
                            parsed.method = "ANY";
                        }
                        parsed.count = text.parse().unwrap_or(parsed.count);
                    }
                }
                list
            }
            None => &words,
        };
        for word in list {
            match word {
                Word::Plain(name) | Word::Quoted(name) => parsed.names.push(name.clone()),
                Word::Open | Word::Close | Word::Comma => {}
            }
        }
        parsed
    }

    /// Whether we would be one of the standbys; names are compared without case.
    pub(crate) fn covers_us(&self) -> bool {
        self.names.iter().any(|name| name == ANY_NAME || is_us(name))
    }

    /// The setting without us; `connected`, the standbys there are now, stand in for `*`.
    pub(super) fn without_us(&self, connected: &[String]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in &self.names {
            if name == ANY_NAME {
                names.extend(connected.iter().map(String::as_str));
            } else {
                names.push(name);
            }
        }
        names.retain(|name| !is_us(name));
        if names.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = names.iter().map(|name| super::sql::identifier(name)).collect();
        // A commit that waits for more standbys than are named waits for ever.
        let count = self.count.min(names.len());
        format!("{} {count} ({})", self.method, quoted.join(", "))
    }
}

fn is_us(name: &str) -> bool {
    name.eq_ignore_ascii_case(APPLICATION_NAME)
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
    Open,
    Close,
    Comma,
}

fn words(setting: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = setting.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '(' => (Word::Open, rest.get(1..)),
            ')' => (Word::Close, rest.get(1..)),
            ',' => (Word::Comma, rest.get(1..)),
            '"' => quoted(rest.get(1..).unwrap_or_default()),
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '"');
                let end = rest.find(ends).unwrap_or(rest.len());
                (Word::Plain(rest.get(..end).unwrap_or_default().to_owned()), rest.get(end..))
            }
        };
        words.push(word);
        rest = after.unwrap_or_default().trim_start();
    }
    words
}

/// A quoted name, after its opening quote; a quote in it is doubled.
fn quoted(text: &str) -> (Word, Option<&str>) {
    let mut name = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (Word::Quoted(name), Some(after)),
        }
    }
    (Word::Quoted(name), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_covers_us_is_recognised() {
        for setting in
            ["*", "waldex", "a, WalDex", "FIRST 1 (a,waldex)", "ANY 1 (\"waldex\", b)", "2 (x, *)"]
        {
            assert!(StandbyNames::parse(setting).covers_us(), "{setting}");
        }
        for setting in
            ["", "a, b", "waldex2", "FIRST 1 (mywaldex)", "\"my waldex\"", "\"a,waldex\""]
        {
            assert!(!StandbyNames::parse(setting).covers_us(), "{setting}");
        }
    }

    #[test]
    fn the_others_stay_as_they_were() {
        let connected = ["r1".to_owned(), "waldex".to_owned(), "r\"2".to_owned()];
        for (setting, without) in [
            ("waldex", ""),
            ("a, waldex", "FIRST 1 (\"a\")"),
            ("ANY 2 (waldex, a, \"b \"\"c\")", "ANY 2 (\"a\", \"b \"\"c\")"),
            ("2 (waldex, a)", "FIRST 1 (\"a\")"),
            ("first 2 (*)", "FIRST 2 (\"r1\", \"r\"\"2\")"),
        ] {
            assert_eq!(StandbyNames::parse(setting).without_us(&connected), without, "{setting}");
        }
        assert_eq!(StandbyNames::parse("*").without_us(&[]), "");
    }
}
