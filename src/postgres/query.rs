//! The simple query protocol on our own connection: replication commands and their small answers.

use postgres_protocol::message::{backend, frontend};

use super::PostgresError;
use super::wire::{Wire, unexpected};

/// One row of text values.
pub(super) type TextRow = Vec<Option<String>>;

impl Wire {
    /// Runs one command and returns its rows. After an error the connection is ready again, unless
    /// the server closed it.
    pub(super) async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, PostgresError> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let frame = match self.receive().await {
                Ok(frame) => frame,
                Err(error @ PostgresError::Server(_)) if failure.is_none() => {
                    failure = Some(error);
                    continue;
                }
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            match frame.tag {
                backend::DATA_ROW_TAG => rows.push(parse_row(&frame.body)?),
                backend::READY_FOR_QUERY_TAG => return failure.map_or(Ok(rows), Err),
                backend::ROW_DESCRIPTION_TAG
                | backend::COMMAND_COMPLETE_TAG
                | backend::EMPTY_QUERY_RESPONSE_TAG => {}
                tag => return Err(unexpected(tag, "in the answer to a query")),
            }
        }
    }
}

/// `DataRow`: a count, then for each column its length (-1 for NULL) and its text.
fn parse_row(body: &[u8]) -> Result<TextRow, PostgresError> {
    let cut_off = || PostgresError::Protocol("a row is cut off".to_owned());
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(cut_off)?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            row.push(None);
            rest = after;
            continue;
        }
        let length = usize::try_from(length).map_err(|_| cut_off())?;
        let (value, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    if rest.is_empty() {
        Ok(row)
    } else {
        Err(PostgresError::Protocol("a row is too long".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_keeps_null_and_empty_apart() {
        let row = parse_row(b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0").unwrap();
        assert_eq!(row, [Some("a".to_owned()), None, Some(String::new())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_row_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(row) = parse_row(&body) {
                prop_assert!(row.len() * 4 + 2 <= body.len());
            }
        }
    }
}
