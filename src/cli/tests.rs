//! What can be typed, and what becomes of it.

use clap::CommandFactory;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("waldex").chain(words.iter().copied()))
}

#[test]
fn the_declaration_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_may_stand_before_and_after_the_command() {
    for words in [["--slot", "s", "check"], ["check", "--slot", "s"]] {
        assert_eq!(parse(&words).unwrap().common.slot.as_deref(), Some("s"));
    }
    let words = ["run", "--elasticsearch-url", "http://a", "--elasticsearch-url", "http://b"];
    assert_eq!(parse(&words).unwrap().common.elasticsearch_url, ["http://a", "http://b"]);
}

#[test]
fn arguments_of_run() {
    let run = |words: &[&str]| {
        let Command::Run(run) = parse(words).unwrap().command else { panic!("{words:?}") };
        run
    };
    assert_eq!(run(&["run"]).until, None);
    assert_eq!(run(&["run"]).reload(), Reload::Nothing);
    assert_eq!(run(&["run", "--until", "current"]).until, Some(Until::Current));
    let lsn = "16/B374D848".parse().unwrap();
    assert_eq!(run(&["run", "--until=16/B374D848"]).until, Some(Until::Lsn(lsn)));
    assert_eq!(run(&["run", "--reload"]).reload(), Reload::All);
    assert_eq!(run(&["run", "--reload", "--dry-run"]).reload(), Reload::All);
    assert!(parse(&["run", "--reload", ""]).is_err(), "a variable that is not set");
    let table = Reload::Table("public.users".to_owned());
    assert_eq!(run(&["run", "--reload", "public.users"]).reload(), table);
}

#[test]
fn switches_take_an_optional_value() {
    let compression = |words: &[&str]| parse(words).unwrap().common.compression;
    assert_eq!(compression(&["run"]), None);
    assert_eq!(compression(&["run", "--compression"]).as_deref(), Some("true"));
    assert_eq!(compression(&["run", "--compression=false"]).as_deref(), Some("false"));
}

#[test]
fn commands_of_later_versions_are_recognised() {
    for words in [
        &["plan"][..],
        &["reindex", "users", "--rollback"],
        &["verify", "--sample", "100", "--repair"],
        &["verify", "-c", "w.yaml"],
        &["plan", "--help"],
    ] {
        let command = parse(words).unwrap().command;
        let expected = format!("waldex {} is not in this version", words[0]);
        assert_eq!(command.not_in_this_version(), Some(expected));
    }
    assert_eq!(parse(&["check"]).unwrap().command.not_in_this_version(), None);
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("teardown") && !help.contains("reindex"), "{help}");
}

#[test]
fn dead_letters_are_named_or_all() {
    let action = |words: &[&str]| match parse(words).map(|cli| cli.command) {
        Ok(Command::DeadLetters(args)) => Some(args.action),
        _ => None,
    };
    let list = DeadLettersAction::List { json: true };
    assert_eq!(action(&["dead-letters", "list", "--json"]), Some(list));
    let two = Letters { ids: vec!["t-000001,1".to_owned(), "b".to_owned()], all: false };
    let words = ["dead-letters", "retry", "t-000001,1", "b"];
    assert_eq!(action(&words), Some(DeadLettersAction::Retry(two)));
    let all = Letters { ids: Vec::new(), all: true };
    assert_eq!(action(&["dead-letters", "drop", "--all"]), Some(DeadLettersAction::Drop(all)));
    for words in [&["dead-letters"][..], &["dead-letters", "drop"]] {
        assert_eq!(action(words), None, "{words:?}");
    }
    assert_eq!(action(&["dead-letters", "retry", "--all", "x"]), None);
}

#[test]
fn exit_codes() {
    for (words, code) in [
        (&["--help"][..], 0),
        (&["run", "--help"], 0),
        (&["--version"], 0),
        (&[], 64),
        (&["fly"], 64),
        (&["run", "--fly"], 64),
        (&["run", "--until", "tomorrow"], 64),
        (&["run", "--slot", "a", "--slot", "b"], 64),
    ] {
        assert_eq!(exit_code_for(&parse(words).unwrap_err()), code, "{words:?}");
    }
}

#[test]
fn clap_quotes_no_password() {
    for words in [
        &["postgres://u:c4n/4ry@db/a"][..],
        &["check", "postgres://u:c4n4ry@db/a"],
        &["check", "--elasticsearch-urls=http://u:c4n4ry@es"],
    ] {
        let text = usage_text(&parse(words).unwrap_err());
        assert!(!text.contains("c4n") && !text.contains("4ry"), "{text}");
    }
}

/// The help names the variable of each setting; the values of variables never stand in it.
#[test]
fn help_names_every_variable() {
    let help = Cli::command().render_long_help().to_string();
    for key in crate::config::setting_names() {
        assert!(help.contains(key), "{key}");
    }
}
