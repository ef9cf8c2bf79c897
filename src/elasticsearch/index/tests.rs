//! Names of generations, and what counts as an index or alias that was made, moved or removed, whoever answers.

use super::*;
use crate::elasticsearch::tests::{Fake, NO_ROUTE, SORRY_PAGE};

#[test]
fn names_lead_back() {
    let alias = write_alias("user-s", 12);
    assert_eq!(physical_of(&alias), "user-s-000012");
    assert_eq!(readers_name_of(physical_of(&alias)), "user-s");
}

#[test]
fn generations_are_told_from_other_indices() {
    assert_eq!(generation_of("users", &generation_index("users", 7)), Some(7));
    assert_eq!(generation_of("users", "users-1000000"), Some(1_000_000));
    for other in ["users", "users-1", "users-00001", "users-00000x", "users-x-000001", "user"] {
        assert_eq!(generation_of("users", other), None, "{other}");
    }
}

const DONE: (u16, &str) = (200, r#"{"acknowledged":true}"#);
const NO_INDEX: (u16, &str) = (
    404,
    r#"{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}"#,
);
const EXISTS: (u16, &str) =
    (400, r#"{"error":{"type":"resource_already_exists_exception"},"status":400}"#);
/// Of something in between, and of a cluster that has not done it yet.
const NOT_DONE: [(u16, &str); 4] =
    [SORRY_PAGE, (200, "{}"), NO_ROUTE, (200, r#"{"acknowledged":false}"#)];

#[tokio::test]
async fn a_change_counts_only_if_the_cluster_acknowledges_it() {
    for page in NOT_DONE {
        let fake = Fake::answering(&[page]).await;
        let client = &fake.client;
        for changed in [
            create(client, "t", 1, &json!({}), false).await,
            give_to_readers(client, "t", 1, &[]).await,
            extend_mappings(client, "t", 1, Map::new()).await,
            delete(client, "t", 1).await,
        ] {
            let error = changed.unwrap_err();
            assert!(error.is_transient(), "{page:?}: {error}");
        }
    }
    let client = &Fake::answering(&[DONE]).await.client;
    create(client, "t", 1, &json!({}), false).await.unwrap();
    give_to_readers(client, "t", 1, &[]).await.unwrap();
    delete(client, "t", 1).await.unwrap();
}

#[tokio::test]
async fn an_index_is_not_there_only_if_the_cluster_says_so() {
    for page in [SORRY_PAGE, NO_ROUTE, (404, "{}")] {
        let fake = Fake::answering(&[page]).await;
        let client = &fake.client;
        for error in [
            reader_name(client, "t").await.unwrap_err(),
            generations(client, "t").await.unwrap_err(),
            aliases_of(client, "t-000001").await.unwrap_err(),
            document_count(client, "t", 1).await.unwrap_err(),
        ] {
            assert!(error.is_transient(), "{page:?}: {error}");
        }
    }
    let client = &Fake::answering(&[NO_INDEX]).await.client;
    assert_eq!(reader_name(client, "t").await.unwrap(), ReaderName::Free);
    assert!(generations(client, "t").await.unwrap().is_empty());
    delete(client, "t", 1).await.unwrap();
}

#[tokio::test]
async fn readers_get_an_index_only_once_it_is_known_to_be_there() {
    let fake = Fake::answering(&[SORRY_PAGE]).await;
    create(&fake.client, "t", 1, &json!({}), true).await.unwrap_err();
    assert_eq!(fake.asked(), ["PUT /t-000001"]);
    assert!(!fake.bodies()[0].contains(r#""t":"#), "{:?}", fake.bodies());

    let fake = Fake::answering(&[DONE]).await;
    create(&fake.client, "t", 1, &json!({}), true).await.unwrap();
    assert_eq!(fake.asked(), ["PUT /t-000001", "POST /_aliases"]);
}

#[tokio::test]
async fn an_index_that_is_there_gets_its_readers_if_it_has_none() {
    let theirs = (200, r#"{"t-000001":{"aliases":{"t-000001-write":{},"t":{}}}}"#);
    let nobodys = (200, r#"{"t-000001":{"aliases":{"t-000001-write":{}}}}"#);
    for (aliases, last) in [(theirs, "GET /t-000001/_alias"), (nobodys, "POST /_aliases")] {
        let fake = Fake::answering(&[EXISTS, aliases, DONE]).await;
        create(&fake.client, "t", 1, &json!({}), true).await.unwrap();
        assert_eq!(fake.asked().last().unwrap(), last);
    }
    let fake = Fake::answering(&[EXISTS]).await;
    create(&fake.client, "t", 1, &json!({}), false).await.unwrap();
    assert_eq!(fake.asked(), ["PUT /t-000001"]);
}

/// Else each attempt would delete what the one before has made.
#[tokio::test]
async fn an_index_that_was_made_slowly_is_made() {
    let slow = (200, r#"{"acknowledged":false,"shards_acknowledged":false}"#);
    let made = (200, r#"{"t-000001":{"aliases":{"t-000001-write":{}}}}"#);
    let fake = Fake::answering(&[slow, made]).await;
    create(&fake.client, "t", 1, &json!({}), false).await.unwrap();
    let fake = Fake::answering(&[slow, NO_INDEX]).await;
    create(&fake.client, "t", 1, &json!({}), false).await.unwrap_err();
}
