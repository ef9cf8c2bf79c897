//! To Postgres. One server for all tests here, whose certificate is for `localhost`.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::support::certificates::Authority;
use crate::support::refusal::CommandLine;
use crate::support::servers::ports;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::shared_elasticsearch;
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

/// Who may come only over TLS, and who has an md5 password.
const RULES: &str = "
hostnossl all  over_tls 127.0.0.1/32 reject
hostssl   all  over_tls 127.0.0.1/32 scram-sha-256
host      all  old_way  127.0.0.1/32 md5";

struct Secured {
    server: Postgres,
    authority: Authority,
    files: TempDir,
}

impl Secured {
    fn start() -> Result<Self> {
        let authority = Authority::new()?;
        let server = Postgres::start(Version::Newest, &Options::default())?;
        let identity = authority.identity(&["localhost"])?;
        server.put_data_file("server.crt", &identity.certificate)?;
        server.put_data_file("server.key", &identity.key)?;
        server.prepend_hba(RULES)?;
        let files = tempfile::tempdir()?;
        std::fs::write(files.path().join("ca.pem"), authority.certificate())?;
        std::fs::write(files.path().join("other.pem"), Authority::new()?.certificate())?;
        Ok(Self { server, authority, files })
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }
}

async fn secured() -> Result<&'static Secured> {
    static SECURED: OnceLock<Result<Secured, String>> = OnceLock::new();
    static READY: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let started =
        block_in_place(|| SECURED.get_or_init(|| Secured::start().map_err(|it| format!("{it:#}"))));
    let secured = started.as_ref().map_err(|error| anyhow!("{error}"))?;
    READY
        .get_or_try_init(async || {
            let client = sql::connect(secured.server.url()).await?;
            for statement in [
                "create role over_tls superuser login password 'tls'",
                "set password_encryption = 'md5'",
                "create role old_way superuser login password 'md5'",
                "alter system set ssl = on",
                "select pg_reload_conf()",
            ] {
                sql::batch(&client, statement).await?;
            }
            wait_until(LIMIT, "TLS to be on", async || {
                matches!(sql::value(&client, "show ssl").await, Ok(Some(ssl)) if ssl == "on")
            })
            .await
        })
        .await?;
    Ok(secured)
}

async fn stage(label: &str) -> Result<(Stage<'static>, &'static Secured)> {
    let secured = secured().await?;
    let mut stage = Stage::new(label, &secured.server, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'one')").await?;
    Ok((stage, secured))
}

/// As a role that may come over TLS only, to a host by this name, with these parameters.
fn line(stage: &Stage<'_>, host: &str, parameters: &str) -> Result<CommandLine> {
    let mut line = CommandLine::of(stage).with_role("over_tls", "tls")?;
    line.postgres_url = line.postgres_url.replace("127.0.0.1", host) + "?" + parameters;
    Ok(line)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_as_each_sslmode_asks_for_it() -> Result<()> {
    let (stage, secured) = stage("tls").await?;
    let (ca, other) = (secured.file("ca.pem"), secured.file("other.pem"));
    let with = |mode: &str, ca: &str| format!("sslmode={mode}&sslrootcert={ca}");
    for (host, parameters) in [
        ("localhost", with("verify-full", &ca)),
        ("127.0.0.1", with("verify-ca", &ca)),
        ("127.0.0.1", with("require", &ca)),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
    ] {
        let line = line(&stage, host, &parameters)?;
        let words = ["run", "--until", "current", "--log-level", "debug"];
        let log = line.succeed(&words).await.context(parameters)?.stderr.join("\n");
        ensure!(log.contains("SCRAM-SHA-256-PLUS"), "the channel is not bound: {log}");
    }
    for (host, parameters, what, fix) in [
        ("127.0.0.1", with("verify-full", &ca), "certificate", "host name"),
        ("localhost", with("verify-full", &other), "certificate", "sslrootcert"),
        ("127.0.0.1", with("verify-ca", &other), "certificate", "sslrootcert"),
        ("127.0.0.1", with("require", &other), "certificate", "sslrootcert"),
        ("localhost", "sslmode=verify-full".to_owned(), "", "sslrootcert"),
        ("127.0.0.1", "sslmode=disable".to_owned(), "28000", "pg_hba.conf"),
    ] {
        let complaint = line(&stage, host, &parameters)?.refused(what, 1).await;
        let complaint = complaint.with_context(|| parameters.clone())?;
        ensure!(complaint.fix.contains(fix), "{parameters}: {complaint:?}");
    }
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A server without TLS: refused by the modes that ask for it, and not by the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls() -> Result<()> {
    let server = block_in_place(|| Postgres::start(Version::Newest, &Options::default()))?;
    let mut stage = Stage::new("no_tls", &server, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key", "").await?;
    let with = |mode: &str| {
        let mut line = CommandLine::of(&stage);
        line.postgres_url += &format!("?sslmode={mode}");
        line
    };
    for mode in ["require", "verify-full"] {
        let complaint = with(mode).refused("does not offer TLS", 1).await?;
        ensure!(complaint.fix.contains("ssl = on"), "{complaint:?}");
    }
    for mode in ["prefer", "disable"] {
        with(mode).succeed(&["check"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_md5_password_is_sent_only_when_that_is_allowed() -> Result<()> {
    let (stage, _) = stage("md5").await?;
    let mut line = CommandLine::of(&stage).with_role("old_way", "md5")?;
    let complaint = line.refused("md5", 1).await?;
    ensure!(complaint.fix.contains("allow_md5"), "{complaint:?}");
    line.flags.push("--allow-md5".to_owned());
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A host where nobody listens, then a name that is none, then the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_several_hosts_that_is_there_is_taken() -> Result<()> {
    let (stage, secured) = stage("hosts").await?;
    let (right, closed) = (secured.server.port(), ports::free()?);
    let mut line = CommandLine::of(&stage);
    let hosts = format!("127.0.0.1:{closed},nowhere.invalid:{right},127.0.0.1:{right}");
    line.postgres_url = line.postgres_url.replace(&format!("127.0.0.1:{right}"), &hosts);
    line.postgres_url += "?sslmode=prefer";
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket() -> Result<()> {
    let (stage, secured) = stage("socket").await?;
    let mut line = CommandLine::of(&stage);
    line.postgres_url = secured.server.socket_url(stage.name())?;
    line.succeed(&["run", "--until", "current"]).await?;
    line.postgres_url = line.postgres_url.replace("/socket", "/nosuch");
    let complaint = line.refused(".s.PGSQL", 1).await?;
    ensure!(!complaint.fix.is_empty(), "{complaint:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A new authority, and a certificate by it, while waldex runs. Its connections are cut as by a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_while_it_runs() -> Result<()> {
    let (stage, secured) = stage("cert").await?;
    let next = Authority::new()?;
    let file = secured.files.path().join("bundle.pem");
    std::fs::write(&file, secured.authority.certificate())?;
    let parameters = format!("sslmode=verify-full&sslrootcert={}", file.display());
    let role = format!("r_{}", stage.name());
    stage.execute(&format!("create role {role} superuser login password 'tls'")).await?;
    let line = line(&stage, "localhost", &parameters)?.with_role(&role, "tls")?;
    let mut running = line.waldex(&["run"])?.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    // Both are trusted for a while, as by whoever rotates well.
    let both = secured.authority.certificate() + &next.certificate();
    std::fs::write(&file, both)?;
    for authority in [&next, &secured.authority] {
        let identity = authority.identity(&["localhost"])?;
        secured.server.put_data_file("server.crt", &identity.certificate)?;
        secured.server.put_data_file("server.key", &identity.key)?;
        stage.execute("select pg_reload_conf()").await?;
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename";
        stage.execute(&format!("{cut} = '{role}'")).await?;
        let mark = stage.execute_and_mark("update t set v = v || '!'").await?;
        wait_until(LIMIT, "the row to be confirmed", async || {
            stage.has_confirmed(&mark).await.unwrap_or(false)
        })
        .await?;
    }
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
