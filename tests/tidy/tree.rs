//! The project's texts.

use std::fs;
use std::path::{Path, PathBuf};

/// Below these is everything that is compiled.
const ROOTS: [&str; 3] = ["src", "tests", "examples"];

/// A file of Rust.
pub(crate) struct Source {
    /// From the project's root.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Lines, counted from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().zip(1..).map(|(line, number)| (number, line))
    }

    /// Lines that are neither comment nor, in a unit test's module at the end, a test.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.lines().take_while(|(_, line)| *line != "#[cfg(test)]");
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Each function's name and lines. The formatter puts its end at the indentation of its beginning.
    pub(crate) fn functions(&self) -> Vec<(String, usize)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut found = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let indentation = line.len() - line.trim_start().len();
            let end = format!("{}}}", &line[..indentation]);
            let ends = |(_, line): &(usize, &&str)| **line == end || line.ends_with([';', '}']);
            let first = lines.iter().enumerate().skip(at).take(1).find(ends);
            let mut rest = lines.iter().enumerate().skip(at + 1);
            let last = first.or_else(|| rest.find(|(_, line)| **line == end));
            found.extend(last.map(|(last, _)| (name.to_owned(), last - at + 1)));
        }
        found
    }
}

/// The name of the function that a line begins to define.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for qualifier in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("\"{path}\": {error}"))
}

/// Whether there is such a file or directory.
pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// Paths of all files below a directory whose name ends so, sorted.
pub(crate) fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(root().join(&directory));
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            let path = directory.join(entry.file_name());
            // What is built or was found by fuzzing is no text of ours.
            let foreign = ["target", "corpus"].iter().any(|name| path.ends_with(name));
            if entry.path().is_dir() && !foreign {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// All files of Rust.
pub(crate) fn sources() -> Vec<Source> {
    let paths = ROOTS.iter().flat_map(|root| files(root, ".rs"));
    let sources: Vec<Source> = paths.map(|path| Source { text: read(&path), path }).collect();
    assert!(sources.len() > 150, "hardly any file was found");
    sources
}
