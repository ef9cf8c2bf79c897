//! Which names Elasticsearch and OpenSearch accept for an index (their documentation of "create index"),
//! with room for the suffixes of generations.

/// The cluster's limit for an index or alias name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The longest suffix that is added to a configured name: a generation's write alias.
const LONGEST_SUFFIX: &str = "-000001-write";

/// Checks a name; what is wrong with it is said as the end of a sentence: "must be in lower case".
pub fn validate(name: &str) -> Result<(), String> {
    const FORBIDDEN: &[char] = &['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'];
    let bytes_max = NAME_BYTES_MAX - LONGEST_SUFFIX.len();
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name == "." || name == ".." {
        return Err("must not be \".\" or \"..\"".to_owned());
    }
    if name.starts_with(['-', '_', '+']) {
        return Err("must not begin with \"-\", \"_\" or \"+\"".to_owned());
    }
    if name.to_lowercase() != name {
        return Err("must be in lower case".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| FORBIDDEN.contains(c) || c.is_control()) {
        return Err(format!("must not contain {bad:?}"));
    }
    if name.len() > bytes_max {
        return Err(format!("must not be longer than {bytes_max} bytes"));
    }
    Ok(())
}

/// Whether `name` is what a generation of `index` or its write alias is called: `users-000001`,
/// `users-000001-write`.
pub(super) fn is_generation_of(name: &str, index: &str) -> bool {
    let Some(rest) = name.strip_prefix(index).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let digits = rest.strip_suffix("-write").unwrap_or(rest);
    digits.len() >= 6 && digits.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["users", "my.users-v2_x", ".hidden", "ünï", &"a".repeat(242)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "Users",
            "-a",
            "_a",
            "+a",
            "a b",
            "a/b",
            "a\\b",
            "a*",
            "a?",
            "a\"",
            "a<",
            "a>",
            "a|",
            "a,b",
            "a#",
            "a:b",
            "a\n",
            &"a".repeat(243),
        ] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generations() {
        for (name, index, expected) in [
            ("users-000001", "users", true),
            ("users-000001-write", "users", true),
            ("users-1", "users", false),
            ("users-archive", "users", false),
            ("users", "users", false),
        ] {
            assert_eq!(is_generation_of(name, index), expected, "{name}");
        }
    }
}
