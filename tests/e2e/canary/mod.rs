//! Nothing leaks: values and secrets that are easy to find are put through every path, and looked for in
//! everything that waldex says, at the most talkative level there is.

mod secrets;
mod values;

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::admin;
use crate::support::waldex::{Finished, Waldex};

/// Characters shown around a find.
const SHOWN_CHARS: usize = 300;

/// Everything that was said, and where.
#[derive(Default)]
pub(crate) struct Heard {
    pieces: Vec<(String, String)>,
}

impl Heard {
    pub(crate) fn text(&mut self, place: &str, text: impl Into<String>) {
        self.pieces.push((place.to_owned(), text.into()));
    }

    /// Both outputs of a command, and how this test would print it.
    pub(crate) fn finished(&mut self, place: &str, finished: &Finished) {
        self.log(place, finished);
        self.text(&format!("{place}, stdout"), finished.stdout.join("\n"));
    }

    /// The log of a command whose stdout is meant to show values.
    pub(crate) fn log(&mut self, place: &str, finished: &Finished) {
        self.text(&format!("{place}, log"), finished.stderr.join("\n"));
    }

    /// What the admin server says.
    pub(crate) async fn admin(&mut self, port: u16) -> Result<()> {
        for path in ["/live", "/ready", "/status", "/metrics", "/"] {
            let (_, body) = admin::get(port, path).await?;
            self.text(path, body);
        }
        Ok(())
    }

    /// Fails if a word was said, in whatever encoding, and where.
    pub(crate) fn never_mentions(&self, word: &str) -> Result<()> {
        for (place, text) in &self.pieces {
            let lower = text.to_lowercase();
            for form in forms(word) {
                // Base64 tells upper from lower case.
                let found = lower.find(&form.to_lowercase()).or_else(|| text.find(&form));
                let shown = found.map(|at| around(&lower, at));
                ensure!(
                    shown.is_none(),
                    "\"{form}\" is in {place}: …{}…",
                    shown.unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// A test that hears nothing proves nothing.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.pieces.iter().any(|(_, text)| text.contains(word))
    }
}

fn around(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default().chars().rev().take(SHOWN_CHARS);
    let before: String = before.collect::<Vec<_>>().into_iter().rev().collect();
    let after: String = text.get(at..).unwrap_or_default().chars().take(SHOWN_CHARS).collect();
    before + &after
}

/// The word as it is, and as hexadecimal, Base64 and percent-encoding would show it, in any place of a text.
fn forms(word: &str) -> Vec<String> {
    let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = word.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let bytes: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![word.to_owned(), hex, percent, bytes.join(", ")];
    for before in 0..3 {
        let text = [&b"xx"[..before.min(2)], word.as_bytes()].concat();
        let encoded = STANDARD.encode(text);
        // Characters at the edges depend on what stands beside.
        let (start, end) = ([0, 2, 3][before], encoded.trim_end_matches('=').len() - 1);
        forms.extend(encoded.get(start..end).filter(|core| core.len() > 4).map(str::to_owned));
    }
    forms
}

/// The most talkative log, in one of the formats.
pub(crate) fn talkative(waldex: Waldex, format: &str) -> Waldex {
    waldex.arg("--log-level").arg("trace").arg("--log-format").arg(format)
}

#[test]
fn a_word_is_found_in_every_encoding() -> Result<()> {
    for text in [
        "so: C4n4ry!",
        "63346e347279",
        &STANDARD.encode("c4n4ry"),
        &STANDARD.encode("a c4n4ry."),
        &STANDARD.encode("user:c4n4ry at 1"),
        "%63%34%6e%34%72%79",
        "[99, 52, 110, 52, 114, 121]",
    ] {
        let mut heard = Heard::default();
        heard.text("here", text);
        ensure!(heard.never_mentions("c4n4ry").is_err(), "not found in {text}");
    }
    let mut heard = Heard::default();
    heard.text("here", "canary c4n 4ry");
    heard.never_mentions("c4n4ry")
}
