//! A name for readers that is taken by something that waldex has not made, and the way over.

use crate::elasticsearch::client::Client;
use crate::elasticsearch::index::{self, ReaderName, generation_index};
use crate::error::Error;

/// Everyone who migrates meets this on day one: the name readers use is taken.
pub(crate) async fn refuse_foreign_index(client: &Client, index: &str) -> Result<(), Error> {
    match index::reader_name(client, index).await? {
        ReaderName::Free | ReaderName::Generations(_) => Ok(()),
        ReaderName::Foreign { is_data_stream: true, .. } => Err(data_stream(index)),
        ReaderName::Foreign { indices, is_concrete, .. } => {
            Err(foreign(index, &indices, is_concrete))
        }
    }
}

/// A data stream takes new documents only, and gives its name up only with itself.
fn data_stream(index: &str) -> Error {
    let first = generation_index(&format!("{index}-waldex"), 1);
    Error::Configuration {
        what: format!("\"{index}\" is a data stream, which takes neither updates nor deletes"),
        fix: format!(
            "load side by side: set index: {index}-waldex for this table and run waldex; when it streams, \
             DELETE /_data_stream/{index} and POST /_aliases {{\"actions\":[{{\"add\":{{\"index\":\"{first}\",\
             \"alias\":\"{index}\"}}}}]}}"
        ),
    }
}

/// The refusal of a name that is taken, with the way over.
fn foreign(index: &str, indices: &[String], is_concrete: bool) -> Error {
    let what = if is_concrete {
        format!("\"{index}\" is a concrete index, not made by waldex")
    } else {
        format!("\"{index}\" is an alias of {}, not made by waldex", indices.join(", "))
    };
    let remove = if is_concrete {
        format!(r#"{{"remove_index":{{"index":"{index}"}}}}"#)
    } else {
        let names = indices.join("\",\"");
        format!(r#"{{"remove":{{"indices":["{names}"],"alias":"{index}"}}}}"#)
    };
    let first = generation_index(&format!("{index}-waldex"), 1);
    let fix = format!(
        "load side by side: set index: {index}-waldex for this table and run waldex; when it streams, cut \
         over in one step with POST /_aliases {{\"actions\":[{remove},{{\"add\":{{\"index\":\"{first}\",\
         \"alias\":\"{index}\"}}}}]}}"
    );
    Error::Configuration { what, fix }
}
