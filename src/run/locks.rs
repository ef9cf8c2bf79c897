//! Reading a table waits for whoever rewrites it: `VACUUM FULL`, an `ALTER TABLE` that writes every row anew. That
//! may take hours, ends by itself, and would begin again with each restart; so it is told, and is no standstill.

use std::time::Duration;

use tracing::{debug, warn};

use super::vitals::OldTransaction;
use crate::postgres::catalog;
use crate::postgres::session::Session;

/// A statement that takes so long is looked after; and then this often.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The transactions that the process `pid` waits for, asking over another connection; none if that cannot be seen.
pub(crate) async fn blockers(control: &Session, pid: i32) -> Vec<OldTransaction> {
    catalog::blockers(control, pid).await.unwrap_or_else(|error| {
        debug!(%error, pid, "whom a process waits for cannot be seen");
        Vec::new()
    })
}

/// Names those for whose locks the process `reader` waits; whether there are any.
pub(crate) async fn names_holders(control: &Session, reader: i32) -> bool {
    let holders = blockers(control, reader).await;
    for holder in &holders {
        warn!(
            transaction = holder.who,
            transaction_seconds = holder.seconds,
            "reading a table waits for a lock: it goes on once that transaction has ended"
        );
    }
    !holders.is_empty()
}
