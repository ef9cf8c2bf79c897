//! The end of a state document. It need not be understood for that: one that no version here can read must go, too.

use elasticsearch::http::Method;
use serde_json::Value;

use super::{StateStore, Stored, version_written};
use crate::elasticsearch::state::{State, StateError};

impl StateStore {
    /// Removes the document, if it is as it was last read.
    ///
    /// # Errors
    /// Another wrote it meanwhile; the server's.
    pub async fn remove(&self) -> Result<(), StateError> {
        let known = self.shared.known.lock().await;
        let Some(Stored { source, version, .. }) = self.look().await? else { return Ok(()) };
        let taken = || StateError::Taken { slot: self.shared.slot.clone(), other: writer(&source) };
        if known.version.is_some_and(|before| before != version) {
            return Err(taken());
        }
        let (seq_no, primary_term) = (version.seq_no.to_string(), version.primary_term.to_string());
        let query = [("if_seq_no", seq_no.as_str()), ("if_primary_term", primary_term.as_str())];
        let answer = self.shared.client.call(Method::Delete, &self.path(), &query, None).await?;
        match answer.status {
            409 => Err(taken()),
            _ if answer.is_missing() || version_written(&answer).is_some() => Ok(()),
            _ => Err(self.not_written(&answer)),
        }
    }
}

/// Who wrote it, as far as that can be read.
fn writer(source: &Value) -> String {
    match serde_json::from_value::<State>(source.clone()) {
        Ok(state) => state.holder(),
        Err(_) => "one of another version".to_owned(),
    }
}
