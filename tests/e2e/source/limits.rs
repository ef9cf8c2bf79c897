//! Servers that have no room, or are the wrong one.

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::filled;
use crate::support::refusal::CommandLine;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::Stage;

/// Of walsenders and slots, see `refusals`.
#[tokio::test(flavor = "multi_thread")]
async fn no_free_connection_is_said_so() -> Result<()> {
    let mut stage = Stage::new("full", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let role = format!("{}_role", stage.name());
    let create = format!("create role {role} login replication password 'x' connection limit 1");
    stage.execute(&create).await?;
    stage.execute(&format!("grant select on t to {role}")).await?;
    let line = CommandLine::of(&stage).with_role(&role, "x")?;
    let taken = sql::connect(&line.postgres_url).await?;
    let complaint = line.refused("53300", 1).await?;
    ensure!(complaint.fix.contains("max_connections"), "{complaint:?}");
    drop(taken);
    stage.execute(&format!("drop owned by {role}; drop role {role}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_with_the_way_to_the_primary() -> Result<()> {
    let primary = Postgres::start(Version::Newest, &Options::default())?;
    let mut stage = Stage::new("standby", &primary, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    stage.execute("select pg_create_physical_replication_slot('standby')").await?;
    primary.stop()?;
    let copy = primary.copy_data()?;
    primary.start_again()?;
    let standby = copy.start_standby(&primary, "standby", &["wal_level=logical"])?;
    let mut line = CommandLine::of(&stage);
    line.postgres_url = standby.database_url(stage.name());
    let complaint = line.refused("this Postgres is a standby", 1).await?;
    ensure!(complaint.fix.contains("name the primary in postgres.url"), "{complaint:?}");
    Ok(())
}

/// Prepared transactions would come before they are committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_two_phase_slot_is_refused() -> Result<()> {
    let mut stage = Stage::new("twophase", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "select pg_create_logical_replication_slot('{name}', 'pgoutput', false, true)"
        ))
        .await?;
    let line = CommandLine::of(&stage);
    let complaint = line.refused("sends prepared transactions", 1).await?;
    let (_, drop_it) = complaint.fix.split_once("; or ").unwrap_or_default();
    stage.execute(drop_it).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// What a pooler of before answers, word for word: it does not know what a replication connection asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between_is_named() -> Result<()> {
    let mut stage = Stage::new("pooler", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let answering = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut startup = [0; 8];
            let body = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: replication\0\0";
            let length = u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes();
            // Whoever has gone needs no answer.
            let _ = client.read_exact(&mut startup).await;
            let _ = client.write_all(&[b"E", length.as_slice(), body].concat()).await;
        }
    });
    let mut line = CommandLine::of(&stage);
    let name = stage.name();
    line.postgres_url = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
    let complaint = line.refused("unsupported startup parameter", 1).await;
    answering.abort();
    let complaint = complaint?;
    ensure!(complaint.fix.contains("connect to Postgres itself"), "{complaint:?}");
    Ok(())
}
