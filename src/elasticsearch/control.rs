//! What a refusal of a control call means: whether it is asked again, and what an operator can do.

use super::client::NO_KIND;

/// Whether the same call may be answered otherwise later. An answer that names no error of the cluster's is of
/// something in between, and says nothing for good.
pub(super) fn passes(status: u16, kind: &str) -> bool {
    matches!(status, 408 | 429 | 500..) || kind == NO_KIND
}

/// What the operator can do.
pub(super) fn remedy(status: u16, kind: &str) -> Option<String> {
    let text = match status {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_has_not_said_is_asked_again() {
        for (status, kind) in [(404, NO_KIND), (400, NO_KIND), (429, NO_KIND), (503, NO_KIND)] {
            assert!(passes(status, kind), "{status} {kind}");
            assert!(remedy(status, kind).is_some(), "{status} {kind}");
        }
        assert!(!passes(400, "invalid_alias_name_exception"));
        assert!(!passes(404, "index_not_found_exception"));
    }
}
