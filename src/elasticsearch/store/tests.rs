//! What counts as a state that was read, written or removed, whoever answers.

use serde_json::json;

use super::*;
use crate::elasticsearch::tests::{Fake, NO_ROUTE, SORRY_PAGE};

const WRITTEN: (u16, &str) = (201, r#"{"result":"created","_seq_no":7,"_primary_term":1}"#);
const NONE: (u16, &str) = (404, r#"{"_index":"waldex-state","_id":"s","found":false}"#);
const NO_INDEX: (u16, &str) = (
    404,
    r#"{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}"#,
);

fn state() -> State {
    State::new("1".to_owned(), 1, "d".to_owned(), "s", "p", crate::lsn::Lsn::ZERO)
}

fn store(fake: &Fake) -> StateStore {
    StateStore::new(fake.client.clone(), "s", "ours".to_owned())
}

/// What a read of this source answers.
fn document(source: &Value) -> String {
    json!({"found": true, "_seq_no": 7, "_primary_term": 1, "_source": source}).to_string()
}

#[tokio::test]
async fn a_write_counts_only_if_the_cluster_says_its_version() {
    for page in [SORRY_PAGE, (200, "{}"), (200, ""), NO_ROUTE, (400, "Bad Request")] {
        let fake = Fake::answering(&[page, WRITTEN]).await;
        let store = store(&fake);
        let error = store.write(&state()).await.unwrap_err();
        assert!(error.is_transient(), "{page:?}: {error}");
        assert!(!store.right().holds(), "{page:?}: the lease was had");
        store.write(&state()).await.unwrap();
        assert!(store.right().holds());
        let conditional = fake.asked().iter().all(|line| line.ends_with("?op_type=create"));
        assert!(conditional, "{page:?}: {:?}", fake.asked());
    }
}

/// The write was carried out, and its answer was not the cluster's.
#[tokio::test]
async fn a_write_of_ours_that_was_answered_by_another_is_written_over() {
    let ours = document(&json!(State { instance: "ours".to_owned(), ..state() }));
    let conflict = (409, r#"{"error":{"type":"version_conflict_engine_exception"}}"#);
    let fake = Fake::answering(&[SORRY_PAGE, conflict, (200, &ours), WRITTEN]).await;
    let store = store(&fake);
    store.write(&state()).await.unwrap_err();
    store.write(&state()).await.unwrap();
    assert!(fake.asked().last().unwrap().contains("if_seq_no=7"), "{:?}", fake.asked());
}

#[tokio::test]
async fn there_is_no_state_only_if_the_cluster_says_so() {
    for page in [SORRY_PAGE, (200, "{}"), NO_ROUTE, (404, "{}"), (404, r#"{"message":"no Route"}"#)]
    {
        let fake = Fake::answering(&[page]).await;
        let error = store(&fake).find().await.unwrap_err();
        assert!(error.is_transient(), "{page:?}: {error}");
        assert!(error.remedy().is_some_and(|it| it.contains("elasticsearch.addresses")));
    }
    for missing in [NONE, NO_INDEX] {
        assert!(store(&Fake::answering(&[missing]).await).find().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_index_of_the_state_is_made_only_if_the_cluster_says_so() {
    for page in [SORRY_PAGE, (200, "{}"), NO_ROUTE] {
        let error = store(&Fake::answering(&[page]).await).prepare().await.unwrap_err();
        assert!(error.is_transient(), "{page:?}: {error}");
    }
    let exists = (400, r#"{"error":{"type":"resource_already_exists_exception"},"status":400}"#);
    for made in [(200, r#"{"acknowledged":true}"#), exists] {
        store(&Fake::answering(&[made]).await).prepare().await.unwrap();
    }
}

#[tokio::test]
async fn a_blocked_state_is_waited_for_and_the_block_is_named() {
    let blocked = r#"{"error":{"type":"cluster_block_exception","reason":
        "index [waldex-state] blocked by: [FORBIDDEN/8/index write (api)];"},"status":403}"#;
    let error = store(&Fake::answering(&[(403, blocked)]).await).write(&state()).await.unwrap_err();
    let remedy = error.remedy().unwrap();
    assert!(error.is_transient() && !remedy.contains("password"), "{remedy}");
    assert!(
        remedy.ends_with(r#"PUT /waldex-state/_settings {"index.blocks.write":null}"#),
        "{remedy}"
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_read_can_be_removed() {
    let newer = document(&json!({"format": 99}));
    let deleted = (200, r#"{"result":"deleted","_seq_no":8,"_primary_term":1}"#);
    let fake = Fake::answering(&[(200, &newer), (200, &newer), deleted]).await;
    let store = store(&fake);
    assert!(matches!(store.find().await, Err(StateError::Unreadable { .. })));
    store.remove().await.unwrap();
    let last = fake.asked().pop().unwrap();
    assert_eq!(last, "DELETE /waldex-state/_doc/s?if_seq_no=7&if_primary_term=1");
}

#[tokio::test]
async fn a_state_that_another_wrote_meanwhile_is_not_removed() {
    let conflict = (409, r#"{"error":{"type":"version_conflict_engine_exception"}}"#);
    let newer = document(&json!({"format": 99}));
    let fake = Fake::answering(&[(200, &newer), conflict]).await;
    assert!(matches!(store(&fake).remove().await, Err(StateError::Taken { .. })));
    let fake = Fake::answering(&[(200, &newer), SORRY_PAGE]).await;
    assert!(store(&fake).remove().await.is_err_and(|error| error.is_transient()));
}

/// Seen where another waldex had only just made the index.
#[tokio::test]
async fn an_index_without_a_shard_yet_is_asked_again() {
    let young = (503, r#"{"error":{"type":"no_shard_available_action_exception"},"status":503}"#);
    let fake = Fake::answering(&[young, young, NONE]).await;
    assert!(store(&fake).find().await.unwrap().is_none());
    let fake = Fake::answering(&[young]).await;
    assert!(store(&fake).find().await.unwrap_err().is_transient());
    assert!(fake.asked().len() > 5, "{:?}", fake.asked());
}
