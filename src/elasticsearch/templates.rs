//! What index templates would make of an index that is still to be created.
//!
//! Of those whose pattern matches, the one of the highest priority counts. Looking at templates takes rights in
//! the cluster that waldex does not need otherwise: without them nothing is found.

use elasticsearch::http::Method;
use serde_json::Value;

use super::client::{CallError, Client, path_segment};
use super::fitness::{Made, type_of};
use crate::findings::Problem;

/// What would keep `physical` from being made as `body` says, and what the template brings.
pub(super) async fn for_index(
    client: &Client,
    physical: &str,
    body: &Value,
) -> Result<(Vec<Problem>, Option<Made>), CallError> {
    let filter = "index_templates.name,index_templates.index_template.index_patterns,\
                  index_templates.index_template.priority,index_templates.index_template.data_stream";
    let query = [("filter_path", filter)];
    let listed = client.call(Method::Get, "/_index_template", &query, None).await?;
    if !listed.is_success() {
        return Ok((Vec::new(), None));
    }
    let listed = listed.json();
    let Some(template) = matching(&listed, physical) else { return Ok((Vec::new(), None)) };
    let name = template.get("name").and_then(Value::as_str).unwrap_or_default();
    if template.pointer("/index_template/data_stream").is_some() {
        return Ok((vec![data_stream(name, physical)], None));
    }
    let path = format!("/_index_template/_simulate_index/{}", path_segment(physical));
    let simulated = client.call(Method::Post, &path, &[], None).await?;
    if !simulated.is_success() {
        return Ok((Vec::new(), None));
    }
    let simulated = simulated.json();
    let part = |name: &str| simulated.pointer(&format!("/template/{name}"));
    let conflict = conflict(
        part("mappings").and_then(|it| it.get("properties")),
        body.pointer("/mappings/properties"),
    );
    let problem = conflict.map(|(field, theirs, ours)| {
        Problem::new(
            format!(
                "the index template \"{name}\" maps the field \"{field}\" as {theirs}, and for \"{physical}\" \
                 it is {ours}"
            ),
            format!("PUT /_index_template/{name} with patterns that do not match \"{physical}\""),
        )
    });
    Ok((problem.into_iter().collect(), Some(Made::of(part("settings"), part("mappings")))))
}

fn data_stream(template: &str, physical: &str) -> Problem {
    Problem::new(
        format!("the index template \"{template}\" makes a data stream of \"{physical}\""),
        format!(
            "PUT /_index_template/{template} with patterns that do not match \"{physical}\", or another \
             tables[].index"
        ),
    )
}

/// The template that a new index of this name is made with.
fn matching<'a>(listed: &'a Value, physical: &str) -> Option<&'a Value> {
    let templates = listed.get("index_templates").and_then(Value::as_array)?;
    let matches = |template: &&Value| {
        let patterns = template.pointer("/index_template/index_patterns").and_then(Value::as_array);
        let mut patterns = patterns.into_iter().flatten().filter_map(Value::as_str);
        patterns.any(|pattern| fits(pattern, physical))
    };
    let priority = |template: &&Value| {
        template.pointer("/index_template/priority").and_then(Value::as_u64).unwrap_or(0)
    };
    templates.iter().filter(matches).max_by_key(priority)
}

/// `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else { return rest.is_empty() };
    let middle = pattern.matches('*').count().saturating_sub(1);
    for part in parts.take(middle) {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// The first field that is an object for one side and not for the other, with both types: such an index cannot
/// be made everywhere (seen: OpenSearch refuses, Elasticsearch 9 takes ours).
fn conflict(theirs: Option<&Value>, ours: Option<&Value>) -> Option<(String, String, String)> {
    ours.and_then(Value::as_object).into_iter().flatten().find_map(|(name, ours)| {
        let theirs = theirs?.get(name)?;
        let (their_type, our_type) = (type_of(theirs), type_of(ours));
        if (their_type == "object") != (our_type == "object") {
            return Some((name.clone(), their_type.to_owned(), our_type.to_owned()));
        }
        let inside = conflict(theirs.get("properties"), ours.get("properties"));
        inside.map(|(field, theirs, ours)| (format!("{name}.{field}"), theirs, ours))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_matching_template_of_the_highest_priority_counts() {
        let template = |name: &str, pattern: &str, priority: u64| {
            let inner = json!({"index_patterns": ["x", pattern], "priority": priority});
            json!({"name": name, "index_template": inner})
        };
        let listed = json!({"index_templates": [
            template("low", "*", 1), template("other", "users-*x", 9), template("high", "us*-0*1", 5)]});
        let found = |name| matching(&listed, name).and_then(|it| it["name"].as_str());
        assert_eq!(found("users-000001"), Some("high"));
        assert_eq!(found("orders"), Some("low"));
        assert_eq!(matching(&json!({}), "x"), None);
    }

    #[test]
    fn patterns_fit_from_end_to_end() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abd", false),
            ("*", "", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "axc", false),
            ("b*", "ab", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_object_against_a_value_is_a_conflict_wherever_it_is() {
        let ours = json!({"a": {"type": "text"}, "o": {"properties": {"b": {"type": "long"}}}});
        let same = json!({"a": {"type": "keyword"}, "z": {"properties": {}}});
        assert_eq!(conflict(Some(&same), Some(&ours)), None);
        let inner = json!({"o": {"properties": {"b": {"properties": {"c": {"type": "long"}}}}}});
        let (field, theirs, ours) = conflict(Some(&inner), Some(&ours)).unwrap();
        assert_eq!((field.as_str(), theirs.as_str(), ours.as_str()), ("o.b", "object", "long"));
    }
}
