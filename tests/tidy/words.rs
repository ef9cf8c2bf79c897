//! One word, one meaning.

use super::fail;
use super::tree::{Source, sources};

/// Words that say nothing, as parts of names of modules, types and functions.
const EMPTY: [&str; 8] =
    ["manager", "handler", "processor", "helper", "util", "utils", "common", "misc"];

/// Texts that have no place outside tests, and why.
const BANNED: [(&str, &str); 6] = [
    ("unbounded_channel", "every queue has a limit with a name"),
    ("println!(\"DEBUG", "left over from a search for a mistake"),
    ("FIXME", "mend it, or write an issue"),
    ("XXX", "mend it, or write an issue"),
    ("std::sync::RwLock", "the design has no shared state that is read often"),
    (".unwrap()", "nothing from outside is trusted"),
];

/// The name that a line declares.
fn declared(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            "pub" | "pub(crate)" | "pub(super)" | "async" | "const" => {}
            "fn" | "struct" | "enum" | "trait" | "mod" | "type" => {
                let name = words.next()?;
                return name.split(['(', '<', ';', ':', '{', '=']).next();
            }
            _ => return None,
        }
    }
    None
}

/// The words of a name, in lower case, whether it is written `like_this` or `LikeThis`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            words.push(String::new());
        }
        if letter != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

#[test]
fn names_say_something() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            let Some(name) = declared(line) else { continue };
            if words(name).iter().any(|word| EMPTY.contains(&word.as_str())) {
                found.push(format!("{}:{number}: \"{name}\"", source.path));
            }
        }
    }
    fail(&found, "names that say nothing");
}

#[test]
fn what_has_no_place_in_the_product_is_not_there() {
    let product =
        |source: &Source| source.path.starts_with("src/") && !source.path.ends_with("/tests.rs");
    let mut found = Vec::new();
    for source in sources().into_iter().filter(product) {
        for (number, line) in source.code() {
            for (text, reason) in BANNED.iter().filter(|(text, _)| line.contains(text)) {
                found.push(format!("{}:{number}: \"{text}\": {reason}", source.path));
            }
        }
    }
    fail(&found, "these have no place in the product");
}

#[test]
fn a_test_that_is_left_out_says_why() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            let attribute = line.trim_start();
            if attribute.starts_with("#[ignore") && !attribute.starts_with("#[ignore = \"") {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    fail(&found, "tests that are left out without a word");
}
