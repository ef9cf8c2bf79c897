//! How the project is written, checked, so that reviews need not: the rules that no compiler and no lint knows.
//!
//! What is over a limit today is listed with its size: it may shrink, and then the list must follow, but it
//! may not grow. Only texts are read here, no program is run.

mod catalogue;
mod layout;
mod tree;
mod words;

use tree::{Source, sources};

/// Characters in a line.
const LINE_MAX: usize = 120;
/// Lines in a file.
const FILE_LINES_MAX: usize = 400;
/// Lines in a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer, and how long they are.
const LONG_FILES: [(&str, usize); 4] = [
    ("src/cli.rs", 422),
    ("src/config/tests.rs", 498),
    ("src/elasticsearch/dead_letter.rs", 425),
    ("src/pipeline/mod.rs", 534),
];

fn fail(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// What is wrong with a length, given what is allowed and what is known to be longer.
fn length(what: &str, is: usize, max: usize, known: Option<usize>) -> Option<String> {
    match known {
        Some(known) if is > known => Some(format!("{what}: {is} lines, and it had {known}")),
        Some(known) if is < known => {
            Some(format!("{what}: {is} lines are fewer than the {known} listed: list {is}"))
        }
        None if is > max => Some(format!("{what}: {is} lines")),
        Some(_) | None => None,
    }
}

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    let silent = |source: &Source| !source.text.starts_with("//!");
    let found: Vec<String> =
        sources().into_iter().filter(silent).map(|source| source.path).collect();
    fail(&found, "these do not begin with \"//!\"");
}

#[test]
fn lines_fit() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            if line.chars().count() > LINE_MAX {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    fail(&found, "lines of more than 120 characters");
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for source in sources() {
        let known = LONG_FILES.iter().find(|(path, _)| *path == source.path).map(|(_, is)| *is);
        found.extend(length(&source.path, source.lines().count(), FILE_LINES_MAX, known));
    }
    fail(&found, "files that are too long");
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in sources() {
        for (name, lines) in source.functions() {
            let what = format!("{}, {name}", source.path);
            found.extend(length(&what, lines, FUNCTION_LINES_MAX, None));
        }
    }
    fail(&found, "functions that are too long");
}
