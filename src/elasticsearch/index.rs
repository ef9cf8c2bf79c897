//! Generations and their aliases.
//!
//! A generation is one physical index, `users-000001`, behind two aliases: the private write alias
//! `users-000001-write`, which every bulk names with `require_alias=true` so that nothing is ever
//! auto-created, and, once it is complete, the readers' alias `users`.

use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::{Map, Value, json};
use tracing::info;

use super::client::{Answer, CallError, Client, path_segment};
use super::control;
use crate::bulk::answer::WRITE_SUFFIX;
use crate::document::tombstones;

/// The physical index of a generation.
pub fn generation_index(index: &str, generation: u32) -> String {
    format!("{index}-{generation:06}")
}

/// The alias that bulks name.
pub fn write_alias(index: &str, generation: u32) -> String {
    format!("{}{WRITE_SUFFIX}", generation_index(index, generation))
}

/// The write alias of a physical index of ours.
pub fn write_alias_of(physical: &str) -> String {
    format!("{physical}{WRITE_SUFFIX}")
}

/// The physical index behind a write alias of ours.
pub fn physical_of(write_alias: &str) -> &str {
    write_alias.strip_suffix(WRITE_SUFFIX).unwrap_or(write_alias)
}

/// The name readers use, of a physical index of ours.
pub fn readers_name_of(physical: &str) -> &str {
    physical.rsplit_once('-').map_or(physical, |(index, _)| index)
}

/// The generation that a physical index is, if it is one of `index`.
pub fn generation_of(index: &str, physical: &str) -> Option<u32> {
    let digits = physical.strip_prefix(index)?.strip_prefix('-')?;
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// What stands under the name that readers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderName {
    /// Nothing.
    Free,
    /// An alias of generations of ours and of nothing else: of one, unless something went wrong; in ascending order.
    Generations(Vec<u32>),
    /// A concrete index, or an alias of something else.
    Foreign {
        /// The physical indices behind the name.
        indices: Vec<String>,
        /// Whether the name itself is a concrete index.
        is_concrete: bool,
        /// Whether it is a data stream.
        is_data_stream: bool,
    },
}

/// A call about an index that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer that is none of the expected ones.
    #[error("cannot {what}: status {status}, {kind}{detail}")]
    Refused {
        /// What was tried.
        what: String,
        /// HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
        /// The server's reason, where it can only speak of names and settings.
        detail: String,
    },
}

impl IndexError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Refused { status, kind, .. } => control::passes(*status, kind),
        }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Call(_) => {
                Some("check elasticsearch.addresses, and that the cluster runs".to_owned())
            }
            Self::Refused { status, kind, detail, .. } => control::remedy(*status, kind, detail),
        }
    }
}

pub(super) fn refused(what: String, answer: &Answer) -> IndexError {
    let (status, kind, detail) = (answer.status, answer.error_kind(), detail(answer));
    IndexError::Refused { what, status, kind, detail }
}

/// The server's reason, to be told after the error's type; empty if it gives none.
pub(super) fn detail(answer: &Answer) -> String {
    let json = answer.json();
    let reason = json.pointer("/error/reason").and_then(Value::as_str);
    reason.map_or_else(String::new, |reason| format!(", {reason}"))
}

fn expect(what: impl FnOnce() -> String, answer: Answer) -> Result<Answer, IndexError> {
    if answer.is_success() { Ok(answer) } else { Err(refused(what(), &answer)) }
}

/// A change counts once the cluster says so.
fn acknowledged(
    client: &Client,
    what: impl FnOnce() -> String,
    answer: Answer,
) -> Result<(), IndexError> {
    let answer = expect(what, answer)?;
    if answer.is_acknowledged() { Ok(()) } else { Err(client.not_of_the_cluster(&answer).into()) }
}

/// What stands under `index`.
pub async fn reader_name(client: &Client, index: &str) -> Result<ReaderName, IndexError> {
    let query = [("filter_path", "*.aliases,*.data_stream")];
    let answer =
        client.call(Method::Get, &format!("/{}", path_segment(index)), &query, None).await?;
    if answer.is_missing() {
        return Ok(ReaderName::Free);
    }
    let answer = expect(|| format!("look up \"{index}\""), answer)?;
    let found = answer.json();
    let is_data_stream = found
        .as_object()
        .is_some_and(|indices| indices.values().any(|it| it.get("data_stream").is_some()));
    let indices: Vec<String> = match found {
        Value::Object(indices) => indices.into_iter().map(|(name, _)| name).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Vec::new()
        }
    };
    let generations: Option<Vec<u32>> =
        indices.iter().map(|name| generation_of(index, name)).collect();
    let generations = generations.map(|mut generations| {
        generations.sort_unstable();
        generations
    });
    Ok(match generations {
        Some(generations) if !generations.is_empty() => ReaderName::Generations(generations),
        Some(_) | None => {
            let is_concrete = indices.iter().any(|name| name == index);
            ReaderName::Foreign { indices, is_concrete, is_data_stream }
        }
    })
}

/// The generations of `index` that exist, in ascending order.
pub async fn generations(client: &Client, index: &str) -> Result<Vec<u32>, IndexError> {
    let path = format!("/{}-*", path_segment(index));
    let query = [("filter_path", "*.aliases"), ("expand_wildcards", "all")];
    let answer = client.call(Method::Get, &path, &query, None).await?;
    if answer.is_missing() {
        return Ok(Vec::new());
    }
    let answer = expect(|| format!("list the generations of \"{index}\""), answer)?;
    let json = answer.json();
    let names = json.as_object().into_iter().flat_map(|indices| indices.keys());
    let mut generations: Vec<u32> = names.filter_map(|name| generation_of(index, name)).collect();
    generations.sort_unstable();
    Ok(generations)
}

/// How many documents a generation holds, after a refresh.
pub async fn document_count(
    client: &Client,
    index: &str,
    generation: u32,
) -> Result<u64, IndexError> {
    let physical = generation_index(index, generation);
    let segment = path_segment(&physical);
    let what = || format!("count the documents of \"{physical}\"");
    let path = format!("/{segment}/_refresh");
    expect(what, client.call(Method::Post, &path, &[], None).await?)?;
    let answer = client.call(Method::Get, &format!("/{segment}/_count"), &[], None).await?;
    let answer = expect(what, answer)?;
    let count = answer.json().pointer("/count").and_then(Value::as_u64);
    count.ok_or_else(|| client.not_of_the_cluster(&answer).into())
}

/// Creates a generation with its private write alias; `for_readers` adds the readers' alias. A generation that is
/// already there is left as it is, but for that.
///
/// Readers come only once the index is known to be there: a creation whose answer was lost may be carried out
/// after the next generation has taken its place, and two indices behind one name stop the next start.
pub async fn create(
    client: &Client,
    index: &str,
    generation: u32,
    body: &Value,
    for_readers: bool,
) -> Result<(), IndexError> {
    let physical = generation_index(index, generation);
    let mut aliases = serde_json::Map::new();
    aliases.insert(write_alias(index, generation), json!({}));
    let mut body = body.clone();
    if let Some(body) = body.as_object_mut() {
        body.insert("aliases".to_owned(), Value::Object(aliases));
    }
    let path = format!("/{}", path_segment(&physical));
    let answer = client.call(Method::Put, &path, &[], Some(&body)).await?;
    let exists = answer.error_kind() == "resource_already_exists_exception";
    if answer.is_slow() {
        // Made, though not every node has said so in time.
        if !aliases_of(client, &physical).await?.contains_key(&write_alias(index, generation)) {
            return Err(client.not_of_the_cluster(&answer).into());
        }
    } else if answer.status == 400 && exists {
        let is_theirs = !for_readers || aliases_of(client, &physical).await?.contains_key(index);
        if is_theirs {
            return Ok(());
        }
    } else {
        acknowledged(client, || format!("create the index \"{physical}\""), answer)?;
    }
    if for_readers { give_to_readers(client, index, generation, &[]).await } else { Ok(()) }
}

/// Gives the readers' alias to `generation`, in one atomic step; `others` lose it. So does every other alias of
/// theirs but the private one: whoever came over from an index of another name reads there.
pub async fn give_to_readers(
    client: &Client,
    index: &str,
    generation: u32,
    others: &[u32],
) -> Result<(), IndexError> {
    let physical = generation_index(index, generation);
    let mut actions = Vec::new();
    for &other in others {
        let write_alias = write_alias(index, other);
        let other = generation_index(index, other);
        let mut aliases = aliases_of(client, &other).await?;
        aliases.remove(&write_alias);
        for (alias, properties) in aliases {
            actions.push(json!({"remove": {"index": other, "alias": alias}}));
            if alias != index {
                actions.push(add_alias(&physical, &alias, properties));
            }
        }
    }
    actions.push(add_alias(&physical, index, Value::Null));
    let body = json!({ "actions": actions });
    let answer = client.call(Method::Post, "/_aliases", &[], Some(&body)).await?;
    acknowledged(client, || format!("give the alias \"{index}\" to \"{physical}\""), answer)
}

/// `properties`: filter, routing and the like, as the server shows them.
fn add_alias(physical: &str, alias: &str, properties: Value) -> Value {
    let mut action = json!({"index": physical, "alias": alias});
    if let (Some(action), Value::Object(properties)) = (action.as_object_mut(), properties) {
        action.extend(properties);
    }
    json!({ "add": action })
}

/// The aliases of a physical index; none if it is not there.
async fn aliases_of(
    client: &Client,
    physical: &str,
) -> Result<serde_json::Map<String, Value>, IndexError> {
    let path = format!("/{}/_alias", path_segment(physical));
    let answer = client.call(Method::Get, &path, &[], None).await?;
    if answer.is_missing() {
        return Ok(serde_json::Map::new());
    }
    let answer = expect(|| format!("look up the aliases of \"{physical}\""), answer)?;
    let mut json = answer.json();
    let aliases = json.get_mut(physical).and_then(|index| index.get_mut("aliases"));
    Ok(aliases.and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default())
}

/// Maps further fields of a generation. What is mapped already stays as it is.
pub async fn extend_mappings(
    client: &Client,
    index: &str,
    generation: u32,
    properties: Map<String, Value>,
) -> Result<(), IndexError> {
    let physical = generation_index(index, generation);
    let body = json!({ "properties": properties });
    let path = format!("/{}/_mapping", path_segment(&physical));
    let answer = client.call(Method::Put, &path, &[], Some(&body)).await?;
    acknowledged(client, || format!("map further fields of \"{physical}\""), answer)
}

/// Lets a generation that is there remember deletes for as long as `body`, with which it would be made now, says,
/// if it does so for less than `min`.
pub async fn keep_tombstones(
    client: &Client,
    index: &str,
    generation: u32,
    body: &Value,
    min: Duration,
) -> Result<(), IndexError> {
    let physical = generation_index(index, generation);
    let path = format!("/{}/_settings", path_segment(&physical));
    let what = || format!("look up the settings of \"{physical}\"");
    let answer = client.call(Method::Get, &path, &[("flat_settings", "true")], None).await?;
    let answer = expect(what, answer)?.json();
    let settings = answer.get(&physical).and_then(|index| index.get("settings"));
    let set = settings.and_then(|settings| settings.get(tombstones::SETTING));
    let kept = set.map_or(Some(tombstones::SERVER_DEFAULT), tombstones::parse);
    let wanted = body.get("settings").and_then(Value::as_object).and_then(tombstones::of);
    let Some(wanted) = wanted.filter(|_| kept.is_some_and(|kept| kept < min)) else {
        return Ok(());
    };
    info!(index = physical, before = ?set, now = %wanted, "{}: deletes are remembered for longer", tombstones::SETTING);
    let change = json!({ tombstones::SETTING: wanted });
    let answer = client.call(Method::Put, &path, &[], Some(&change)).await?;
    acknowledged(client, || format!("set {} of \"{physical}\"", tombstones::SETTING), answer)
}

/// Removes a generation; one that is not there is as good.
pub async fn delete(client: &Client, index: &str, generation: u32) -> Result<(), IndexError> {
    let physical = generation_index(index, generation);
    let path = format!("/{}", path_segment(&physical));
    let answer = client.call(Method::Delete, &path, &[], None).await?;
    if answer.is_missing() {
        return Ok(());
    }
    acknowledged(client, || format!("delete the index \"{physical}\""), answer)
}

#[cfg(test)]
mod tests;
