//! Passwords and API keys, right and wrong, in URLs, files and variables, with every command and every way a
//! connection can fail.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Heard, talkative};
use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::refusal::CommandLine;
use crate::support::servers::ports;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::waldex::{Finished, Waldex};

/// In every secret, right or wrong.
const SECRET: &str = "s3cr3tc4n";

struct Scene {
    stage: Stage<'static>,
    /// With the right secrets in it.
    line: CommandLine,
    role: String,
    user: String,
    /// Of the search user; the throwaway node has only one.
    password: String,
    files: TempDir,
    heard: Heard,
}

impl Scene {
    /// With a role whose password can be told from others.
    async fn new(label: &str) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
        stage.table("t", "id int primary key, v text", "").await?;
        let role = format!("r_{}", stage.name());
        let password = format!("{SECRET}-pg");
        stage
            .execute(&format!(
                "create role {role} superuser login password '{password}'; insert into t values (1, 'x')"
            ))
            .await?;
        let line = CommandLine::of(&stage).with_role(&role, &password)?;
        let (user, password) = stage.node.credentials.clone().context("security is off")?;
        let (files, heard) = (tempfile::tempdir()?, Heard::default());
        Ok(Self { stage, line, role, user, password, files, heard })
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.files.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    async fn hear(&mut self, line: &CommandLine, words: &[&str], code: i32) -> Result<()> {
        for format in ["human", "json"] {
            let finished = talkative(line.waldex(words)?, format).run_to_end(LIMIT).await?;
            self.heard.finished(&words.join(" "), &finished);
            finished.expect_code(code)?;
        }
        Ok(())
    }

    /// The same line with the secrets elsewhere than in its URLs.
    fn without_secrets(&self) -> Result<CommandLine> {
        let mut line = self.line.clone().with_role(&self.role, "")?;
        line.elasticsearch_url = self.stage.node.url.to_string();
        Ok(line)
    }

    fn end(&self) -> Result<()> {
        self.heard.never_mentions(SECRET)?;
        self.heard.never_mentions(&self.password)
    }
}

fn with_password(mut url: url::Url, user: &str, password: &str) -> Result<String> {
    let set = url.set_username(user).and_then(|()| url.set_password(Some(password)));
    set.ok().context("a URL without a host")?;
    Ok(url.to_string())
}

const COMMANDS: [&[&str]; 7] = [
    &["check"],
    &["setup"],
    &["run", "--until", "current"],
    &["status"],
    &["status", "--json"],
    &["dead-letters", "list"],
    &["run", "--dry-run", "--until", "current"],
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_that_is_right() -> Result<()> {
    let mut scene = Scene::new("secret").await?;
    let in_urls = scene.line.clone();
    for words in COMMANDS {
        scene.hear(&in_urls, words, 0).await?;
    }
    let postgres = scene.file("postgres", &format!("{SECRET}-pg\n"))?;
    let search = scene.file("search", &format!("{}\n", scene.password))?;
    let flag = |name: &str, path: &PathBuf| [name.to_owned(), path.display().to_string()];
    let mut in_files = scene.without_secrets()?;
    in_files.flags.extend(flag("--postgres-password-file", &postgres));
    in_files.flags.extend(["--elasticsearch-username".to_owned(), scene.user.clone()]);
    in_files.flags.extend(flag("--elasticsearch-password-file", &search));
    for words in COMMANDS {
        scene.hear(&in_files, words, 0).await?;
    }
    let line = scene.without_secrets()?;
    for words in COMMANDS {
        let program = talkative(line.waldex(words)?, "json")
            .env("WALDEX_POSTGRES_PASSWORD", &format!("{SECRET}-pg"))
            .env("WALDEX_ELASTICSEARCH_USERNAME", &scene.user)
            .env("WALDEX_ELASTICSEARCH_PASSWORD", &scene.password);
        let finished = program.run_to_end(LIMIT).await?;
        scene.heard.finished(&words.join(" "), &finished);
        finished.expect_code(0)?;
    }
    scene.hear(&in_urls, &["teardown", "--yes"], 0).await?;
    scene.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_that_is_refused() -> Result<()> {
    let mut scene = Scene::new("secret_no").await?;
    let right = scene.line.clone();
    let wrong = format!("{SECRET}-wrong");
    let mut lines = vec![right.clone().with_role(&scene.role, &wrong)?];
    let node = scene.stage.node.url.clone();
    let closed = ports::free()?.to_string();
    let (search, search_port) =
        (&right.elasticsearch_url, node.port().context("no port")?.to_string());
    // Nobody listens; no TLS where it is asked for; no such host.
    for elasticsearch_url in [
        with_password(node, &scene.user, &wrong)?,
        search.replace(&search_port, &closed),
        search.replace("http://", "https://"),
        search.replace("127.0.0.1", "nowhere.invalid"),
    ] {
        lines.push(CommandLine { elasticsearch_url, ..right.clone() });
    }
    let (postgres, postgres_port) = (&right.postgres_url, scene.stage.postgres.port().to_string());
    for postgres_url in [
        format!("{postgres}?sslmode=require"),
        format!("{postgres}?sslmode=verify-full"),
        postgres.replace("127.0.0.1", "nowhere.invalid"),
        postgres.replace(&postgres_port, &closed),
    ] {
        lines.push(CommandLine { postgres_url, ..right.clone() });
    }
    for line in lines {
        scene.hear(&line, &["check"], 1).await?;
        scene.hear(&line, &["status", "--json"], 1).await?;
    }
    let key = scene.file("key", &format!("{SECRET}x"))?.display().to_string();
    let mut by_key = right.clone();
    by_key.elasticsearch_url = scene.stage.node.url.to_string();
    by_key.flags.extend(["--elasticsearch-api-key-file".to_owned(), key]);
    scene.hear(&by_key, &["check"], 1).await?;
    scene.hear(&by_key, &["run"], 1).await?;
    // Something between that throws back what it was sent.
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    proxy.rule(|_| {
        Fault::Answer(401, "{\"error\":\"no: Basic dTpzM2NyM3RjNG4td3Jvbmc=, s3cr3tc4n-wrong\"}")
    });
    let mut line = right.clone();
    let url = proxy.node().url.clone();
    line.elasticsearch_url = with_password(url, &scene.user, &wrong)?;
    scene.hear(&line, &["check"], 1).await?;
    scene.hear(&line, &["run"], 1).await?;
    ensure!(scene.heard.mentions("28P01") && scene.heard.mentions("401"), "nothing was refused");
    scene.end()
}

/// Mistakes in the configuration are shown with their place, and never with what stands there.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_of_a_configuration_that_is_refused() -> Result<()> {
    let mut heard = Heard::default();
    let postgres = [
        "postgres://u:s3cr3tc4n@h:port/d",
        "postgres://u:s3cr3tc4n/x@h/d",
        "postgres://u:s3cr3tc4n?x@h/d",
        "postgres://u:%zzs3cr3tc4n@h/d",
        "postgres://u:s3cr3tc4n@h/d?sslmode=s3cr3tc4n&s3cr3tc4n=1",
        "postgres:/u:s3cr3tc4n@h/d",
        "s3cr3tc4n",
        "host=h password=s3cr3tc4n",
        "postgres://u@h/d?password=s3cr3tc4n&password=s3cr3tc4n2",
    ];
    let search = [
        "http://u:s3cr3tc4n@h:port",
        "http://u:s3cr3tc4n/@h:1",
        "http://u:s3cr3tc4n#x@h:1",
        "u:s3cr3tc4n@h:1",
        "ftp://u:s3cr3tc4n@h",
        "http://:s3cr3tc4n@h:1",
        "http://u:s3cr3tc4n@h:1/?s3cr3tc4n",
        "http://u:s3cr3tc4n@h:1,http://u:s3cr3tc4n2@i:1",
    ];
    let (good_pg, good_es) = ("postgres://u:p@127.0.0.1:1/d", "http://127.0.0.1:1");
    for url in postgres {
        let told = command(&["--postgres-url", url, "--elasticsearch-url", good_es], "").await?;
        heard.finished(url, told.expect_code(64)?);
        let yaml = format!(
            "postgres: {{url: '{url}', slot: s, publication: p}}\nelasticsearch: {{addresses: ['{good_es}']}}\n"
        );
        heard.finished(url, command(&[], &yaml).await?.expect_code(64)?);
    }
    for url in search {
        let told = command(&["--postgres-url", good_pg, "--elasticsearch-url", url], "").await?;
        heard.finished(url, told.expect_code(64)?);
        let yaml = format!(
            "postgres: {{url: '{good_pg}', slot: s, publication: p}}\nelasticsearch: {{addresses: ['{url}']}}\n"
        );
        heard.finished(url, command(&[], &yaml).await?.expect_code(64)?);
    }
    for secret in [
        "postgres: {password: [s3cr3tc4n]}",
        "postgres: {password: s3cr3tc4n, password_file: s3cr3tc4n/none}",
        "postgres: {password: s3cr3tc4n, pasword: s3cr3tc4n}",
        "postgres: {password: s3cr3tc4n, password: s3cr3tc4n}",
        "elasticsearch: {api_key: 's3cr3tc4n:s3cr3tc4n', password: s3cr3tc4n}",
        "elasticsearch: {api_key: 's3cr3tc4n s3cr3tc4n'}",
        "elasticsearch: {api_key: s3cr3tc4n, username: u, password: s3cr3tc4n}",
        "elasticsearch: {password: \"s3cr3tc4n}",
        "elasticsearch:\n\tpassword: s3cr3tc4n",
        "elasticsearch: {password: *s3cr3tc4n}",
        "elasticsearch: {username: 'u:x', password: s3cr3tc4n}",
        "elasticsearch: {username: u, password: '${CANARY}x${NONE}'}",
        "elasticsearch: {bulk_size: '${CANARY}'}",
        "tables: ['${CANARY}']",
    ] {
        let told = command(&["--postgres-url", good_pg], secret).await?;
        heard.finished(&secret.replace("s3cr3tc4n", "…"), told.expect_code(64)?);
    }
    // Flags that there are not, as somebody may hope for.
    for flag in ["--postgres-password", "--elasticsearch-password", "--api-key"] {
        let told = command(&[&format!("{flag}={SECRET}")], "").await?;
        heard.finished(flag, told.expect_code(64)?);
    }
    heard.never_mentions(SECRET)
}

/// Values of variables are never quoted, whatever they are for; the one here is the secret.
async fn command(flags: &[&str], yaml: &str) -> Result<Finished> {
    let mut program = Waldex::new("check")?.env("CANARY", SECRET);
    for flag in flags {
        program = program.arg(flag);
    }
    if !yaml.is_empty() {
        program = program.config(yaml);
    }
    if !flags.is_empty() {
        program = program.arg("--slot=s").arg("--publication=p");
    }
    program.run_to_end(LIMIT).await
}
