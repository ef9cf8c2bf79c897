//! The source: a private PostgreSQL with the 12-column users table of a usual application.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::support::servers::postgres::{Database, Options, Postgres, Version};
use crate::support::sql;

/// Publication of the table.
pub(crate) const PUBLICATION: &str = "bench";

const SCHEMA: &str = "
    create table users (
        id bigint primary key, email text not null, password_hash text not null,
        first_name text not null, last_name text not null, bio text, city text, country text,
        profile_image_url text, is_active boolean not null,
        created_at timestamptz not null, updated_at timestamptz not null);
    create publication bench for table users;
    create procedure fill(first bigint, last bigint, batch bigint) language plpgsql as $$
    begin
        while first <= last loop
            insert into users select
                n, 'user' || n || '@example.com',
                '$2b$12$' || md5(n::text) || left(md5((-n)::text), 21),
                (array['Ada','Grace','Edsger','Barbara','Donald','Frances','Ken','Radia'])[n % 8 + 1],
                (array['Lovelace','Hopper','Dijkstra','Liskov','Knuth','Allen'])[n % 6 + 1],
                'Works on \"search\" and databases since ' || n % 40 + 1980 ||
                ', writes about it now and then, and lives with a cat called ' || md5(n::text),
                (array['London','New York','Zürich','São Paulo','Tokyo'])[n % 5 + 1],
                (array['GB','US','CH','BR','JP'])[n % 5 + 1],
                'https://images.example.com/avatars/' || md5(n::text) || '.jpg', n % 7 > 0,
                '2020-01-01'::timestamptz + n * interval '61.003 seconds',
                '2024-01-01'::timestamptz + n * interval '7.000511 seconds'
                from generate_series(first, least(first + batch - 1, last)) n;
            commit;
            first := first + batch;
        end loop;
    end $$;";

/// The server, its database and a session in it.
pub(crate) struct Source {
    server: Postgres,
    pub(crate) database: Database,
    pub(crate) sql: Client,
}

impl Source {
    /// Starts the server and creates the empty table.
    pub(crate) async fn start() -> Result<Self> {
        // No checkpoint and no vacuum may fall into one measurement and not into the other.
        let conf = ["max_wal_size=16GB", "checkpoint_timeout=1h", "autovacuum=off"];
        let conf = conf.map(str::to_owned).into();
        let server = Postgres::start(Version::Newest, &Options { fsync: false, conf })?;
        let database = server.create_database("bench").await?;
        let sql = sql::connect(&database.url).await?;
        sql::batch(&sql, SCHEMA).await?;
        Ok(Self { server, database, sql })
    }

    /// URL of the database over its Unix socket.
    pub(crate) fn socket_url(&self) -> Result<String> {
        self.server.socket_url(&self.database.name)
    }

    /// Inserts the rows `first` to `last`, `batch` a transaction; how long that took.
    pub(crate) async fn fill(&self, first: u64, last: u64, batch: u64) -> Result<Duration> {
        let began = Instant::now();
        sql::batch(&self.sql, &format!("call fill({first}, {last}, {batch})")).await?;
        Ok(began.elapsed())
    }

    /// Makes a slot for the baseline.
    pub(crate) async fn create_slot(&self, slot: &str) -> Result<()> {
        let create = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        sql::batch(&self.sql, &create).await
    }

    /// Drops a slot, and with it the hold on WAL.
    pub(crate) async fn drop_slot(&self, slot: &str) -> Result<()> {
        sql::batch(&self.sql, &format!("select pg_drop_replication_slot('{slot}')")).await
    }

    /// Where WAL ends now.
    pub(crate) async fn flush_lsn(&self) -> Result<String> {
        let lsn = sql::value(&self.sql, "select pg_current_wal_flush_lsn()").await?;
        lsn.context("no flush LSN")
    }
}
