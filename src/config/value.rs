//! The small grammars of values: sizes, times, counts, switches, `${VAR}`, and "did you mean".
//!
//! Pure. Errors say what is expected; the caller names the place and quotes what was written.

use super::keys::Kind;

/// `5MiB`, `16 MiB`, `10MB`, `1000`: bytes. `KB`, `MB`, `GB` are powers of 1000, `KiB`, `MiB`, `GiB` of
/// 1024, upper and lower case alike; a bare number is bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "is no size; write it like 1000, 64KiB, 5MiB or 10MB";
    let (number, unit) = split_number(text).ok_or(EXPECTED)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(factor).ok_or("is far too large")
}

/// `250ms`, `1s`, `5m`, `1h`: milliseconds. The unit is required, since a bare number is read as
/// milliseconds by some and as seconds by others.
pub(super) fn parse_time(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "is no time; write a whole number and a unit: 250ms, 1s, 5m or 1h";
    let (number, unit) = split_number(text).ok_or(EXPECTED)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(factor).ok_or("is far too long")
}

/// `0.6`, `1`: thousandths. Never more than 1, and three digits after the point at most.
pub(super) fn parse_ratio(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "is no part of a whole; write it like 0.6";
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_number = |digits: &str| digits.chars().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || whole.is_empty() || decimals.len() > 3 {
        return Err(EXPECTED);
    }
    let thousandths = format!("{whole}{decimals:0<3}");
    thousandths.parse().map_err(|_| EXPECTED)
}

/// A whole number; `_` may group digits.
pub(super) fn parse_count(text: &str) -> Result<u64, &'static str> {
    match split_number(text) {
        Some((number, "")) => Ok(number),
        _ => Err("is no whole number"),
    }
}

/// `true` or `false`.
pub(super) fn parse_switch(text: &str) -> Result<bool, &'static str> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// Leading digits and the rest without the blanks between.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, unit.trim_start()))
}

/// Prints a quantity the way it would be written: 5242880 bytes as `5MiB`, 1000 ms as `1s`.
pub(super) fn show_quantity(kind: Kind, quantity: u64) -> String {
    let units: &[(u64, &str)] = match kind {
        Kind::Size => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        Kind::Time => &[(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")],
        Kind::Count | Kind::Ratio | Kind::Text | Kind::Secret | Kind::Switch => &[],
    };
    if kind == Kind::Ratio {
        let decimals = format!("{}.{:03}", quantity / 1000, quantity % 1000);
        return decimals.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let fitting =
        units.iter().find(|(unit, _)| quantity >= *unit && quantity.is_multiple_of(*unit));
    match fitting {
        Some((unit, name)) => format!("{}{name}", quantity / unit),
        None => quantity.to_string(),
    }
}

/// Why `${…}` could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InterpolationError {
    /// These variables are not set.
    Missing(Vec<String>),
    /// `${` without a variable's name and `}`.
    Malformed,
}

impl InterpolationError {
    /// What to say about it.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Missing(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
                match names.as_slice() {
                    [one] => format!("environment variable {one} is not set"),
                    _ => format!("environment variables {} are not set", names.join(", ")),
                }
            }
            Self::Malformed => "\"${\" must be followed by a variable's name and \"}\"; \
                                 \"$${\" stands for the text \"${\""
                .to_owned(),
        }
    }
}

/// Replaces every `${NAME}`. Only `${` is special, so that passwords and patterns with `$` stay as they
/// are; `$${` stands for the text `${`.
pub(super) fn interpolate(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, InterpolationError> {
    let mut out = String::with_capacity(text.len());
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let after = from.strip_prefix("${").unwrap_or(from);
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (name, tail) = after.split_once('}').ok_or(InterpolationError::Malformed)?;
        if !is_variable_name(name) {
            return Err(InterpolationError::Malformed);
        }
        match env(name) {
            Some(value) => out.push_str(&value),
            None => missing.push(name.to_owned()),
        }
        rest = tail;
    }
    out.push_str(rest);
    if missing.is_empty() { Ok(out) } else { Err(InterpolationError::Missing(missing)) }
}

/// What a shell accepts as a variable's name.
fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The candidate that was probably meant: at most a third of its letters differ, `-` and `_` and upper
/// and lower case count as equal.
pub(super) fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.chars().enumerate() {
        let mut left = row + 1;
        let mut diagonal = row;
        let mut current = vec![left];
        for (to, above) in b.iter().zip(previous.iter().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            left = changed.min(left + 1).min(above + 1);
            diagonal = *above;
            current.push(left);
        }
        previous = current;
    }
    previous.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1000", 1000),
            ("5MiB", 5 << 20),
            ("16 mib", 16 << 20),
            ("10MB", 10_000_000),
            ("64kb", 64_000),
            ("1GiB", 1 << 30),
            ("12B", 12),
            ("1_000", 1000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "5m", "5.5MiB", "-1", "1e6", "5MiBs", "99999999999GiB", "_1"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in
            [("250ms", 250), ("1s", 1000), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for text in ["30", "", "s", "1.5s", "1min", "-1s", "1S", "18446744073709551615h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_and_switches() {
        assert_eq!(parse_count(" 42 "), Ok(42));
        assert!(parse_count("4x").is_err());
        assert!(parse_count("99999999999999999999").is_err());
        assert_eq!(parse_switch("true"), Ok(true));
        assert!(parse_switch("yes").is_err());
    }

    #[test]
    fn ratios() {
        for (text, thousandths) in [("0.6", 600), ("1", 1000), ("1.0", 1000), (" 0.05 ", 50)] {
            assert_eq!(parse_ratio(text), Ok(thousandths), "{text}");
        }
        for text in ["", ".", ".5", "-0.5", "60%", "0.0001", "1e-1", "0,5"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_read_back() {
        for (kind, quantity, text) in [
            (Kind::Size, 5 << 20, "5MiB"),
            (Kind::Size, 1 << 10, "1KiB"),
            (Kind::Size, 1500, "1500"),
            (Kind::Time, 100, "100ms"),
            (Kind::Time, 90_000, "90s"),
            (Kind::Time, 600_000, "10m"),
            (Kind::Count, 1000, "1000"),
            (Kind::Ratio, 600, "0.6"),
            (Kind::Ratio, 1000, "1"),
            (Kind::Ratio, 5, "0.005"),
        ] {
            assert_eq!(show_quantity(kind, quantity), text);
        }
    }

    #[test]
    fn interpolation() {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "one"),
            ("x${A}y${A}z", "xoneyonez"),
            ("[${EMPTY}]", "[]"),
            ("pa$$word $5 $", "pa$$word $5 $"),
            ("$${A}", "${A}"),
            ("{first} {last}", "{first} {last}"),
        ] {
            assert_eq!(interpolate(text, &env).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(
            interpolate("${B} ${A} ${C}", &env),
            Err(InterpolationError::Missing(vec!["B".into(), "C".into()]))
        );
        for text in ["${", "${A", "${}", "${1A}", "${A:-x}"] {
            assert_eq!(interpolate(text, &env), Err(InterpolationError::Malformed), "{text}");
        }
    }

    #[test]
    fn suggestions() {
        let keys = ["bulk_size", "bulk_bytes", "slot", "url"];
        assert_eq!(did_you_mean("bulksize", keys), Some("bulk_size"));
        assert_eq!(did_you_mean("Bulk-Bytes", keys), Some("bulk_bytes"));
        assert_eq!(did_you_mean("slots", keys), Some("slot"));
        assert_eq!(did_you_mean("something", keys), None);
    }
}
