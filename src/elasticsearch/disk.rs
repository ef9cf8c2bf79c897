//! Whether nodes are short of disk: beyond a watermark the cluster moves shards away, and at last takes no more
//! writes. Looking takes the cluster right `monitor`; without it nothing is found.

use elasticsearch::http::Method;
use serde_json::Value;

use super::client::{CallError, Client};
use crate::findings::{Findings, Note};

/// From the harmless to the end.
const WATERMARKS: [(&str, &str); 3] = [
    ("low", "no further shards are placed there"),
    ("high", "shards are moved away"),
    ("flood_stage", "its indices take no writes"),
];

/// Names the nodes beyond a watermark.
pub(super) async fn look(client: &Client) -> Result<Findings, CallError> {
    let query =
        [("include_defaults", "true"), ("filter_path", "*.cluster.routing.allocation.disk")];
    let settings = client.call(Method::Get, "/_cluster/settings", &query, None).await?;
    let query = [("filter_path", "nodes.*.name,nodes.*.fs.total")];
    let nodes = client.call(Method::Get, "/_nodes/stats/fs", &query, None).await?;
    if !settings.is_success() || !nodes.is_success() {
        return Ok(Findings::default());
    }
    let (settings, nodes) = (settings.json(), nodes.json());
    let nodes = nodes.get("nodes").and_then(Value::as_object).into_iter().flatten();
    let notes = nodes.filter_map(|(_, node)| judge(&settings, node)).collect();
    Ok(Findings { problems: Vec::new(), notes })
}

/// The worst watermark that a node is beyond.
fn judge(settings: &Value, node: &Value) -> Option<Note> {
    if setting(settings, "threshold_enabled").as_deref() == Some("false") {
        return None;
    }
    let number = |name: &str| node.pointer(&format!("/fs/total/{name}")).and_then(Value::as_u64);
    let (total, free) = (number("total_in_bytes")?, number("available_in_bytes")?);
    let is_beyond = |(name, _): &&(&str, &str)| {
        let needed = needed_bytes(settings, name, total);
        needed.is_some_and(|needed| free < needed)
    };
    let (watermark, meaning) = WATERMARKS.iter().rev().find(is_beyond)?;
    let name = node.get("name").and_then(Value::as_str).unwrap_or("?");
    Some(Note::new(
        format!(
            "node \"{name}\" of the cluster has {} MB of disk left, beyond its watermark {watermark}: {meaning}",
            free >> 20
        ),
        "give it more disk, or delete indices",
    ))
}

/// Transient wins over persistent, and that over the default.
fn setting(settings: &Value, name: &str) -> Option<String> {
    let layers = ["transient", "persistent", "defaults"];
    let value = layers.iter().find_map(|layer| {
        let disk = settings.get(layer)?.pointer("/cluster/routing/allocation/disk")?;
        // Nested, or with a dotted name inside.
        let nested = disk.pointer(&format!("/{}", name.replace('.', "/")));
        nested.or_else(|| {
            let (outer, inner) = name.split_once('.')?;
            disk.get(outer)?.get(inner)
        })
    });
    value?.as_str().map(str::to_owned)
}

/// Bytes that must be free to stay below the watermark: a part of the disk, but no more than the headroom; or a
/// size.
fn needed_bytes(settings: &Value, watermark: &str, total: u64) -> Option<u64> {
    let text = setting(settings, &format!("watermark.{watermark}"))?;
    let Some(used) = used_part(&text) else { return size(&text) };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of a disk need not be exact to the byte"
    )]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and the total"
    )]
    let needed = (total as f64 * (1.0 - used)) as u64;
    let headroom = setting(settings, &format!("watermark.{watermark}.max_headroom"));
    let headroom = headroom.and_then(|text| size(&text)).unwrap_or(u64::MAX);
    Some(needed.min(headroom))
}

/// `85%` or `0.85`.
fn used_part(text: &str) -> Option<f64> {
    let part = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&part).then_some(part)
}

/// `200GB`; none for `-1`, which means no limit.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        _ => return None,
    };
    number.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(watermark: &Value) -> Value {
        json!({"defaults": {"cluster": {"routing": {"allocation": {"disk": {
            "threshold_enabled": "true", "watermark": watermark}}}}}})
    }

    fn node(total_gb: u64, free_gb: u64) -> Value {
        json!({"name": "n1", "fs": {"total":
            {"total_in_bytes": total_gb << 30, "available_in_bytes": free_gb << 30}}})
    }

    #[test]
    fn the_worst_watermark_is_named_and_headroom_counts() {
        let plain = settings(&json!({"low": "85%", "high": "0.9", "flood_stage": "95%"}));
        let word = |settings: &Value, node: &Value| judge(settings, node).map(|note| note.what);
        assert_eq!(word(&plain, &node(100, 16)), None);
        assert!(word(&plain, &node(100, 14)).unwrap().contains("watermark low"));
        assert!(word(&plain, &node(100, 9)).unwrap().contains("watermark high"));
        assert!(word(&plain, &node(100, 4)).unwrap().contains("watermark flood_stage"));
        // As Elasticsearch prints it, with dotted names inside.
        let headroom = settings(&json!({"low": "85%", "low.max_headroom": "200GB", "high": "90%"}));
        assert_eq!(word(&headroom, &node(10_000, 1_001)), None);
        let bytes = settings(&json!({"low": "50gb", "high": "10gb", "flood_stage": "1gb"}));
        assert!(word(&bytes, &node(100, 49)).unwrap().contains("watermark low"));
        let mut off = plain;
        off["transient"] = json!({"cluster": {"routing": {"allocation": {"disk":
            {"threshold_enabled": "false"}}}}});
        assert_eq!(word(&off, &node(100, 1)), None);
    }
}
