//! `waldex dead-letters retry`: writes the row of a letter as it is now, never what the letter may hold.
//!
//! The write carries the letter's own version. Whatever the stream has written since is newer and wins, and
//! what it is still to bring is newer too; what was refused is what the version stood for. A row that is gone
//! becomes a delete of that version. So a `waldex run` beside this one is not disturbed. Where the row has another
//! routing by now, its document is deleted under the letter's first.

use crate::bulk::answer::Action;
use crate::bulk::obstacle::Rejection;
use crate::bulk::open::OpenBatch;
use crate::bulk::write::{Write, write_routing};
use crate::document::Field;
use crate::document::id::{self, read_id};
use crate::document::projection::Projection;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter::{discard, rewrite};
use crate::elasticsearch::gate::Gate;
use crate::elasticsearch::index::{generation_index, write_alias_of};
use crate::elasticsearch::lease::Right;
use crate::elasticsearch::letter::{Letter, document_name, rendered_routing};
use crate::elasticsearch::sender::Sender;
use crate::elasticsearch::state::State;
use crate::elasticsearch::store::StateStore;
use crate::elasticsearch::writer::{Event, WriteError, Writer};
use crate::error::Error;
use crate::pipeline::PipelineError;
use crate::postgres::reselect::reselect;
use crate::postgres::session::{Purpose, Session};
use crate::run::newcomers::Newcomers;
use crate::run::tables::{self, Plan, PlannedTable};
use crate::run::writers::wait_for_commits;
use crate::settings::Settings;

/// What a retry works with.
pub(super) struct Retry {
    client: Client,
    writer: Writer,
    session: Session,
    plan: Plan,
    state: Option<State>,
}

/// What became of a letter.
pub(super) enum Retried {
    /// The document is written; the letter is gone.
    Written,
    /// The row is gone, and the document with it; so is the letter.
    Removed,
    /// A newer write was there; the letter is gone.
    Superseded,
    /// Its index is not written to any more; the letter is gone.
    Obsolete,
    /// The letter stays.
    Refused(Rejection),
    /// The letter stays.
    Impossible(&'static str),
}

impl Retry {
    /// Connects to both sides and plans the tables.
    pub(super) async fn open(settings: &Settings, client: Client) -> Result<Self, Error> {
        let control = Session::connect(&settings.postgres, Purpose::Control).await?;
        let session = Session::connect(&settings.postgres, Purpose::Snapshot).await?;
        let slot = &settings.postgres.slot;
        let store = StateStore::new(client.clone(), slot, "dead-letters".to_owned());
        let state = store.read().await?;
        let newcomers = Newcomers::of(settings, state.as_ref());
        let plan = tables::plan(&control, settings, &newcomers).await?;
        let gate = Gate::new(&settings.elasticsearch, Right::unfenced());
        let retries = settings.elasticsearch.max_retries;
        let writer = Writer::new(Sender::new(client.clone()), gate, retries);
        Ok(Self { client, writer, session, plan, state })
    }

    /// Retries one letter.
    pub(super) async fn one(&self, mut letter: Letter) -> Result<Retried, Error> {
        let Some(table) = self.table_of(&letter) else {
            discard(&self.client, &letter).await?;
            return Ok(Retried::Obsolete);
        };
        let Some(key) = read_id(&letter.document_id, table.published.key.len()) else {
            let why = "its key is too long to be read from its id; `waldex run --reload` writes its table anew";
            return Ok(Retried::Impossible(why));
        };
        let Some(document) = self.document(table, &letter, &key).await? else {
            return Ok(Retried::Impossible("its table has another key now"));
        };
        let mut batch = OpenBatch::new(0);
        let name = document_name(&write_alias_of(&letter.index), &letter.document_id);
        let known = rendered_routing(letter.routing.as_deref());
        let write = match &document {
            Document::Row { text, routing } => {
                Write::index(&name, letter.version, text).routed(routing).leaving(&known)
            }
            Document::Gone => Write::delete(&name, letter.version).routed(&known),
        };
        batch.push(&write);
        let action = write.action;
        let receipt = match self.writer.write(batch.seal(), tell).await {
            Ok(receipt) => receipt,
            Err(WriteError::Rejected { reason, .. }) => {
                letter.refused_again(&reason);
                rewrite(&self.client, &letter).await?;
                return Ok(Retried::Refused(reason));
            }
            Err(error) => return Err(error.into()),
        };
        // A TRUNCATE meanwhile removed what it found, and this was not there.
        if let Document::Row { routing, .. } = &document
            && let Some(Document::Gone) = self.document(table, &letter, &key).await?
        {
            let mut batch = OpenBatch::new(0);
            batch.push(&Write::delete(&name, letter.version).routed(routing));
            drop(self.writer.write(batch.seal(), tell).await?);
        }
        discard(&self.client, &letter).await?;
        Ok(match (receipt.superseded() > 0, action) {
            (true, _) => Retried::Superseded,
            (false, Action::Index) => Retried::Written,
            (false, Action::Delete) => Retried::Removed,
        })
    }

    /// The table whose documents go into the letter's index now.
    fn table_of(&self, letter: &Letter) -> Option<&PlannedTable> {
        let state = self.state.as_ref()?;
        self.plan.tables.iter().find(|table| {
            let entry = state.tables.get(&table.name());
            let index = entry.map(|entry| generation_index(&entry.index, entry.generation));
            index.as_deref() == Some(&letter.index)
        })
    }

    /// The document of the row with this key, as the row is now; none if its id would be another.
    async fn document(
        &self,
        table: &PlannedTable,
        letter: &Letter,
        key: &[String],
    ) -> Result<Option<Document>, Error> {
        let published = &table.published;
        // The stream may have passed a commit that no snapshot shows yet.
        wait_for_commits(&self.session, published.relation.oid).await?;
        let columns: Vec<&str> =
            published.relation.columns.iter().map(|column| column.name.as_str()).collect();
        let key: Vec<&[u8]> = key.iter().map(String::as_bytes).collect();
        let found = reselect(&self.session, published, &columns, &key).await?;
        let Some(row) = found.row else { return Ok(Some(Document::Gone)) };
        let fields: Vec<Field<'_>> =
            row.iter().map(|text| text.as_deref().map_or(Field::Null, Field::Text)).collect();
        let unfit = |source| PipelineError::Projection { table: table.name(), source };
        let projection = Projection::compile(
            &published.relation,
            &table.key(),
            &table.settings,
            &self.plan.types,
        )
        .map_err(unfit)?;
        let (mut id, mut text) = (Vec::new(), Vec::new());
        projection.write_id(&fields, &mut id).map_err(unfit)?;
        projection.write_document(&fields, &mut text).map_err(unfit)?;
        let mut routing = Vec::new();
        if let Some(column) = projection.routing(&fields).map_err(unfit)? {
            let mut value = Vec::new();
            id::write_routing(column, &mut value);
            write_routing(&value, &mut routing);
        }
        let is_it = id == letter.document_id.as_bytes();
        Ok(is_it.then_some(Document::Row { text, routing }))
    }
}

enum Document {
    Row {
        text: Vec<u8>,
        /// As it stands in an action line.
        routing: Vec<u8>,
    },
    Gone,
}

/// Whoever waits at the terminal is told why.
fn tell(event: Event) {
    if let Event::Waiting(waiting) = event {
        tracing::warn!(
            cause = waiting.cause.name(),
            reason = waiting.reason,
            "waiting for the cluster"
        );
    }
}
