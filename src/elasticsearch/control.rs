//! What a refusal of a control call means: whether it is asked again, and what an operator can do.
//!
//! A run waits for what an operator puts right, as its lanes do; a start gives up after its patience.

use super::client::NO_KIND;

/// An index whose snapshot is being made is not deleted meanwhile.
const SNAPSHOT: &str = "snapshot_in_progress_exception";

/// There are as many shards as there may be (`cluster.max_shards_per_node`).
const SHARDS: &str = "validation_exception";

/// Errors that name blocks.
const BLOCKED: [&str; 2] = ["cluster_block_exception", "index_create_block_exception"];

/// Blocks by the number that a reason gives them, as in `FORBIDDEN/5/index read-only (api)`.
const BLOCKS: [(u16, &str); 8] = [
    (5, "index.blocks.read_only"),
    (6, "cluster.blocks.read_only"),
    (7, "index.blocks.read"),
    (8, "index.blocks.write"),
    (9, "index.blocks.metadata"),
    (10, "cluster.blocks.create_index"),
    (12, "index.blocks.read_only_allow_delete"),
    (13, "cluster.blocks.read_only_allow_delete"),
];

/// Whether the same call may be answered otherwise later. An answer that names no error of the cluster's is of
/// something in between, and says nothing for good.
pub(super) fn passes(status: u16, kind: &str) -> bool {
    matches!(status, 401 | 403 | 408 | 429 | 500..) || [NO_KIND, SNAPSHOT, SHARDS].contains(&kind)
}

/// Whether the error's reason names blocks, and nothing else.
pub(super) fn is_block(kind: &str) -> bool {
    BLOCKED.contains(&kind)
}

/// What the operator can do; `reason` is the server's.
pub(super) fn remedy(status: u16, kind: &str, reason: &str) -> Option<String> {
    let text = match status {
        _ if is_block(kind) => return Some(unblock(reason)),
        _ if kind == SNAPSHOT => {
            "it goes on when that snapshot has ended: GET /_snapshot/_status shows it, and deleting it ends it"
        }
        _ if kind == SHARDS && reason.contains("shards") => {
            "delete indices that nobody needs, or raise cluster.max_shards_per_node with PUT /_cluster/settings"
        }
        401 | 403 => {
            "check the user name and password or API key under elasticsearch, and its rights on the indices"
        }
        _ if kind == NO_KIND => {
            "something answers in the cluster's place: check elasticsearch.addresses, and what stands in between"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The requests that lift the blocks, one for each: OpenSearch 2.19 lifts `read_only` only alone.
fn unblock(reason: &str) -> String {
    let mut requests: Vec<String> = Vec::new();
    for (place, part) in reason.split("index [").enumerate() {
        let (index, blocks) =
            if place == 0 { ("", part) } else { part.split_once(']').unwrap_or_default() };
        let stands = |(number, _): &&(u16, &str)| blocks.contains(&format!("/{number}/"));
        for (_, setting) in BLOCKS.iter().filter(stands) {
            let request = if setting.starts_with("cluster.") {
                format!("PUT /_cluster/settings {{\"persistent\":{{\"{setting}\":null}}}}")
            } else {
                format!("PUT /{index}/_settings {{\"{setting}\":null}}")
            };
            if !requests.contains(&request) {
                requests.push(request);
            }
        }
    }
    match requests.is_empty() {
        true => "lift the block that the cluster names".to_owned(),
        false => format!("free disk if it is short, then {}", requests.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_puts_right_is_waited_for() {
        for (status, kind) in [
            (401, "security_exception"),
            (403, "security_exception"),
            (403, "cluster_block_exception"),
            (400, "snapshot_in_progress_exception"),
            (404, NO_KIND),
            (400, NO_KIND),
            (429, "cluster_block_exception"),
            (503, NO_KIND),
        ] {
            assert!(passes(status, kind), "{status} {kind}");
            assert!(remedy(status, kind, "").is_some(), "{status} {kind}");
        }
        assert!(!passes(400, "invalid_alias_name_exception"));
        assert!(!passes(404, "index_not_found_exception"));
    }

    #[test]
    fn a_block_is_lifted_by_the_request_that_is_told() {
        let said = |reason| remedy(403, "cluster_block_exception", reason).unwrap();
        // As Elasticsearch 9.5 and OpenSearch 2.19 say it.
        let both = "index [t-000001] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, \
                    index has read-only-allow-delete block, FORBIDDEN/5/index read-only (api)];";
        assert_eq!(
            said(both),
            "free disk if it is short, then PUT /t-000001/_settings {\"index.blocks.read_only\":null} and \
             PUT /t-000001/_settings {\"index.blocks.read_only_allow_delete\":null}"
        );
        let cluster = "index [t-000005] blocked by: [FORBIDDEN/6/cluster read-only (api)];";
        assert!(said(cluster).ends_with(
            "PUT /_cluster/settings {\"persistent\":{\"cluster.blocks.read_only\":null}}"
        ));
        let creation = "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];";
        let said = remedy(403, "index_create_block_exception", creation).unwrap();
        assert!(said.contains("cluster.blocks.create_index"), "{said}");
        let password = remedy(403, "security_exception", "").unwrap();
        assert!(password.contains("password or API key"), "{password}");
    }
}
