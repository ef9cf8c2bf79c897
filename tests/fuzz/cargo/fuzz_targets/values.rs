//! Any bytes as the text of any kind of value.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use waldex::document::types::Kind;
use waldex::document::value::write_value;

fuzz_target!(|bytes: &[u8]| {
    let plain = [Kind::Text, Kind::Integer(64), Kind::Float(64), Kind::Date, Kind::Timestamp];
    let made = [Kind::Json, Kind::Jsonb, Kind::Hstore, Kind::Bytea, Kind::Bool];
    for kind in plain.into_iter().chain(made) {
        let kind = Arc::new(kind);
        let array = Kind::Array(Arc::clone(&kind), b',');
        let (range, ranges) = (Kind::Range(Arc::clone(&kind)), Kind::Multirange(Arc::clone(&kind)));
        for kind in [&kind, &array, &range, &ranges] {
            let mut line = Vec::new();
            write_value(kind, bytes, &mut line);
            assert!(std::str::from_utf8(&line).is_ok_and(|line| !line.contains('\n')));
            assert!(line.len() <= 8 * bytes.len() + 16);
        }
    }
});
