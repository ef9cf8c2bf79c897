//! The catalogue of failures: each line names the test that shows it, and that test is there.

use super::fail;
use super::tree::{exists, read};

const PAGE: &str = "tests/CATALOGUE.md";
/// Lines of the catalogue.
const LINES: usize = 78;
/// How the note of a line without a test begins.
const REASONS: [&str; 2] = ["Not tested: ", "Does not apply: "];

/// The cells of a line, if the first is a number. A test's path and a plain sentence have no bar inside.
fn row(line: &str) -> Option<(usize, Vec<&str>)> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    Some((cells.first()?.parse().ok()?, cells))
}

/// Paths in back quotes, as `cargo test` prints them.
fn tests_named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::"))
}

/// Where a test of that path may stand.
fn candidates(modules: &[&str]) -> Vec<String> {
    let inside = modules.strip_suffix(&["tests"]).unwrap_or(modules);
    let mut candidates = Vec::new();
    for root in ["tests", "src"] {
        for modules in [modules, inside] {
            let path = modules.join("/");
            candidates.push(format!("{root}/{path}.rs"));
            candidates.push(format!("{root}/{path}/mod.rs"));
        }
    }
    candidates
}

/// Whether a text defines a test of that name, with its attribute above it.
fn defines(text: &str, name: &str) -> bool {
    let definition = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().collect();
    let mut defined = lines.iter().enumerate().filter(|(_, line)| line.contains(&definition));
    defined.any(|(at, _)| {
        let mut above = lines.iter().take(at).rev().take_while(|line| !line.trim().is_empty());
        above.any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
    }) || property(&lines, &definition)
}

/// Properties have their attribute inside a macro, indented.
fn property(lines: &[&str], definition: &str) -> bool {
    lines.iter().any(|line| line.starts_with("    ") && line.contains(definition))
        && lines.iter().any(|line| line.contains("proptest!"))
}

fn is_there(test: &str) -> bool {
    let modules: Vec<&str> = test.split("::").collect();
    let Some((name, modules)) = modules.split_last() else { return false };
    let files = candidates(modules).into_iter().filter(|file| exists(file));
    files.into_iter().any(|file| defines(&read(&file), name))
}

#[test]
fn every_line_names_its_test_or_why_there_is_none() {
    let page = read(PAGE);
    let rows: Vec<_> = page.lines().filter_map(row).collect();
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=LINES).collect::<Vec<_>>(), "{PAGE} has every line once, in order");
    let mut found = Vec::new();
    for (number, cells) in rows {
        let shown = cells.get(2).copied().unwrap_or_default();
        let named = tests_named(shown).count() > 0;
        if !named && !REASONS.iter().any(|reason| shown.starts_with(reason)) {
            found.push(format!("line {number}"));
        }
    }
    fail(&found, "neither a test nor a reason");
}

#[test]
fn every_test_that_the_catalogue_names_is_there() {
    let page = read(PAGE);
    assert!(tests_named(&page).count() > 50, "hardly any test is named");
    let found: Vec<String> =
        tests_named(&page).filter(|test| !is_there(test)).map(str::to_owned).collect();
    fail(&found, "no such tests");
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    assert!(is_there("tidy::catalogue::a_test_that_is_not_there_is_noticed"));
    assert!(!is_there("tidy::catalogue::is_there"), "a function without the attribute");
    assert!(!is_there("tidy::catalogue::nothing_of_the_kind"));
}
