//! Whether indices are as waldex needs them, whoever had a hand in them: templates, settings, aliases. Those that
//! exist are looked at as they are, those that are still to be made as templates would make them. Reads only.
//!
//! Pure but for the calls at the end. What may not be looked at, for want of rights in the cluster, is left out:
//! a new generation is looked at again once it is made.

use elasticsearch::http::Method;
use serde_json::{Map, Value};

use super::client::{Answer, CallError, Client, path_segment};
use super::index::{IndexError, generation_index, refused, write_alias};
use super::target;
use super::{disk, templates};
use crate::document::index_settings::{self, FIELDS_LIMIT};
use crate::findings::{Cure, Findings, Note, Problem};

/// [`FIELDS_LIMIT`], unless set.
const FIELDS_DEFAULT: u64 = 1000;
/// Deletes should be remembered at least so long: a lease and a request's limit, and some more.
const TOMBSTONES_SECONDS_MIN: u64 = 300;

/// One table's index.
pub struct Wanted<'a> {
    /// Schema-qualified name of the table.
    pub table: String,
    /// Alias of its readers.
    pub index: &'a str,
    /// The generation that is gone on with, if there is one.
    pub generation: Option<u32>,
    /// Settings and mappings that a new generation is made with.
    pub body: &'a Value,
}

/// Looks at every index, and at the disks below.
///
/// # Errors
/// No answer.
pub async fn look(client: &Client, wanted: &[Wanted<'_>]) -> Result<Findings, IndexError> {
    let mut findings = disk::look(client).await?;
    for table in wanted {
        let mut found = look_at(client, table).await?;
        found.problems.iter_mut().for_each(|problem| problem.table = Some(table.table.clone()));
        findings.extend(found);
    }
    Ok(findings)
}

async fn look_at(client: &Client, wanted: &Wanted<'_>) -> Result<Findings, IndexError> {
    if let Some(generation) = wanted.generation
        && let Some(found) = existing(client, wanted, generation).await?
    {
        return Ok(found);
    }
    let mut findings = Findings::default();
    let physical = generation_index(wanted.index, 1);
    let (problems, template) = templates::for_index(client, &physical, wanted.body).await?;
    findings.problems.extend(problems);
    let mut made = template.unwrap_or_default();
    made.lay_over(wanted.body);
    findings.extend(made.judge(wanted, &physical, false));
    Ok(findings)
}

/// A generation that has just been made, before anything is written into it.
///
/// # Errors
/// No answer.
pub async fn look_at_made(
    client: &Client,
    table: String,
    index: &str,
    generation: u32,
    body: &Value,
) -> Result<Vec<Problem>, IndexError> {
    let wanted = Wanted { table, index, generation: None, body };
    let found = existing(client, &wanted, generation).await?;
    let mut problems = found.map(|found| found.problems).unwrap_or_default();
    problems.retain(|problem| problem.cure != Cure::WhileRunning);
    Ok(problems)
}

/// None if it does not exist.
async fn existing(
    client: &Client,
    wanted: &Wanted<'_>,
    generation: u32,
) -> Result<Option<Findings>, IndexError> {
    let physical = generation_index(wanted.index, generation);
    let path = format!("/{}", path_segment(&physical));
    let answer = client.call(Method::Get, &path, &[], None).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let answer = success(|| format!("look at the index \"{physical}\""), answer)?;
    let json = answer.json();
    let index = json.get(&physical);
    let part = |name: &str| index.and_then(|index| index.get(name));
    let made = Made::of(part("settings"), part("mappings"));
    let mut findings = made.judge(wanted, &physical, wanted.generation.is_some());
    findings.problems.extend(made.blocks(&physical));
    findings.notes.extend(other_types(wanted, made.mappings.get("properties")));
    let alias = write_alias(wanted.index, generation);
    findings.problems.extend(written_through(client, &alias, &physical).await?);
    Ok(Some(findings))
}

/// The alias that bulks name must write to this index alone.
async fn written_through(
    client: &Client,
    alias: &str,
    physical: &str,
) -> Result<Option<Problem>, CallError> {
    let path = format!("/_alias/{}", path_segment(alias));
    let answer = client.call(Method::Get, &path, &[], None).await?;
    let what = match answer.status {
        200 => match target::judge(alias, physical, &answer.json()) {
            target::Target::Unsound(what) => what,
            target::Target::Sound | target::Target::Gone { .. } => return Ok(None),
        },
        404 => format!("the alias \"{alias}\" is missing"),
        _ => return Ok(None),
    };
    let fix = format!(
        "POST /_aliases {{\"actions\":[{{\"remove\":{{\"index\":\"*\",\"alias\":\"{alias}\",\
         \"must_exist\":false}}}},{{\"add\":{{\"index\":\"{physical}\",\"alias\":\"{alias}\"}}}}]}}"
    );
    Ok(Some(awaited(what, fix)))
}

/// One that lanes wait for.
fn awaited(what: String, fix: String) -> Problem {
    Problem { cure: Cure::WhileRunning, ..Problem::new(what, fix) }
}

pub(super) fn success(what: impl FnOnce() -> String, answer: Answer) -> Result<Answer, IndexError> {
    if answer.is_success() { Ok(answer) } else { Err(refused(what(), &answer)) }
}

/// An index as it is, or would be made.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Flat, each name beginning with `index.`.
    settings: Map<String, Value>,
    mappings: Map<String, Value>,
}

impl Made {
    pub(super) fn of(settings: Option<&Value>, mappings: Option<&Value>) -> Self {
        let mappings = mappings.and_then(Value::as_object).cloned().unwrap_or_default();
        Self { settings: index_settings::flat(settings), mappings }
    }

    /// What a request that makes an index states wins over what a template does, field by field.
    fn lay_over(&mut self, body: &Value) {
        index_settings::lay_over(&mut self.settings, body.get("settings"));
        for (name, value) in body.get("mappings").and_then(Value::as_object).into_iter().flatten() {
            let laid = match (self.mappings.get_mut(name), value) {
                (Some(Value::Object(below)), Value::Object(above)) => {
                    below.extend(above.clone());
                    continue;
                }
                (_, above) => above.clone(),
            };
            self.mappings.insert(name.clone(), laid);
        }
    }

    /// A setting as text.
    fn setting(&self, name: &str) -> Option<String> {
        index_settings::text(&self.settings, name)
    }

    /// `is_kept`: it is there, and gone on with.
    fn judge(&self, wanted: &Wanted<'_>, physical: &str, is_kept: bool) -> Findings {
        let too_many = self.too_many(wanted, is_kept.then_some(physical));
        let problems = [self.incomplete_source(wanted, physical), too_many];
        Findings { problems: problems.into_iter().flatten().collect(), notes: self.notes(physical) }
    }

    /// Documents that the cluster does not keep whole can be neither completed nor compared with their rows.
    fn incomplete_source(&self, wanted: &Wanted<'_>, physical: &str) -> Option<Problem> {
        let source = self.mappings.get("_source");
        let of = |name: &str| source.and_then(|source| source.get(name));
        let lists = |name| of(name).and_then(Value::as_array).is_some_and(|it| !it.is_empty());
        let is_odd = |mode: &&str| index_settings::is_odd_source(mode);
        let why = if of("enabled") == Some(&Value::Bool(false)) {
            "_source is disabled".to_owned()
        } else if lists("excludes") || lists("includes") {
            "_source excludes or includes fields".to_owned()
        } else if let Some(mode) = of("mode").and_then(Value::as_str).filter(is_odd) {
            format!("_source.mode is {mode}")
        } else {
            let (name, mode) = index_settings::incomplete_source(&self.settings)?;
            format!("{name} is {mode}")
        };
        Some(Problem::new(
            format!("the index \"{physical}\" does not keep documents whole: {why}"),
            format!(
                "remove that from the index template which matches \"{physical}\", then `waldex run --reload {}`",
                wanted.table
            ),
        ))
    }

    /// `kept`: the index that is gone on with, whose own setting counts.
    fn too_many(&self, wanted: &Wanted<'_>, kept: Option<&str>) -> Option<Problem> {
        let limit = self.setting(FIELDS_LIMIT).and_then(|text| text.parse().ok());
        let limit = limit.unwrap_or(FIELDS_DEFAULT);
        let properties = wanted.body.pointer("/mappings/properties");
        let fields = fields_of(properties).max(fields_of(self.mappings.get("properties")));
        if fields <= limit {
            return None;
        }
        let what = format!(
            "the documents of table \"{}\" have {fields} fields, more than the {limit} that the index may have",
            wanted.table
        );
        let enough = fields.saturating_add(fields / 10);
        let fix = match kept {
            Some(physical) => format!(
                "PUT /{physical}/_settings {{\"{FIELDS_LIMIT}\":{enough}}}; and settings of the table, for the next \
                 index"
            ),
            None => {
                format!("settings: {{{FIELDS_LIMIT}: {enough}}} for the table, or fewer columns")
            }
        };
        Some(Problem::new(what, fix))
    }

    fn notes(&self, physical: &str) -> Vec<Note> {
        let mut notes = Vec::new();
        let expands = self.setting("index.auto_expand_replicas").is_some_and(|it| it != "false");
        if self.setting("index.number_of_replicas").as_deref() == Some("0") && !expands {
            notes.push(Note::new(
                format!("the index \"{physical}\" has no replicas: what a node loses is lost"),
                format!("PUT /{physical}/_settings {{\"index.number_of_replicas\":1}}; and settings of the table"),
            ));
        }
        let durability = self.setting("index.translog.durability");
        if durability.is_some_and(|it| !it.eq_ignore_ascii_case("request")) {
            notes.push(Note::new(
                format!(
                    "the index \"{physical}\" has index.translog.durability async: a node that dies loses what \
                     it has confirmed"
                ),
                format!("PUT /{physical}/_settings {{\"index.translog.durability\":\"request\"}}"),
            ));
        }
        let kept = self.setting("index.gc_deletes").unwrap_or_else(|| "60s".to_owned());
        if seconds(&kept).is_some_and(|seconds| seconds < TOMBSTONES_SECONDS_MIN) {
            notes.push(Note::new(
                format!(
                    "the index \"{physical}\" remembers deletes for {kept} only: a request that is late by \
                     more brings a row back"
                ),
                format!("PUT /{physical}/_settings {{\"index.gc_deletes\":\"15m\"}}"),
            ));
        }
        for name in ["index.default_pipeline", "index.final_pipeline"] {
            if let Some(pipeline) = self.setting(name).filter(|it| it != "_none") {
                notes.push(Note::new(
                    format!(
                        "documents of \"{physical}\" pass through the ingest pipeline \"{pipeline}\": what it \
                         changes is not as the rows are"
                    ),
                    format!("PUT /{physical}/_settings {{\"{name}\":\"_none\"}}"),
                ));
            }
        }
        notes
    }

    /// What keeps everybody from writing.
    fn blocks(&self, physical: &str) -> Vec<Problem> {
        let names = ["read_only", "read_only_allow_delete", "write", "metadata", "read"];
        let stands =
            |name: &&&str| self.setting(&format!("index.blocks.{name}")).as_deref() == Some("true");
        let problem = |name: &str| {
            let because = if name == "read_only_allow_delete" { " (the disk is full)" } else { "" };
            awaited(
                format!("the index \"{physical}\" has the block index.blocks.{name}{because}"),
                format!("PUT /{physical}/_settings {{\"index.blocks.{name}\":null}}"),
            )
        };
        names.iter().filter(stands).map(|name| problem(name)).collect()
    }
}

/// Fields that an index that exists maps otherwise than a new one would.
fn other_types(wanted: &Wanted<'_>, found: Option<&Value>) -> Option<Note> {
    let expected = wanted.body.pointer("/mappings/properties");
    let mut differences = Vec::new();
    compare("", expected, found, &mut differences);
    (!differences.is_empty()).then(|| {
        Note::new(
            format!(
                "the index of table \"{}\" maps fields otherwise than configured: {}",
                wanted.table,
                differences.join(", ")
            ),
            format!("`waldex run --reload {}` makes it as configured", wanted.table),
        )
    })
}

fn compare(
    prefix: &str,
    expected: Option<&Value>,
    found: Option<&Value>,
    differences: &mut Vec<String>,
) {
    for (name, expected) in expected.and_then(Value::as_object).into_iter().flatten() {
        let Some(found) = found.and_then(|found| found.get(name)) else { continue };
        let (wants, has) = (type_of(expected), type_of(found));
        if wants != has {
            differences.push(format!("\"{prefix}{name}\" as {has}, not {wants}"));
            continue;
        }
        let inside = |field: &'static str| (expected.get(field), found.get(field));
        let (expected, found) = inside("properties");
        compare(&format!("{prefix}{name}."), expected, found, differences);
    }
}

pub(super) fn type_of(field: &Value) -> &str {
    field.get("type").and_then(Value::as_str).unwrap_or("object")
}

/// Fields below `properties`, as the limit counts them: objects and multi-fields, too.
fn fields_of(properties: Option<&Value>) -> u64 {
    let fields = properties.and_then(Value::as_object).into_iter().flatten();
    let count = |(_, field): (&String, &Value)| {
        1 + fields_of(field.get("properties")) + fields_of(field.get("fields"))
    };
    fields.map(count).sum()
}

/// A time as the cluster writes it: `60s`, `15m`, `1h`; none of another form, as of `-1`.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "d" => Some(number.saturating_mul(86_400)),
        "h" => Some(number.saturating_mul(3600)),
        "m" => Some(number.saturating_mul(60)),
        "s" => Some(number),
        "" | "ms" | "micros" | "nanos" => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
