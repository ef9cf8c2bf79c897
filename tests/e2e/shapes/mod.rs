//! Tables, keys, names and databases of every odd shape.

mod bystanders;
mod definitions;
mod encodings;
mod filters;
mod generated;
mod json_fields;
mod keys;
mod names;
mod partitions;
mod random_values;
mod toast;
mod truncates;
mod wide;

use anyhow::Result;

use crate::support::compare::Expectation;
use crate::support::stage::Stage;

/// An SQL function `doc_id(…)` that makes a document id of the texts of a key's columns, as the README says.
const DOC_ID: &str = r"
    create function doc_id(variadic parts text[]) returns text language sql as $$
        select case when id = '' then '~'
                    when octet_length(id) > 512 then '~h' || encode(sha256(convert_to(id, 'UTF8')), 'hex')
                    else id end
        from (select case when cardinality(parts) = 1 then replace(parts[1], '~', '~0')
                     else (select string_agg(replace(replace(part, '~', '~0'), ',', '~1'), ',' order by n)
                           from unnest(parts) with ordinality as u (part, n)) end as id) encoded
    $$;";

/// Compares what a query gives (id, source) with the index of `label`.
async fn assert_index(stage: &Stage<'_>, label: &str, query: String) -> Result<()> {
    stage.assert_index(&Expectation::query(query), &stage.index(label)).await
}
