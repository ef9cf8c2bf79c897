//! Dates and timestamps: from Postgres' ISO style to ISO 8601 in UTC.
//!
//! Text is rewritten, never computed: the server prints `timestamptz` in UTC (`TimeZone` is pinned), the
//! proleptic Gregorian calendar is that of both sides, and a value outside what a search cluster indexes
//! keeps its exact text. Years before 1 become astronomical (1 BC is 0000), years above 9999 get a sign.

/// Appends a `date` as a JSON string; `false`, with nothing written, if it is not one.
pub(super) fn write_date(text: &[u8], out: &mut Vec<u8>) -> bool {
    match parse(text) {
        Some(parsed) if parsed.time.is_empty() => {
            out.push(b'"');
            parsed.write_date(out);
            out.push(b'"');
            true
        }
        Some(_) | None => false,
    }
}

/// Appends a `timestamp` or `timestamptz` as a JSON string; `false`, with nothing written, if it is none.
pub(super) fn write_timestamp(text: &[u8], out: &mut Vec<u8>) -> bool {
    match parse(text) {
        Some(parsed) if !parsed.time.is_empty() => {
            out.push(b'"');
            parsed.write_date(out);
            out.push(b'T');
            out.extend_from_slice(parsed.time);
            out.extend_from_slice(b"Z\"");
            true
        }
        Some(_) | None => false,
    }
}

struct Parsed<'a> {
    year: &'a [u8],
    /// `-MM-DD`.
    month_and_day: &'a [u8],
    /// `HH:MM:SS[.ffffff]`, or nothing.
    time: &'a [u8],
    before_christ: bool,
}

/// Splits `YYYY-MM-DD[ HH:MM:SS[.ffffff][+00]][ BC]`.
fn parse(text: &[u8]) -> Option<Parsed<'_>> {
    let (text, before_christ) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = match text.iter().position(|&byte| byte == b' ') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &text[text.len()..]),
    };
    let time = time.strip_suffix(b"+00").unwrap_or(time);
    let (year, month_and_day) = date.split_at_checked(date.len().checked_sub(6)?)?;
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let [b'-', m1, m2, b'-', d1, d2] = month_and_day else { return None };
    let date_is_sound = digits(year) && year.len() >= 4 && digits(&[*m1, *m2, *d1, *d2]);
    let sound = date_is_sound && (time.is_empty() || is_time(time));
    sound.then_some(Parsed { year, month_and_day, time, before_christ })
}

fn is_time(time: &[u8]) -> bool {
    let (clock, fraction) = time.split_at(time.len().min(8));
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return false };
    let fraction_is_sound = match fraction {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    [h1, h2, m1, m2, s1, s2].into_iter().all(u8::is_ascii_digit) && fraction_is_sound
}

impl Parsed<'_> {
    fn write_date(&self, out: &mut Vec<u8>) {
        if self.before_christ {
            let year =
                std::str::from_utf8(self.year).ok().and_then(|year| year.parse::<u64>().ok());
            let astronomical = year.unwrap_or(1).saturating_sub(1);
            if astronomical > 0 {
                out.push(b'-');
            }
            out.extend_from_slice(format!("{astronomical:04}").as_bytes());
        } else {
            if self.year.len() > 4 {
                out.push(b'+');
            }
            out.extend_from_slice(self.year);
        }
        out.extend_from_slice(self.month_and_day);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write_date(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    fn timestamp(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write_timestamp(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn dates() {
        assert_eq!(date("2024-02-29").as_deref(), Some("\"2024-02-29\""));
        assert_eq!(date("0044-03-15 BC").as_deref(), Some("\"-0043-03-15\""));
        assert_eq!(date("0001-12-31 BC").as_deref(), Some("\"0000-12-31\""));
        assert_eq!(date("5874897-12-31").as_deref(), Some("\"+5874897-12-31\""));
        assert_eq!(date("1582-10-10").as_deref(), Some("\"1582-10-10\""));
        for other in ["infinity", "-infinity", "", "2024-1-1", "2024-01-01 00:00:00", "é24-01-01"]
        {
            assert_eq!(date(other), None, "{other}");
        }
    }

    #[test]
    fn timestamps() {
        let same = Some("\"2024-01-01T00:00:00Z\"".to_owned());
        assert_eq!(timestamp("2024-01-01 00:00:00"), same);
        assert_eq!(timestamp("2024-01-01 00:00:00+00"), same);
        let micros = timestamp("2024-01-01 23:59:59.123456+00");
        assert_eq!(micros.as_deref(), Some("\"2024-01-01T23:59:59.123456Z\""));
        let old = timestamp("4713-01-01 00:00:00+00 BC");
        assert_eq!(old.as_deref(), Some("\"-4712-01-01T00:00:00Z\""));
        let late = timestamp("294276-12-31 23:59:59.999999");
        assert_eq!(late.as_deref(), Some("\"+294276-12-31T23:59:59.999999Z\""));
        for other in ["infinity", "-infinity", "2024-01-01", "2024-01-01 00:00:00+05:30", ""] {
            assert_eq!(timestamp(other), None, "{other}");
        }
    }
}
