//! The configuration file. Whatever is in it, each problem has a place in it, and no secret is quoted.

use std::io;
use std::path::{Path, PathBuf};

use waldex::cli::SharedArgs;
use waldex::config::{Place, load};

use super::{SplitMix, corpus, fuzz};

const PATH: &str = "waldex.yaml";
const CANARY: &str = "c4n4ry";

const TOKENS: &[&str] = &[
    ": ",
    "- ",
    "\n  ",
    "\n",
    "${",
    "}",
    "${SECRET}",
    "$${",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "|",
    ">",
    "&a ",
    "*a",
    "!!str ",
    "# ",
    "---",
    "null",
    "~",
    "true",
    "1e9",
    "-1",
    "5MiB",
    "10s",
    "é",
    "\u{feff}",
    "\t",
    "postgres:",
    "elasticsearch:",
    "tables:",
    "table:",
    "columns:",
    "mappings:",
    "computed:",
];

#[test]
fn configuration() {
    fuzz("configuration", TOKENS, generated, check);
}

/// Lines of a good file: left out, doubled, indented otherwise, in another place.
fn generated(random: &mut SplitMix) -> Vec<u8> {
    let example = include_str!("../../examples/waldex.yaml");
    let kept = corpus("configuration");
    let text = match random.below(3) {
        0 if !kept.is_empty() => {
            String::from_utf8_lossy(&kept[random.below(kept.len())].1).into_owned()
        }
        1 => example.replace("  #", "  ").replace("\n#", "\n"),
        _ => example
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .fold(String::new(), |text, line| text + line + "\n"),
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..random.below(5) {
        let at = random.below(lines.len());
        let Some(line) = lines.get(at).cloned() else { break };
        match random.below(4) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, line),
            2 => lines[at] = format!("  {line}"),
            _ => lines.insert(random.below(lines.len()), line.trim_start().to_owned()),
        }
    }
    lines.join("\n").into_bytes()
}

fn check(input: &[u8]) {
    let source = String::from_utf8_lossy(input).into_owned();
    let args = SharedArgs { config: Some(PathBuf::from(PATH)), ..SharedArgs::default() };
    let env = |name: &str| {
        (name.ends_with("SECRET") || name.ends_with("PASSWORD")).then(|| CANARY.to_owned())
    };
    let read = |path: &Path| {
        let is_it = path == Path::new(PATH);
        is_it.then(|| source.clone()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let Err(errors) = load(&args, &env, &read) else { return };
    assert!(!errors.problems().is_empty(), "refused without a reason");
    // YAML ends lines with a lone carriage return as well; the end of the file is after the last line.
    let lines = source.chars().filter(|c| matches!(c, '\n' | '\r')).count() + 2;
    for problem in errors.problems() {
        if let Place::File { line, column, .. } = &problem.place {
            assert!((1..=lines).contains(line), "line {line} of {lines}: {problem}");
            assert!(*column >= 1, "column {column}: {problem}");
        }
        assert!(!problem.message.is_empty(), "no message at {}", problem.place);
        let shown = problem.to_string();
        // What the file itself says may be quoted; what a variable holds may not.
        assert!(!shown.contains(CANARY) || source.contains(CANARY), "a variable's value is shown");
    }
}
