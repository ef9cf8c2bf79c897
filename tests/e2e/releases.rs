//! The choice of other servers than the newest.

use anyhow::Result;

use crate::support::servers::releases::{Choice, parse};

#[test]
fn a_choice_names_servers_and_lines() -> Result<()> {
    assert_eq!(parse("")?, Choice::default());
    let corner = parse("postgres=14, elasticsearch=8.19,opensearch=2.19")?;
    let versions = [corner.postgres, corner.elasticsearch, corner.opensearch]
        .map(|release| release.map(|release| release.version));
    assert_eq!(versions, [Some("14.15.0"), Some("8.19.8"), Some("2.19.0")]);
    let part = parse("postgres=17")?;
    assert_eq!(part.postgres.map(|release| release.version), Some("17.6.0"));
    assert_eq!((part.elasticsearch, part.opensearch), (None, None));
    Ok(())
}

#[test]
fn a_bad_choice_is_an_error_that_says_what_there_is() {
    for (text, says) in [
        ("postgres", "not of the form server=version"),
        ("postgres=13", "there are 14, 15, 16, 17, 18"),
        ("postgres=14,postgres=15", "chosen twice"),
        ("elasticsearch=9", "there are 8.19, 9.5"),
        ("opensearch=2.1", "there are 2.19, 3.3"),
        ("mysql=8", "there are postgres, elasticsearch, opensearch"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
