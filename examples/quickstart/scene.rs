//! Where it happens: two servers, a database with a users table, and what waldex is told about it.
//!
//! On servers of our own the names are plain; they vanish with the servers. On servers that the
//! environment points at, everything has a name of its own and is removed at the end.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use elasticsearch::http::Method;
use serde_json::Value;
use tokio_postgres::Client;
use url::Url;
use waldex::cli::Cli;
use waldex::elasticsearch::store::StateStore;
use waldex::postgres::setup::setup_statements;
use waldex::settings::Settings;

use crate::people::person;
use crate::support::compare::{Expectation, differences};
use crate::support::search::Search;
use crate::support::servers::Servers;
use crate::support::servers::backend::Backend;
use crate::support::servers::postgres::{Database, PASSWORD};
use crate::support::sql;
use crate::support::wait::wait_until;

/// People in the table before waldex starts.
pub(crate) const PEOPLE: usize = 5000;
/// How long waldex may take to confirm what was committed.
const CONFIRM_LIMIT: Duration = Duration::from_secs(60);

const TABLE: &str = include_str!("users.sql");
const CONFIGURATION: &str = include_str!("waldex.yaml");

const INSERT: &str = "
    insert into users (email, password_hash, first_name, last_name, bio, city, country,
                       profile_image_url, is_active, created_at, updated_at)
    select email, password_hash, first_name, last_name, bio, city, country,
           profile_image_url, is_active, to_timestamp(created), to_timestamp(updated)
    from jsonb_to_recordset($1::text::jsonb) as person (
        email text, password_hash text, first_name text, last_name text, bio text, city text,
        country text, profile_image_url text, is_active boolean, created bigint, updated bigint)
    returning id";

/// What the index must hold, written down without waldex.
const EXPECTED: &str = "
    select id::text, json_build_object(
        'id', id, 'email', email, 'first_name', first_name, 'last_name', last_name, 'bio', bio,
        'city', city, 'country', country, 'is_active', is_active,
        'created_at', replace((created_at at time zone 'UTC')::text, ' ', 'T') || 'Z',
        'full_name', first_name || ' ' || last_name)::text
    from users";

/// Servers, table and names.
pub(crate) struct Scene {
    servers: Servers,
    database: Database,
    /// Of slot, publication and role.
    name: String,
    /// What readers search.
    pub(crate) index: String,
    /// A connection of the application, which knows nothing of waldex.
    pub(crate) sql: Client,
    pub(crate) search: Search,
    /// What waldex is run with.
    pub(crate) settings: Settings,
}

impl Scene {
    /// The table with its first rows, a role, a publication and a slot; no index yet.
    pub(crate) async fn set(servers: Servers) -> Result<Self> {
        let is_ours = is_ours(&servers);
        let database = if is_ours {
            let client = sql::connect(servers.postgres.url()).await?;
            sql::batch(&client, "create database app").await?;
            Database { name: "app".to_owned(), url: servers.postgres.database_url("app") }
        } else {
            servers.postgres.create_database("quickstart").await?
        };
        let (name, index) = if is_ours {
            ("waldex".to_owned(), "users".to_owned())
        } else {
            (database.name.clone(), format!("{}-users", database.name.replace('_', "-")))
        };
        let sql = sql::connect(&database.url).await?;
        let search = Search::of(&servers.elasticsearch)?;
        let settings = settings(&servers, &database, &name, &index)?;
        sql::batch(&sql, TABLE).await?;
        let scene = Self { servers, database, name, index, sql, search, settings };
        scene.insert(0..PEOPLE).await?;
        scene.set_up().await?;
        Ok(scene)
    }

    /// Inserts these people in one transaction; the id of the last one.
    pub(crate) async fn insert(&self, numbers: impl Iterator<Item = usize>) -> Result<i64> {
        let rows: Vec<Value> = numbers.map(|number| person(number).row()).collect();
        let inserted = self.sql.query(INSERT, &[&Value::from(rows).to_string()]).await;
        let inserted = inserted.context("cannot insert people")?;
        Ok(inserted.last().context("nobody was inserted")?.try_get(0)?)
    }

    /// What `waldex setup --apply` does, and a password for the role.
    async fn set_up(&self) -> Result<()> {
        for statement in setup_statements(&self.settings.postgres, &self.settings.tables) {
            sql::batch(&self.sql, &statement).await?;
        }
        sql::batch(&self.sql, &format!("alter role {} password '{PASSWORD}'", self.name)).await
    }

    /// Versions of both servers, for people.
    pub(crate) async fn versions(&self) -> Result<String> {
        let postgres = sql::value(&self.sql, "show server_version").await?.unwrap_or_default();
        let postgres = postgres.split(' ').next().unwrap_or_default();
        let path = "/_nodes/_local?filter_path=nodes.*.version";
        // A given cluster may refuse to tell.
        let (_, nodes) = self.search.request(Method::Get, path, None).await?;
        let node = nodes["nodes"].as_object().and_then(|nodes| nodes.values().next());
        let version = node.and_then(|node| node["version"].as_str()).unwrap_or("(unknown)");
        Ok(format!("PostgreSQL {postgres} and Elasticsearch {version}"))
    }

    /// Command lines to look in from another terminal. Passwords are printed only where they guard
    /// nothing.
    pub(crate) fn ways_in(&self) -> Result<[String; 2]> {
        let mut url = Url::parse(&self.database.url)?;
        if matches!(self.servers.postgres.backend(), Backend::Given) {
            // Fails only for a URL without a host, which has no password either.
            let _ = url.set_password(None);
        }
        let node = &self.servers.elasticsearch;
        let user = match (&node.credentials, node.backend()) {
            (None, _) => String::new(),
            (Some((user, _)), Backend::Given) => format!("-u {user} "),
            (Some((user, password)), Backend::Local(_) | Backend::Docker(_)) => {
                format!("-u {user}:{password} ")
            }
        };
        let search = format!("{}{}/_search?pretty&q=city:Lisbon", node.url, self.index);
        Ok([format!("psql '{url}'"), format!("curl {user}'{search}'")])
    }

    /// Rows in the table.
    pub(crate) async fn rows(&self) -> Result<u64> {
        let count = sql::value(&self.sql, "select count(*) from users").await?;
        count.context("no count")?.parse().context("no number")
    }

    /// Waits until waldex has told Postgres that all that was committed so far is in the index.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        let flushed = sql::value(&self.sql, "select pg_current_wal_flush_lsn()").await?;
        let flushed = flushed.context("no LSN")?;
        let is_confirmed = format!(
            "select confirmed_flush_lsn >= '{flushed}' from pg_replication_slots \
             where slot_name = '{}'",
            self.name
        );
        wait_until(CONFIRM_LIMIT, "the last commit to be confirmed", async || {
            let answer = sql::value(&self.sql, &is_confirmed).await;
            matches!(answer, Ok(Some(answer)) if answer == "t")
        })
        .await
    }

    /// One line for each document that is missing, too many or not as its row says.
    pub(crate) async fn differences(&self) -> Result<Vec<String>> {
        let expectation = Expectation::query(EXPECTED.to_owned());
        let found = differences(&self.sql, &expectation, &self.search, &self.index).await?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// Takes everything away again; a sentence that says so.
    pub(crate) async fn strike(self) -> Result<&'static str> {
        let Self { servers, database, name, index, sql, search, settings } = self;
        drop(sql);
        if let Backend::Given = servers.elasticsearch.backend() {
            // A load that was repeated has left more than one.
            let path = format!("/_resolve/index/{index}-*?expand_wildcards=all");
            let found = search.expect(Method::Get, &path, None).await?;
            for generation in found["indices"].as_array().into_iter().flatten() {
                search.delete_index(generation["name"].as_str().unwrap_or_default()).await?;
            }
            let client = waldex::elasticsearch::client::Client::new(&settings.elasticsearch)?;
            StateStore::new(client, &name, "quickstart".to_owned()).remove().await?;
        }
        if let Backend::Given = servers.postgres.backend() {
            servers.postgres.drop_database(&database).await?;
            let client = sql::connect(servers.postgres.url()).await?;
            sql::batch(&client, &format!("drop role if exists {name}")).await?;
        }
        let is_ours = is_ours(&servers);
        drop(servers);
        Ok(if is_ours {
            "Servers and data are gone."
        } else {
            "The data are gone, and so are servers that were not given."
        })
    }
}

/// Whether both servers vanish with us.
fn is_ours(servers: &Servers) -> bool {
    let backends = [servers.postgres.backend(), servers.elasticsearch.backend()];
    !backends.into_iter().any(|backend| matches!(backend, Backend::Given))
}

/// `waldex.yaml` with its variables, read as the command reads it.
fn settings(servers: &Servers, database: &Database, name: &str, index: &str) -> Result<Settings> {
    let mut url = Url::parse(&database.url)?;
    let is_set = url.set_username(name).and_then(|()| url.set_password(Some(PASSWORD)));
    is_set.map_err(|()| anyhow!("the database's URL takes no user"))?;
    let env = |variable: &str| match variable {
        "POSTGRES_URL" => Some(url.to_string()),
        "ELASTICSEARCH_URL" => Some(servers.elasticsearch.url_with_credentials()),
        "SLOT" => Some(name.to_owned()),
        "INDEX" => Some(index.to_owned()),
        _ => None,
    };
    let command_line = Cli::try_parse_from(["waldex", "run", "--config", "waldex.yaml"])?;
    Ok(waldex::config::load(&command_line.common, &env, &|_| Ok(CONFIGURATION.to_owned()))?)
}
