//! What the application does to its users, one commit at a time, and how a search sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use elasticsearch::http::Method;
use tokio_postgres::Row;

use crate::people::{calling, person, somewhere};
use crate::scene::{PEOPLE, Scene};

/// A change that no search finds by then is a failure.
const SEARCH_LIMIT: Duration = Duration::from_secs(30);
/// Between two searches for the same change.
const SEARCH_PAUSE: Duration = Duration::from_millis(2);

/// A committed change.
pub(crate) struct Change {
    /// The SQL command.
    pub(crate) verb: &'static str,
    /// What it means.
    pub(crate) what: String,
    /// A query (Lucene's syntax, as `?q=` takes it) whose answer the change alters.
    pub(crate) query: String,
    /// How many documents it must find from now on.
    pub(crate) hits: u64,
    /// When the commit returned.
    committed: Instant,
}

/// Makes one change after the other.
pub(crate) struct Changes {
    turn: usize,
    people: usize,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self { turn: 0, people: PEOPLE }
    }

    /// Commits the next change; none if there is nobody left to change.
    pub(crate) async fn commit_next(&mut self, scene: &Scene) -> Result<Option<Change>> {
        let turn = self.turn;
        self.turn += 1;
        match turn % 6 {
            0 => self.join(scene).await.map(Some),
            1 => self.move_away(scene, turn).await,
            2 => self.take_up(scene, turn).await,
            3 => self.marry(scene, turn).await,
            4 => self.meet(scene, turn).await,
            _ => self.leave(scene, turn).await,
        }
    }

    async fn join(&mut self, scene: &Scene) -> Result<Change> {
        let number = self.people;
        self.people += 1;
        let id = scene.insert(std::iter::once(number)).await?;
        let committed = Instant::now();
        let new = person(number);
        let name = format!("{} {}", new.first_name, new.last_name);
        let query = format!("id:{id} AND full_name:{}", phrase(&name));
        let what = format!("{name}, {}", new.city);
        Ok(Change { verb: "insert", what, query, hits: 1, committed })
    }

    async fn move_away(&self, scene: &Scene, turn: usize) -> Result<Option<Change>> {
        let Some(someone) = self.someone(scene, turn).await? else { return Ok(None) };
        let (city, country) = somewhere(turn);
        let statement =
            "update users set city = $2, country = $3, updated_at = now() where id = $1";
        let rows = scene.sql.execute(statement, &[&someone.id, &city, &country]).await?;
        let committed = Instant::now();
        let what = format!("{} moves to {city}", someone.name);
        let query = format!("id:{} AND city:{}", someone.id, phrase(city));
        Ok(Some(Change { verb: "update", what, query, hits: rows, committed }))
    }

    async fn take_up(&self, scene: &Scene, turn: usize) -> Result<Option<Change>> {
        let Some(someone) = self.someone(scene, turn).await? else { return Ok(None) };
        let calling = calling(turn / 6);
        let bio = format!("Is a {calling} now.");
        let statement = "update users set bio = $2, updated_at = now() where id = $1";
        let rows = scene.sql.execute(statement, &[&someone.id, &bio]).await?;
        let committed = Instant::now();
        let what = format!("{}: new bio", someone.name);
        let query = format!("id:{} AND bio:{}", someone.id, phrase(calling));
        Ok(Some(Change { verb: "update", what, query, hits: rows, committed }))
    }

    /// The computed field follows its columns.
    async fn marry(&self, scene: &Scene, turn: usize) -> Result<Option<Change>> {
        let Some(someone) = self.someone(scene, turn).await? else { return Ok(None) };
        let last_name = person(self.people + turn * 7).last_name;
        let statement = "update users set last_name = $2, updated_at = now() where id = $1";
        let rows = scene.sql.execute(statement, &[&someone.id, &last_name]).await?;
        let committed = Instant::now();
        let what = format!("{}, now {last_name}", someone.name);
        let name = format!("{} {last_name}", someone.first_name);
        let query = format!("id:{} AND full_name:{}", someone.id, phrase(&name));
        Ok(Some(Change { verb: "update", what, query, hits: rows, committed }))
    }

    /// Many rows in one transaction.
    async fn meet(&self, scene: &Scene, turn: usize) -> Result<Option<Change>> {
        let (city, _) = somewhere(turn);
        let number = turn / 6 + 1;
        let invitation = format!(" Invited to reunion {number}.");
        let statement = "update users set updated_at = now(),
                         bio = regexp_replace(bio, ' Invited to reunion \\d+\\.$', '') || $2
                         where city = $1";
        let rows = scene.sql.execute(statement, &[&city, &invitation]).await?;
        let committed = Instant::now();
        let what = format!("{rows} people of {city} at once");
        let query = format!("bio:\"reunion {number}\"");
        Ok(Some(Change { verb: "update", what, query, hits: rows, committed }))
    }

    async fn leave(&self, scene: &Scene, turn: usize) -> Result<Option<Change>> {
        let Some(someone) = self.someone(scene, turn).await? else { return Ok(None) };
        scene.sql.execute("delete from users where id = $1", &[&someone.id]).await?;
        let committed = Instant::now();
        let query = format!("id:{}", someone.id);
        Ok(Some(Change { verb: "delete", what: someone.name, query, hits: 0, committed }))
    }

    /// Somebody of the table: who has the next id from a place that wanders about.
    async fn someone(&self, scene: &Scene, turn: usize) -> Result<Option<Someone>> {
        let from = i64::try_from(1 + turn * 1777 % self.people)?;
        let statement =
            "select id, first_name, last_name from users where id >= $1 order by id limit 1";
        let row = scene.sql.query_opt(statement, &[&from]).await?;
        row.map(|row| Someone::read(&row)).transpose()
    }
}

struct Someone {
    id: i64,
    first_name: String,
    name: String,
}

impl Someone {
    fn read(row: &Row) -> Result<Self> {
        let (first_name, last_name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let name = format!("{first_name} {last_name}");
        Ok(Self { id: row.try_get(0)?, first_name, name })
    }
}

/// Searches until the change is seen; the time from the commit's return to the answer of the first
/// search that sees it. Nothing is refreshed for it: the index does that in its own time.
pub(crate) async fn until_seen(scene: &Scene, change: &Change) -> Result<Duration> {
    let query: String = url::form_urlencoded::byte_serialize(change.query.as_bytes()).collect();
    let path = format!("/{}/_search?size=0&track_total_hits=true&q={query}", scene.index);
    loop {
        let answer = scene.search.expect(Method::Get, &path, None).await?;
        let found = answer["hits"]["total"]["value"].as_u64().context("an answer without hits")?;
        let elapsed = change.committed.elapsed();
        if found == change.hits {
            return Ok(elapsed);
        }
        if elapsed > SEARCH_LIMIT {
            bail!(
                "{SEARCH_LIMIT:?} after its commit, {} finds {found} documents instead of {}",
                change.query,
                change.hits
            );
        }
        tokio::time::sleep(SEARCH_PAUSE).await;
    }
}

fn phrase(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
