//! Where things are: the core stays pure, and no file is left over.

use super::fail;
use super::tree::{Source, exists, files, read, sources};

/// Plain state machines: they neither await, nor read a clock, nor open a socket.
const CORE: [&str; 6] = [
    "src/pgoutput/",
    "src/document/",
    "src/bulk/",
    "src/pipeline/",
    "src/lsn.rs",
    "src/visibility.rs",
];

/// What a state machine has no use for.
const SHELL: [&str; 11] = [
    ".await",
    "async ",
    "tokio",
    "hyper",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "Instant",
    "SystemTime",
];

fn in_core(source: &Source) -> bool {
    CORE.iter().any(|part| source.path.starts_with(part))
}

#[test]
fn the_core_is_pure() {
    let core: Vec<Source> = sources().into_iter().filter(in_core).collect();
    for part in CORE {
        assert!(core.iter().any(|source| source.path.starts_with(part)), "no \"{part}\"");
    }
    let mut found = Vec::new();
    for source in &core {
        for (number, line) in source.code() {
            for word in SHELL.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: \"{}\"", source.path, word.trim()));
            }
        }
    }
    fail(&found, "the core does what only the shell may do");
}

/// A module's file and the file that must declare it.
fn parent(path: &str) -> Option<(String, Vec<String>)> {
    let (directory, file) = path.rsplit_once('/')?;
    let (module, above) = match file {
        "mod.rs" => {
            let (above, module) = directory.rsplit_once('/')?;
            (module, above)
        }
        _ => (file.strip_suffix(".rs")?, directory),
    };
    let candidates = ["mod.rs", "main.rs", "lib.rs"].map(|file| format!("{above}/{file}"));
    let mut candidates: Vec<String> = candidates.into();
    candidates.push(format!("{above}.rs"));
    Some((module.to_owned(), candidates))
}

#[test]
fn no_source_is_dead() {
    // Roots of their own: named in a Cargo.toml, or found by Cargo.
    let root = |path: &str| {
        path.ends_with("main.rs") || path == "src/lib.rs" || path.contains("/fuzz_targets/")
    };
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !root(&source.path)) {
        let declared = parent(&source.path).is_some_and(|(module, above)| {
            let declaration = format!("mod {module};");
            let by = |file: &&String| exists(file) && read(file).contains(&declaration);
            above.iter().any(|file| by(&file))
        });
        if !declared {
            found.push(source.path.clone());
        }
    }
    fail(&found, "no module declares these");
}

#[test]
fn every_query_is_sent_by_somebody() {
    let sources = sources();
    let used = |path: &String| {
        let name = path.strip_prefix("sql/").unwrap_or(path);
        sources.iter().any(|source| source.text.contains(&format!("sql/{name}\"")))
    };
    let paths = files("sql", ".sql");
    assert!(paths.len() > 5, "hardly any query was found");
    let found: Vec<String> = paths.into_iter().filter(|path| !used(path)).collect();
    fail(&found, "nobody sends these");
}

/// A database in LATIN1 knows few other characters, and refuses the whole statement for one.
#[test]
fn every_query_is_plain_ascii() {
    let odd = |path: &String| !std::fs::read(path).is_ok_and(|text| text.is_ascii());
    let found: Vec<String> = files("sql", ".sql").into_iter().filter(odd).collect();
    fail(&found, "not every database can be asked these");
}

/// `[text](target)` of a page, without what leads elsewhere.
fn links(page: &str) -> Vec<String> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap_or(target).to_owned()).collect()
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    let mut pages = vec!["README.md".to_owned()];
    pages.extend(["examples", "tests", "deploy"].iter().flat_map(|part| files(part, ".md")));
    let mut found = Vec::new();
    for page in pages {
        let directory = page.rsplit_once('/').map_or(String::new(), |(path, _)| format!("{path}/"));
        for target in links(&read(&page)) {
            if !exists(&format!("{directory}{target}")) {
                found.push(format!("{page}: \"{target}\""));
            }
        }
    }
    fail(&found, "links that lead nowhere");
}
