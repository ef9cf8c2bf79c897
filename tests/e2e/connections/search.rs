//! To the search cluster, through TLS whose certificate is for `localhost` and can be replaced.

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::proxy::tls::TlsFront;
use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

struct Scene {
    stage: Stage<'static>,
    authority: Authority,
    front: TlsFront,
    files: TempDir,
}

impl Scene {
    async fn new(label: &str) -> Result<Self> {
        let node = shared_elasticsearch()?;
        let mut stage = Stage::new(label, shared_postgres()?, node).await?;
        stage.table("t", "id int primary key, v text", "").await?;
        stage.execute("insert into t values (1, 'one')").await?;
        let authority = Authority::new()?;
        let port = node.url.port_or_known_default().context("no port")?;
        let front = TlsFront::before(port, &authority.identity(&["localhost"])?).await?;
        Ok(Self { stage, authority, front, files: tempfile::tempdir()? })
    }

    /// With a file of this authority, if one is given.
    fn line(&self, host: &str, authority: Option<&str>) -> Result<CommandLine> {
        let mut line = CommandLine::of(&self.stage);
        let mut url = url::Url::parse(&line.elasticsearch_url)?;
        url.set_host(Some(host))?;
        let set = url.set_port(Some(self.front.port()));
        set.ok().context("a URL without a host")?;
        line.elasticsearch_url = url.to_string().replace("http://", "https://");
        if let Some(pem) = authority {
            let path = self.files.path().join("ca.pem");
            std::fs::write(&path, pem)?;
            line.flags.extend(["--ca-file".to_owned(), path.display().to_string()]);
        }
        Ok(line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_and_so_is_its_name() -> Result<()> {
    let scene = Scene::new("es_tls").await?;
    let right = scene.authority.certificate();
    let line = scene.line("localhost", Some(&right))?;
    line.succeed(&["run", "--until", "current"]).await?;
    scene.stage.assert_equal("t", "id", &["id", "v"]).await?;
    let other = Authority::new()?.certificate();
    for (host, authority) in
        [("127.0.0.1", Some(right.as_str())), ("localhost", Some(&other)), ("localhost", None)]
    {
        let line = scene.line(host, authority)?;
        let complaint = line.refused("certificate", 1).await.with_context(|| host.to_owned())?;
        ensure!(complaint.what.contains("cannot connect"), "{complaint:?}");
    }
    let line = scene.line("localhost", Some("no certificate"))?;
    let told = line.finish(&["check"]).await?.expect_code(64)?.stderr.join("\n");
    ensure!(told.contains("PEM"), "{told}");
    Ok(())
}

/// The cluster shows a certificate of another authority: nothing is sent to it until the file names that, too.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_replaced_while_it_runs() -> Result<()> {
    let scene = Scene::new("es_rotate").await?;
    let line = scene.line("localhost", Some(&scene.authority.certificate()))?;
    let flags = ["run", "--circuit-breaker-open-for", "200ms"];
    let mut running = line.waldex(&flags)?.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let stage = &scene.stage;

    // The same authority: nobody notices.
    scene.front.become_another(&scene.authority.identity(&["localhost"])?)?;
    let mark = stage.execute_and_mark("insert into t values (2, 'two')").await?;
    let confirmed = async |mark: &str| {
        wait_until(LIMIT, "the rows to be confirmed", async || {
            stage.has_confirmed(mark).await.unwrap_or(false)
        })
        .await
    };
    confirmed(&mark).await?;

    let next = Authority::new()?;
    scene.front.become_another(&next.identity(&["localhost"])?)?;
    let mark = stage.execute_and_mark("update t set v = v || '!'").await?;
    let told = running.wait_for_line(LIMIT, "es_unreachable").await?;
    ensure!(told.contains("certificate"), "{told}");
    ensure!(!stage.has_confirmed(&mark).await?, "confirmed though nobody is trusted");
    std::fs::write(scene.files.path().join("ca.pem"), next.certificate())?;
    confirmed(&mark).await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
