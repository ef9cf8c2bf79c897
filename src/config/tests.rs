//! The configuration as a whole: precedence, all problems at once with their places, no secret shown.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::Cli;
use crate::settings::{
    CircuitBreakerSettings, ColumnChoice, ElasticsearchSettings, SearchCredentials, TemplatePart,
};

/// A text that must never turn up in an error or a `Debug` output.
const CANARY: &str = "c4n4ry";

const MINIMAL: &str = "\
postgres: {url: 'postgres://u@db/a', slot: s, publication: p}
elasticsearch: {addresses: ['http://es:9200']}
";

/// One invocation: flags, variables and files.
#[derive(Default)]
struct Given {
    flags: Vec<&'static str>,
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, String>,
}

impl Given {
    fn yaml(source: &str) -> Self {
        let files = BTreeMap::from([("w.yaml", source.to_owned())]);
        Self { flags: vec!["-c", "w.yaml"], files, ..Self::default() }
    }

    fn flags(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.insert(name, value);
        self
    }

    fn file(mut self, path: &'static str, content: &str) -> Self {
        self.files.insert(path, content.to_owned());
        self
    }

    fn load(&self) -> Result<Settings, ConfigErrors> {
        let words = ["waldex", "run"].iter().chain(&self.flags);
        let args = Cli::try_parse_from(words).unwrap().common;
        let read = |path: &Path| {
            let content = self.files.get(path.to_str().unwrap());
            content.cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        load(&args, &|name| self.variables.get(name).map(|value| (*value).to_owned()), &read)
    }

    /// The errors, one line each, after a look that none shows the canary.
    fn errors(&self) -> Vec<String> {
        let errors = self.load().expect_err("the configuration has mistakes");
        assert!(!format!("{errors} {errors:?}").contains(CANARY), "{errors}");
        assert!(!errors.problems().is_empty());
        errors.to_string().lines().map(str::to_owned).collect()
    }
}

#[test]
fn flags_alone_are_enough_and_the_rest_has_defaults() {
    let given = Given::default().flags(&[
        "--postgres-url",
        "postgres://u@db/a",
        "--slot",
        "s",
        "--publication",
        "p",
        "--elasticsearch-url",
        "http://es1:9200,http://es2:9200",
    ]);
    let settings = given.load().unwrap();
    assert_eq!(settings.memory_budget_bytes, 16 << 20);
    assert_eq!(settings.shutdown_grace, Duration::from_secs(10));
    assert!(settings.tables.is_empty());
    assert_eq!((settings.postgres.slot.as_str(), settings.postgres.allow_md5), ("s", false));
    assert_eq!(settings.postgres.connect_timeout, Duration::from_secs(10));
    let ElasticsearchSettings {
        addresses,
        credentials,
        secret_file,
        ca_file,
        bulk_size,
        bulk_bytes,
        flush_interval,
        concurrency,
        request_timeout,
        max_retries,
        circuit_breaker,
        compression,
    } = settings.elasticsearch;
    assert_eq!(
        addresses.iter().map(url::Url::as_str).collect::<Vec<_>>(),
        ["http://es1:9200/", "http://es2:9200/"]
    );
    assert_eq!((credentials, ca_file, secret_file), (SearchCredentials::None, None, None));
    let dead_letter = OnRejected::DeadLetter { keep_document: false, max: 10_000 };
    assert_eq!(settings.on_rejected, dead_letter);
    let breaker = CircuitBreakerSettings {
        min_requests: 3,
        failure_ratio: 0.6,
        interval: Duration::from_secs(60),
        open_for: Duration::from_secs(30),
    };
    assert_eq!(circuit_breaker, breaker);
    assert_eq!((bulk_size, bulk_bytes, concurrency, max_retries), (1000, 5 << 20, 2, 3));
    assert_eq!(flush_interval, Duration::from_secs(1));
    assert_eq!(request_timeout, Duration::from_secs(30));
    assert!(!compression);
}

#[test]
fn nothing_given_names_every_missing_setting() {
    assert_eq!(
        Given::default().errors(),
        [
            "configuration: \"postgres.url\" is not set; give --postgres-url, WALDEX_POSTGRES_URL or \
         \"postgres.url\" in the file",
            "configuration: \"postgres.slot\" is not set; give --slot, WALDEX_SLOT or \
         \"postgres.slot\" in the file",
            "configuration: \"postgres.publication\" is not set; give --publication, \
         WALDEX_PUBLICATION or \"postgres.publication\" in the file",
            "configuration: \"elasticsearch.addresses\" is not set; give --elasticsearch-url, \
         WALDEX_ELASTICSEARCH_URL or \"elasticsearch.addresses\" in the file",
        ]
    );
}

#[test]
fn all_problems_at_once_with_line_and_column() {
    let source = "\
postgres:
  url: postgres://u@db/a
  slot: Wal-Dex
  publication: p
  slot: again
elasticsearch:
  addresses: [http://es:9200]
  bulksize: 10
  bulk_bytes: 5MiBs
  flush_interval: 30
  concurrency: 65
  compression: maybe
  circuit_breaker: {min_requests: 0, ratio: 1, failure_ratio: 60%}
  password: 0123
on_rejected: skip
dead_letters: {keep: true}
admin: {listen: \"9187\"}
telemetry: on
tables:
  - table: public.users
    where: is_active
    columns: [id, id]
    rename: {email: mail}
";
    let given =
        Given::yaml(source).variable("WALDEX_MAX_RETRIES", "x").flags(&["--memory-budget", "1"]);
    assert_eq!(
        given.errors(),
        [
            "w.yaml:3:9: slot: \"Wal-Dex\" is no slot name: 1 to 63 of the characters a-z, 0-9 and _",
            "w.yaml:5:3: \"slot\" is given twice",
            "w.yaml:8:3: unknown key \"bulksize\"; did you mean \"bulk_size\"?",
            "w.yaml:9:15: bulk_bytes: \"5MiBs\" is no size; write it like 1000, 64KiB, 5MiB or 10MB",
            "w.yaml:10:19: flush_interval: \"30\" is no time; write a whole number and a unit: 250ms, \
         1s, 5m or 1h",
            "w.yaml:11:16: concurrency: \"65\" must be from 1 to 64",
            "w.yaml:12:16: compression: \"maybe\" must be true or false",
            "w.yaml:13:35: min_requests: \"0\" must be from 1 to 1000",
            "w.yaml:13:38: unknown key \"ratio\" (known here: min_requests, failure_ratio, interval, open_for)",
            "w.yaml:13:63: failure_ratio: \"60%\" is no part of a whole; write it like 0.6",
            "w.yaml:14:13: \"password\" must be text; put it in quotes",
            "w.yaml:15:14: on_rejected: \"skip\" must be \"dead_letter\" or \"halt\"",
            "w.yaml:16:16: unknown key \"keep\" (known here: max, keep_document)",
            "w.yaml:17:17: listen: \"9187\" is no address and port, as in 127.0.0.1:9187 or [::1]:9187",
            "w.yaml:18:1: unknown key \"telemetry\" (known here: memory_budget, shutdown_grace, \
         on_rejected, on_slot_lost, dead_letters, postgres, elasticsearch, admin, tables)",
            "w.yaml:21:5: \"where\" is not in this version",
            "w.yaml:22:19: \"id\" is listed twice",
            "w.yaml:23:14: \"email\" is renamed but not among the columns that are indexed",
            "WALDEX_MAX_RETRIES: \"x\" is no whole number",
            "--memory-budget: \"1\" must be from 64KiB to 2GiB",
        ]
    );
}

#[test]
fn mistakes_of_form() {
    for (source, expected) in [
        ("a: [1", "w.yaml:2:1: this is not valid YAML: "),
        ("- a\n", "w.yaml:1:1: the configuration must be a mapping of keys to values"),
        ("1: x\n", "w.yaml:1:1: a key must be text; put it in quotes"),
        ("tables: users\n", "w.yaml:1:1: \"tables\" must be a list"),
        ("postgres: 5\n", "w.yaml:1:11: \"postgres\" must be a mapping of keys to values"),
        ("postgres: {slot: [a]}\n", "w.yaml:1:18: \"slot\" must be one value, not a list"),
        ("postgres: {slot: }\n", "w.yaml:1:12: \"slot\" has no value"),
        ("postgres: {slot: !x a}\n", "w.yaml:1:"),
        ("elasticsearch: {addresses: []}\n", "w.yaml:1:17: \"addresses\" is empty"),
        ("memory_budget: 1\n---\nb: 1\n", "w.yaml:3:1: a second YAML document"),
        ("tables:\n  - index: a\n", "w.yaml:2:5: \"table\" is missing in this entry"),
        ("tables:\n  - table: Users\n", "w.yaml:2:12: \"Users\" has upper-case letters"),
        ("<<: {a: 1}\n", "w.yaml:1:1: unknown key \"<<\""),
        ("{postgres: {}, 'postgres': {}}\n", "w.yaml:1:16: \"postgres\" is given twice"),
    ] {
        let errors = Given::yaml(source).errors();
        assert!(errors.iter().any(|e| e.starts_with(expected)), "{source}: {errors:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read() {
    let errors = Given::default().variable("WALDEX_CONFIG", "none.yaml").errors();
    assert_eq!(errors, ["none.yaml: cannot be read: entity not found"]);
}

#[test]
fn a_flag_wins_over_its_variable_which_wins_over_the_file() {
    let source = format!("{MINIMAL}memory_budget: 32MiB\n");
    let budget = |given: &Given| given.load().unwrap().memory_budget_bytes >> 20;
    let given = Given::yaml(&source);
    assert_eq!(budget(&given), 32);
    let given = given.variable("WALDEX_MEMORY_BUDGET", "33MiB");
    assert_eq!(budget(&given), 33);
    let given = given.flags(&["--memory-budget", "34MiB"]);
    assert_eq!(budget(&given), 34);
    let given = Given::yaml(&source).variable("WALDEX_MEMORY_BUDGET", "");
    assert_eq!(budget(&given), 32, "an empty variable says nothing");
}

#[test]
fn every_setting_can_be_given_in_every_layer() {
    for key in keys::ALL {
        let bad = "\u{1}";
        let mut layers: Vec<(Given, &str)> =
            vec![(Given::yaml(MINIMAL).variable(key.variable, bad), key.variable)];
        if let Some(flag) = key.flag {
            let mut given = Given::yaml(MINIMAL);
            let joined: &'static str = format!("{flag}={bad}").leak();
            given.flags.push(joined);
            layers.push((given, flag));
        }
        for (given, name) in layers {
            let harmless = ["--publication", "WALDEX_PUBLICATION", "WALDEX_POSTGRES_PASSWORD"];
            if harmless.contains(&name) {
                given.load().unwrap();
            } else {
                let errors = given.errors();
                assert!(errors.iter().any(|e| e.starts_with(name)), "{name}: {errors:?}");
            }
        }
    }
}

#[test]
fn an_overridden_value_need_not_be_good() {
    let source = "\
postgres: {url: '${NOT_SET}', slot: BAD, publication: p}
elasticsearch: {addresses: ['http://es:9200']}
";
    let given =
        Given::yaml(source).flags(&["--postgres-url", "postgres://u@db/a", "--slot", "good"]);
    assert_eq!(given.load().unwrap().postgres.slot, "good");
    assert_eq!(
        Given::yaml(source).errors(),
        [
            "w.yaml:1:17: environment variable \"NOT_SET\" is not set",
            "w.yaml:1:37: slot: \"BAD\" is no slot name: 1 to 63 of the characters a-z, 0-9 and _",
        ]
    );
}

#[test]
fn passwords_come_from_the_strongest_layer() {
    let password = |given: &Given| {
        let password = given.load().unwrap().postgres.password;
        password.map(|password| password.reveal().to_owned())
    };
    let source = MINIMAL.replace("slot:", "password_file: /pw, slot:");
    let given = Given::yaml(&source).file("/pw", "from file\r\n");
    assert_eq!(password(&given).as_deref(), Some("from file"));
    let given = given.variable("WALDEX_POSTGRES_PASSWORD", "from variable");
    assert_eq!(password(&given).as_deref(), Some("from variable"));
    let given = given.flags(&["--postgres-url", "postgres://u:from%20flag@db/a"]);
    assert_eq!(password(&given).as_deref(), Some("from flag"));
    assert_eq!(password(&Given::yaml(MINIMAL)), None);
}

#[test]
fn secrets_that_contradict_each_other_or_are_not_there() {
    for (change, expected) in [
        (
            ("slot:", "password: c4n4ry, password_file: /pw, slot:"),
            "w.yaml:1:71: \"password\" and \"password_file\" are both given; keep one",
        ),
        (("slot:", "password_file: /none, slot:"), "password_file: \"/none\" cannot be read"),
        (("slot:", "password_file: /empty, slot:"), "password_file: \"/empty\" is an empty file"),
        (("u@db", "u:c4n4ry@db"), "a password is given here and in the URL; keep one"),
        (("/a'", "/a?sslrootcert=/none'"), "sslrootcert in the URL cannot be read"),
        (("/a'", "/a?sslrootcert=/pw'"), "sslrootcert in the URL holds no PEM certificate"),
    ] {
        let mut source = MINIMAL.replace(change.0, change.1);
        if change.0 == "u@db" {
            source = source.replace("slot:", "password: c4n4ry, slot:");
        }
        let given = Given::yaml(&source).file("/pw", CANARY).file("/empty", "\n");
        let errors = given.errors();
        assert!(errors.iter().any(|e| e.contains(expected)), "{source}: {errors:?}");
    }
}

#[test]
fn search_credentials() {
    let credentials = |more: &str, variable: Option<(&'static str, &'static str)>| {
        let source = MINIMAL.replace("]}", &format!("]{more}}}"));
        let mut given = Given::yaml(&source).file("/key", "a2V5\n");
        given.variables.extend(variable);
        given.load().map(|settings| settings.elasticsearch.credentials)
    };
    let basic = |username: &str, password: &str| SearchCredentials::Basic {
        username: username.to_owned(),
        password: Secret::new(password.to_owned()),
    };
    let key = |key: &str| SearchCredentials::ApiKey(Secret::new(key.to_owned()));
    assert_eq!(credentials("", None), Ok(SearchCredentials::None));
    assert_eq!(credentials(", username: u, password: p", None), Ok(basic("u", "p")));
    assert_eq!(credentials(", api_key_file: /key", None), Ok(key("a2V5")));
    let from_file =
        Given::yaml(&MINIMAL.replace("]}", "], api_key_file: /key}")).file("/key", "a2V5");
    let secret_file = from_file.load().unwrap().elasticsearch.secret_file;
    assert_eq!(secret_file.as_deref(), Some(Path::new("/key")), "to be read again");
    let variable = Some(("WALDEX_ELASTICSEARCH_API_KEY", "b3Zlcg=="));
    assert_eq!(credentials(", username: u, password: p", variable), Ok(key("b3Zlcg==")));
    for (more, expected) in [
        (", username: u", "a username without a password"),
        (", password: c4n4ry", "a password without a username"),
        (", username: u, password: c4n4ry, api_key: c4n4ry", "keep one"),
        (", api_key: 'id:c4n4ry'", "encoded form"),
        (", api_key: 'c4n4ry two'", "blank"),
        (", username: 'a:b', password: c4n4ry", "must not contain \":\""),
    ] {
        let errors = credentials(more, None).unwrap_err().to_string();
        assert!(errors.contains(expected) && !errors.contains(CANARY), "{more}: {errors}");
    }
}

#[test]
fn user_info_is_taken_out_of_addresses() {
    let source = MINIMAL.replace("http://es", "https://u:p%40w@es");
    let search = Given::yaml(&source).load().unwrap().elasticsearch;
    assert_eq!(search.addresses.first().unwrap().as_str(), "https://es:9200/");
    let password = Secret::new("p@w".to_owned());
    assert_eq!(search.credentials, SearchCredentials::Basic { username: "u".into(), password });
    for (address, expected) in [
        ("es:9200", "beginning with http"),
        ("http://u:c4n4ry@", "must be a URL"),
        ("http://u:c4n4ry/x@es", "must be a URL"),
        ("http://u:1/c4n4ry@es", "percent-encoded"),
        ("http://u@es", "without a password"),
        ("http://es/?a=c4n4ry", "must not have a part after"),
        ("http://es:9200, http://es:9200", "is given twice"),
        ("http://u:c4n4ry@a,http://v:c4n4ry@b", "another user name or password"),
    ] {
        let given = Given::yaml(&MINIMAL.replace("http://es:9200", address));
        let errors = given.errors();
        assert!(errors.iter().any(|e| e.contains(expected)), "{address}: {errors:?}");
    }
}

#[test]
fn a_budget_below_one_request_is_a_contradiction() {
    let given = Given::yaml(MINIMAL).flags(&["--memory-budget=4MiB"]);
    assert_eq!(
        given.errors(),
        [
            "--memory-budget: memory_budget (4MiB) is less than elasticsearch.bulk_bytes (5MiB); raise \
         memory_budget or lower bulk_bytes"
        ]
    );
    let given = Given::yaml(MINIMAL).variable("WALDEX_BULK_BYTES", "20MiB");
    assert!(
        given.errors().first().unwrap().starts_with("WALDEX_BULK_BYTES: memory_budget (16MiB)")
    );
}

#[test]
fn tables_that_collide() {
    for (tables, expected) in [
        ("[{table: a.t}, {table: b.t}]", "index \"t\" is that of table \"a.t\" too; set \"index\""),
        ("[{table: t}, {table: public.t, index: u}]", "table \"public.t\" is listed twice"),
        ("[{table: t}, {table: u, index: t-000001}]", "would collide"),
        ("[{table: '\"Users\"'}]", "cannot be its index's name, which must be in lower case"),
        ("[{table: t, index: 'a b'}]", "index: \"a b\" must not contain ' '"),
        ("[{table: t, columns: [a], exclude: [b]}]", "\"columns\" and \"exclude\" are both given"),
        ("[{table: t, columns: []}]", "\"columns\" is empty"),
        ("[{table: t, rename: {a: x, b: x}}]", "field \"x\" is written by column \"a\" too"),
        ("[{table: t, columns: [a, b], rename: {a: b}}]", "field \"b\" is written by column \"b\""),
        ("[{table: t, exclude: [a], rename: {a: b}}]", "\"a\" is renamed but not among"),
        ("[{table: t, rename: {a: _id}}]", "keeps for itself"),
        ("[{table: t, rename: {a: b..c}}]", "is no field name"),
        ("[{table: t, rename: {a: b, a: c}}]", "\"a\" is given twice"),
        ("[{table: t, computed: {f: '{a'}}]", "computed field \"f\": "),
        ("[{table: t, computed: {f: '{a}'}, rename: {b: f}}]", "\"f\" is written by column \"b\""),
        ("[{table: t, routing: ''}]", "\"\" is no column; leave routing out"),
        ("[{table: t, colums: [a]}]", "did you mean \"columns\"?"),
        ("[{table: t, mappings: {x: .nan}}]", "cannot be written as JSON"),
    ] {
        let errors = Given::yaml(&format!("{MINIMAL}tables: {tables}\n")).errors();
        assert!(errors.iter().any(|e| e.contains(expected)), "{tables}: {errors:#?}");
        assert_eq!(errors.len(), 1, "{tables}: {errors:#?}");
        assert!(errors.iter().all(|e| e.starts_with("w.yaml:3:")), "{errors:?}");
    }
}

#[test]
fn tables_are_read() {
    let source = format!(
        "{MINIMAL}tables:\n  - table: crm.users\n    index: people\n    exclude: [h]\n    \
         rename: {{a: b}}\n    computed: {{c: '{{d}}!'}}\n    routing: h\n    \
         settings: {{n: 3, r: '${{R}}', f: [1.5, true, null]}}\n  - table: t\n"
    );
    let tables = Given::yaml(&source).variable("R", "1s").load().unwrap().tables;
    let [users, t] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!([&users.schema, &users.table, &users.index], ["crm", "users", "people"]);
    assert_eq!(users.columns, ColumnChoice::Except(vec!["h".to_owned()]));
    assert_eq!(users.rename, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let template = vec![TemplatePart::Column("d".into()), TemplatePart::Literal("!".into())];
    assert_eq!(users.computed, BTreeMap::from([("c".to_owned(), template)]));
    assert_eq!(users.routing.as_deref(), Some("h"), "which need not be a field");
    let settings = serde_json::Value::Object(users.settings.clone());
    assert_eq!(settings, serde_json::json!({"n": 3, "r": "1s", "f": [1.5, true, null]}));
    assert_eq!(*t, crate::settings::TableSettings::with_defaults("public", "t"));
}

#[test]
fn debug_shows_no_secret() {
    let source = MINIMAL.replace("slot:", "password: c4n4ry, slot:");
    let source = source.replace("http://es", "http://u:c4n4ry@es");
    let settings = Given::yaml(&source).load().unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("***") && !shown.contains(CANARY), "{shown}");
    let words = ["waldex", "run", "--postgres-url", "postgres://u:c4n4ry@db/a"];
    let cli = format!("{:?}", Cli::try_parse_from(words).unwrap());
    assert!(cli.contains("--postgres-url") && !cli.contains(CANARY), "{cli}");
}

/// The example file: it has no errors, and each `#key: value` line is the default, so that removing
/// the `#` changes nothing.
#[test]
fn the_example_is_right() {
    let source = include_str!("../../examples/waldex.yaml");
    let load = |source: &str| {
        let given = Given::yaml(source)
            .variable("APP_DB_PASSWORD", "x")
            .variable("APP_SEARCH_PASSWORD", "y");
        format!("{:#?}", given.load().unwrap_or_else(|errors| panic!("{errors}")))
    };
    let mut shown = Vec::new();
    let mut uncommented = String::new();
    for line in source.lines() {
        let default = line.trim_start().strip_prefix('#').filter(|l| !l.starts_with([' ', '#']));
        if let Some(key) = default.and_then(|line| line.split(':').next()) {
            shown.push(key.to_owned());
            uncommented.push_str(&line.replacen('#', "", 1));
        } else {
            uncommented.push_str(line);
        }
        uncommented.push('\n');
    }
    assert_eq!(load(source), load(&uncommented));
    for key in keys::ALL {
        let has_default = matches!(key.kind, keys::Kind::Switch) || key.limits.is_some();
        assert_eq!(
            shown.iter().any(|shown| shown == key.name()),
            has_default || key.path.starts_with("on_"),
            "{}",
            key.path
        );
        let named = |name: &str| source.contains(name);
        assert!(named(key.name()) && named(key.variable), "{}", key.path);
        assert!(key.flag.is_none_or(named), "{}", key.path);
        if let Some(limits) = key.limits {
            let show = |quantity| value::show_quantity(key.kind, quantity);
            let range = format!("({} to {}", show(limits.min), show(limits.max));
            assert!(source.contains(&range), "{}: {range}", key.path);
        }
    }
}
