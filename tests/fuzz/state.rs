//! The state document, which anybody with write access to the cluster can change.

use waldex::elasticsearch::state::State;

use super::{SplitMix, corpus, fuzz};

const TOKENS: &[&str] = &[
    "null",
    "true",
    "-1",
    "256",
    "1e3",
    "\"0/0\"",
    "\"FFFFFFFF/FFFFFFFF\"",
    "\"16/B374D848\"",
    "{}",
    "[]",
    ",",
    "\"tables\":",
    "\"durable_lsn\":",
    "\"epoch\":",
    "\"loaded\":",
    "\"generation\":",
    "\"load_snapshot\":",
];

#[test]
fn state_document() {
    let kept = corpus("state");
    assert!(
        kept.iter().any(|(_, input)| serde_json::from_slice::<State>(input).is_ok()),
        "none is good"
    );
    let generated = |random: &mut SplitMix| kept[random.below(kept.len())].1.clone();
    fuzz("state", TOKENS, generated, check);
}

/// What is read is what is written again.
fn check(input: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(input) else { return };
    let written = serde_json::to_vec(&state).unwrap();
    let read: State = serde_json::from_slice(&written).unwrap();
    assert_eq!(read, state);
}
