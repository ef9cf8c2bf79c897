//! Whether the cluster keeps external versions: all of convergence stands on that. Asked once, before the first
//! load, with a document of no table.

use elasticsearch::http::Method;
use serde_json::json;

use super::client::{CallError, Client};
use super::state::STATE_INDEX;
use crate::findings::Problem;

/// Writes a document, then an older version of it, which must be refused, and removes it.
///
/// # Errors
/// No answer.
pub async fn look(client: &Client) -> Result<Option<Problem>, CallError> {
    let path = format!("/{STATE_INDEX}/_doc/~probe-{:016x}", rand::random::<u64>());
    let write = async |method: Method, version: &'static str| {
        let query = [("version", version), ("version_type", "external_gte")];
        let body = (method == Method::Put).then(|| json!({}));
        client.call(method, &path, &query, body.as_ref()).await
    };
    let written = write(Method::Put, "2").await?;
    if !written.is_success() {
        // Rights, blocks and the like: what follows tells them better.
        return Ok(None);
    }
    let older = write(Method::Put, "1").await?;
    write(Method::Delete, "3").await?;
    // Anything else but a success is told by what follows, or is the refusal that is wanted.
    Ok(older.is_success().then(|| {
        Problem::new(
            "the cluster takes an older version of a document in the place of a newer one",
            "use Elasticsearch 8.19 or newer, or OpenSearch 2.19 or newer, with nothing in between that changes \
             requests",
        )
    }))
}
