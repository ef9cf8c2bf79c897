//! Waiting for the requests in flight before the changes they carry are read again: their writes could otherwise
//! be carried out after later ones of the same transaction, which have the same version.

use super::lanes::Lanes;
use super::progress::Progress;
use super::shutdown::Shutdown;
use super::work::Working;
use crate::error::Error;
use crate::pipeline::Pipeline;

/// Waits until every request of the lanes is answered, and a truncate under way is over; or until a stop is asked
/// for.
///
/// # Errors
/// A batch that will never be confirmed.
pub(crate) async fn settle(
    lanes: &mut Lanes,
    working: Option<&mut Working>,
    pipeline: &mut Pipeline,
    progress: &mut Progress,
    mut stop: Shutdown,
) -> Result<(), Error> {
    let all = async {
        if let Some(working) = working {
            working.settled().await;
        }
        while pipeline.requests_in_flight() > 0 {
            lanes.report().await.give_to(pipeline, progress)?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = stop.requested() => Ok(()),
        settled = all => settled,
    }
}
