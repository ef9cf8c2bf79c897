//! Whether an index can be written to at all: asked before a refusal is taken for the document's own fault,
//! and where the server says that there is no such index.

use elasticsearch::http::Method;
use serde_json::Value;
use tracing::warn;

use super::client::{CallError, Client, path_segment};
use super::index::physical_of;

/// An id that no document has: after `~` an encoded id goes on with `0`, `1` or `h`.
const PROBE_ID: &str = "~probe";

/// What stands behind a write alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one index it is meant for.
    Sound,
    /// Nothing: the index is gone.
    Gone {
        /// The physical index.
        index: String,
    },
    /// Something an operator has to put right.
    Unsound(String),
}

/// Looks at what stands behind `write_alias`.
///
/// # Errors
/// No answer, or one that says nothing about the alias.
pub async fn look(client: &Client, write_alias: &str) -> Result<Target, CallError> {
    let physical = physical_of(write_alias);
    let path = format!("/_alias/{}", path_segment(write_alias));
    let answer = client.call(Method::Get, &path, &[], None).await?;
    match answer.status {
        200 => Ok(judge(write_alias, physical, &answer.json())),
        404 if answer.is_missing() => without_alias(client, write_alias, physical).await,
        status => Ok(Target::Unsound(format!(
            "the alias \"{write_alias}\" cannot be looked up: status {status}, {}",
            answer.error_kind()
        ))),
    }
}

pub(super) fn judge(write_alias: &str, physical: &str, found: &Value) -> Target {
    let pointer = format!("/aliases/{}/is_write_index", write_alias.replace('~', "~0"));
    let marked = |index: &Value| index.pointer(&pointer).and_then(Value::as_bool);
    let all: Vec<(&String, Option<bool>)> = found
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, index)| (name, marked(index)))
        .collect();
    let written = match all.as_slice() {
        [(only, mark)] if *mark != Some(false) => Some(*only),
        several => several.iter().find(|(_, mark)| *mark == Some(true)).map(|(name, _)| *name),
    };
    match written {
        Some(index) if index == physical => Target::Sound,
        Some(index) => Target::Unsound(format!(
            "the alias \"{write_alias}\" writes to \"{index}\" instead of \"{physical}\""
        )),
        None => Target::Unsound(format!(
            "the alias \"{write_alias}\" has no index that it writes to; it must be of \"{physical}\" alone"
        )),
    }
}

async fn without_alias(
    client: &Client,
    write_alias: &str,
    physical: &str,
) -> Result<Target, CallError> {
    // Not by HEAD, whose answer does not say who gives it.
    let path = format!("/{}", path_segment(physical));
    let answer = client.call(Method::Get, &path, &[("filter_path", "*.aliases")], None).await?;
    remove_stray(client, write_alias).await?;
    Ok(match answer.status {
        200 => Target::Unsound(format!(
            "the alias \"{write_alias}\" is missing: POST /_aliases {{\"actions\":[{{\"add\":{{\"index\":\
             \"{physical}\",\"alias\":\"{write_alias}\"}}}}]}}"
        )),
        404 if answer.is_missing() => Target::Gone { index: physical.to_owned() },
        status => Target::Unsound(format!(
            "the index \"{physical}\" cannot be looked up: status {status}"
        )),
    })
}

/// A delete has made an index of the missing alias's name (a bulk's `require_alias` does not hold for
/// deletes). It holds nothing, and would stand in the alias's way.
async fn remove_stray(client: &Client, write_alias: &str) -> Result<(), CallError> {
    let path = format!("/{}", path_segment(write_alias));
    let counted = client.call(Method::Get, &format!("{path}/_count"), &[], None).await?;
    if counted.json().pointer("/count") == Some(&Value::from(0)) {
        // By its concrete name: an alias of that name is not deleted by this.
        let removed = client.call(Method::Delete, &path, &[], None).await?;
        warn!(
            index = write_alias,
            status = removed.status,
            "removed an empty index in the alias's place"
        );
    }
    Ok(())
}

/// Whether the cluster takes a small write to this index: the delete of a document that is not there. With a
/// routing, which an index may require and none refuses.
pub async fn takes_small_writes(client: &Client, write_alias: &str) -> bool {
    let item = format!(
        "{{\"delete\":{{\"_index\":\"{write_alias}\",\"_id\":\"{PROBE_ID}\",\
         \"routing\":\"{PROBE_ID}\",\"version\":0,\"version_type\":\"external_gte\"}}}}\n"
    );
    let query = [("filter_path", "items.*.status,items.*.error.type")];
    let Ok(answer) = client.bulk(&query, item.into()).await else { return false };
    let item = answer.json();
    let status = item.pointer("/items/0/delete/status").and_then(Value::as_u64);
    answer.is_success() && matches!(status, Some(200..=299 | 404 | 409))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(found: &Value) -> Target {
        judge("t-000001-write", "t-000001", found)
    }

    #[test]
    fn one_index_or_one_marked_as_written() {
        let plain = json!({"aliases": {"t-000001-write": {}}});
        let marked = json!({"aliases": {"t-000001-write": {"is_write_index": true}}});
        let unmarked = json!({"aliases": {"t-000001-write": {"is_write_index": false}}});
        assert_eq!(judged(&json!({"t-000001": plain})), Target::Sound);
        assert_eq!(judged(&json!({"t-000001": marked, "other": plain})), Target::Sound);
        for unsound in [
            json!({"t-000001": unmarked}),
            json!({"t-000001": plain, "other": plain}),
            json!({"t-000001": plain, "other": marked}),
            json!({"other": plain}),
            json!({}),
        ] {
            assert!(matches!(judged(&unsound), Target::Unsound(_)), "{unsound}");
        }
    }
}
