//! How long an index remembers deletes (`index.gc_deletes`), so that a write that comes late does not bring a row
//! back.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// The setting's name.
pub const SETTING: &str = "index.gc_deletes";
/// Unless a lease needs more.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// What the server does if it is not told.
pub const SERVER_DEFAULT: Duration = Duration::from_secs(60);

/// A configured time that is too short, and the shortest one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "settings: {SETTING}: deletes are remembered for {given}, and must be for {min} at least (three times \
     elasticsearch.request_timeout): a write that comes late would bring a deleted row back"
)]
pub struct TooShort {
    given: String,
    min: String,
}

/// The time in an index's settings, nested or not, as it stands there.
pub fn of(settings: &Map<String, Value>) -> Option<&Value> {
    let nested = settings.get("index").and_then(|index| index.get("gc_deletes"));
    nested.or_else(|| settings.get(SETTING)).or_else(|| settings.get("gc_deletes"))
}

/// Sets the time in the settings of an index that is to be made, if it is not given there.
///
/// # Errors
/// It is given, and under `min`.
pub fn set(settings: &mut Map<String, Value>, min: Duration) -> Result<(), TooShort> {
    let Some(given) = of(settings) else {
        settings.insert(SETTING.to_owned(), json!(text(KEPT.max(min))));
        return Ok(());
    };
    // What cannot be read is for the server to refuse.
    if parse(given).is_none_or(|kept| kept >= min) {
        return Ok(());
    }
    let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
    Err(TooShort { given, min: text(min) })
}

/// A time as the servers write it: a number and its unit. None before zero: nothing is remembered.
pub fn parse(time: &Value) -> Option<Duration> {
    let time = time.as_str()?.trim();
    if time.starts_with('-') {
        return Some(Duration::ZERO);
    }
    let digits = time.find(|it: char| !it.is_ascii_digit()).unwrap_or(time.len());
    let (number, unit) = time.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| Duration::from_secs(number.saturating_mul(each));
    match unit.trim().to_ascii_lowercase().as_str() {
        "d" => Some(seconds(24 * 60 * 60)),
        "h" => Some(seconds(60 * 60)),
        "m" => Some(seconds(60)),
        "s" => Some(seconds(1)),
        "ms" => Some(Duration::from_millis(number)),
        "micros" => Some(Duration::from_micros(number)),
        "nanos" => Some(Duration::from_nanos(number)),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

fn text(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    if seconds.is_multiple_of(60) && seconds > 120 {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(90);

    fn set_in(settings: Value, min: Duration) -> Result<Map<String, Value>, TooShort> {
        let mut settings = settings.as_object().unwrap().clone();
        set(&mut settings, min).map(|()| settings)
    }

    #[test]
    fn times_are_read_as_the_servers_read_them() {
        for (text, time) in [
            ("15m", Some(Duration::from_secs(15 * 60))),
            ("2 h", Some(Duration::from_secs(2 * 60 * 60))),
            ("1d", Some(Duration::from_secs(24 * 60 * 60))),
            ("90s", Some(MIN)),
            ("100ms", Some(Duration::from_millis(100))),
            ("5micros", Some(Duration::from_micros(5))),
            ("5nanos", Some(Duration::from_nanos(5))),
            ("0", Some(Duration::ZERO)),
            ("-1", Some(Duration::ZERO)),
            ("90", None),
            ("m", None),
            ("é", None),
            ("1w", None),
        ] {
            assert_eq!(parse(&json!(text)), time, "{text}");
        }
        assert_eq!(parse(&json!(90)), None);
    }

    #[test]
    fn a_quarter_of_an_hour_unless_the_lease_needs_more() {
        assert_eq!(set_in(json!({}), MIN).unwrap()[SETTING], "15m");
        assert_eq!(set_in(json!({}), Duration::from_secs(20 * 60)).unwrap()[SETTING], "20m");
        let odd = Duration::from_millis(1_000_500);
        assert_eq!(set_in(json!({}), odd).unwrap()[SETTING], "1001s");
    }

    #[test]
    fn a_given_time_stays_or_is_refused() {
        for given in [
            json!({"index": {"gc_deletes": "89s"}}),
            json!({"index.gc_deletes": "1m"}),
            json!({"gc_deletes": "-1"}),
        ] {
            let refused = set_in(given.clone(), MIN).unwrap_err();
            assert!(refused.to_string().contains("90s at least"), "{refused}");
        }
        for given in [json!({"index": {"gc_deletes": "90s"}}), json!({"gc_deletes": "sometimes"})] {
            assert_eq!(Value::Object(set_in(given.clone(), MIN).unwrap()), given);
        }
    }
}
