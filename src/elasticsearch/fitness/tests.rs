//! Indices that are fit, and those that are not.

use serde_json::json;

use super::*;

fn judged(template: &Value, body: &Value) -> Findings {
    let mut made = Made::of(template.get("settings"), template.get("mappings"));
    made.lay_over(body);
    made.judge(&wanted(body), "t-000001", false)
}

fn wanted(body: &Value) -> Wanted<'_> {
    Wanted { table: "public.t".to_owned(), index: "t", generation: None, body }
}

fn sound() -> Value {
    json!({
        "settings": {"index.gc_deletes": "15m"},
        "mappings": {"dynamic": false, "properties": {"v": {"type": "text"}}},
    })
}

#[test]
fn an_index_that_nobody_meddles_with_is_sound() {
    assert_eq!(judged(&json!({}), &sound()), Findings::default());
    let stored = json!({"mappings": {"_source": {"enabled": true, "mode": "stored"}},
                        "settings": {"index": {"mode": "standard", "number_of_replicas": "1"}}});
    assert_eq!(judged(&stored, &sound()), Findings::default());
}

#[test]
fn whatever_keeps_documents_from_being_whole_is_named() {
    for (template, why) in [
        (json!({"mappings": {"_source": {"enabled": false}}}), "disabled"),
        (json!({"mappings": {"_source": {"excludes": ["v"]}}}), "excludes"),
        (json!({"mappings": {"_source": {"mode": "synthetic"}}}), "_source.mode is synthetic"),
        (
            json!({"settings": {"index": {"mapping": {"source": {"mode": "synthetic"}}}}}),
            "synthetic",
        ),
        (json!({"settings": {"index.mode": "logsdb"}}), "index.mode is logsdb"),
    ] {
        let found = judged(&template, &sound());
        assert_eq!(found.problems.len(), 1, "{template}");
        assert!(found.problems[0].what.contains(why), "{found:?}");
    }
}

#[test]
fn what_the_request_states_wins_over_the_template() {
    let template = json!({"settings": {"index": {"gc_deletes": "1s", "number_of_replicas": 0}}});
    let mut body = sound();
    assert_eq!(judged(&template, &body).notes.len(), 1, "replicas only");
    body["settings"] = json!({"number_of_replicas": 2, "gc_deletes": "60s"});
    let notes = judged(&template, &body).notes;
    assert!(notes.len() == 1 && notes[0].what.contains("60s"), "{notes:?}");
}

#[test]
fn fields_are_counted_as_the_limit_counts_them() {
    let properties = json!({
        "a": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
        "b": {"properties": {"c": {"type": "long"}, "d": {"properties": {"e": {"type": "long"}}}}},
    });
    assert_eq!(fields_of(Some(&properties)), 6);
    let body = |limit: u64| {
        json!({"settings": {"gc_deletes": "1h", "mapping": {"total_fields": {"limit": limit}}},
               "mappings": {"properties": properties}})
    };
    assert_eq!(judged(&json!({}), &body(6)).problems, []);
    let to_be_made = &judged(&json!({}), &body(5)).problems[0];
    assert!(to_be_made.what.contains("6 fields"), "{to_be_made:?}");
    assert!(to_be_made.fix.starts_with("settings: {index.mapping.total_fields.limit: 6}"));
    // It was made with another limit, and another one for the table would not change that.
    let made = Made::of(Some(&json!({"index.mapping.total_fields.limit": "5"})), None);
    let kept = &made.judge(&wanted(&body(9)), "t-000001", true).problems[0];
    let request = r#"PUT /t-000001/_settings {"index.mapping.total_fields.limit":6}"#;
    assert!(kept.fix.starts_with(request), "{kept:?}");
}

#[test]
fn another_type_is_named_with_its_path() {
    let body = json!({"mappings": {"properties": {
        "a": {"type": "text"}, "o": {"properties": {"b": {"type": "long"}}}, "new": {"type": "long"}}}});
    let wanted =
        Wanted { table: "public.t".to_owned(), index: "t", generation: Some(1), body: &body };
    let found = json!({"a": {"type": "text"}, "o": {"properties": {"b": {"type": "keyword"}}}});
    let note = other_types(&wanted, Some(&found)).unwrap();
    assert!(note.what.ends_with("\"o.b\" as keyword, not long"), "{note:?}");
    assert_eq!(other_types(&wanted, body.pointer("/mappings/properties")), None);
}

#[test]
fn times_are_read_in_every_unit() {
    for (text, expected) in [
        ("60s", Some(60)),
        ("15m", Some(900)),
        ("2h", Some(7200)),
        ("-1", None),
        ("500ms", Some(0)),
    ] {
        assert_eq!(seconds(text), expected, "{text}");
    }
}
