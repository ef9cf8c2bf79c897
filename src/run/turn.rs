//! One possession of the slot after the other: each from the wait for it to its end, and nothing outlives it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::begin::{self, Beginning, Started, patiently};
use super::connection::Run;
use super::progress::Progress;
use super::shutdown::Shutdown;
use super::slot_creation::Making;
use super::vitals::Vitals;
use super::{Options, letters, summary};
use crate::admin::{self, AdminSettings};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::gate::Gate;
use crate::elasticsearch::renewal::keep;
use crate::elasticsearch::sender::Sender;
use crate::elasticsearch::state::StateError;
use crate::elasticsearch::store::StateStore;
use crate::elasticsearch::writer::Writer;
use crate::error::Error;
use crate::settings::Settings;

/// How long the servers may take to be there at the start: they may be starting, too. Later outages
/// are waited out however long they last.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// For the last write of the state, when all that matters is confirmed.
pub(super) const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `--until` is reached or a stop is asked for. A service that loses the lease to another stands by
/// from then on: to end would only mean to be started again, and to wait.
///
/// # Errors
/// What ends the run for good, with its remedy.
pub async fn run(settings: &Settings, options: Options, shutdown: Shutdown) -> Result<(), Error> {
    let (mut progress, vitals) = Progress::new();
    serve_admin(settings, vitals).await?;
    let client = Client::new(&settings.elasticsearch)?;
    loop {
        let turn = Turn { settings, client: &client, options: &options, shutdown: &shutdown };
        match Box::pin(turn.run(&mut progress)).await {
            Err(error @ Error::State(StateError::Taken { .. })) if options.are_of_a_service() => {
                warn!(%error, "this one was not heard of for too long: standing by");
                progress.turn_ends();
            }
            ended => return ended,
        }
    }
}

/// An address nobody asked for may be taken, as by another waldex on this machine.
async fn serve_admin(settings: &Settings, vitals: watch::Receiver<Vitals>) -> Result<(), Error> {
    let AdminSettings { listen, is_given } = settings.admin;
    match admin::start(listen, vitals).await {
        Ok(_) => Ok(()),
        Err(error) if is_given => Err(Error::Configuration {
            what: format!("the admin server cannot listen on {listen}: {error}"),
            fix: "set admin.listen to an address of this machine that is free".to_owned(),
        }),
        Err(error) => {
            info!(%listen, %error, "no admin server: set admin.listen to have one");
            Ok(())
        }
    }
}

/// One possession of the slot.
pub(super) struct Turn<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: &'a Client,
    pub(super) options: &'a Options,
    pub(super) shutdown: &'a Shutdown,
}

impl Turn<'_> {
    async fn run(&self, progress: &mut Progress) -> Result<(), Error> {
        let Self { settings, client, options, shutdown } = *self;
        let instance = format!("{:016x}", rand::random::<u64>());
        let store = StateStore::new(client.clone(), &settings.postgres.slot, instance);
        let mut renewals = JoinSet::new();
        renewals.spawn(keep(store.clone()));
        let gate = Gate::new(&settings.elasticsearch, store.right().clone());
        let retries = settings.elasticsearch.max_retries;
        let writer = Writer::new(Sender::new(client.clone()), gate, retries);
        let making = Making::default();
        let mut beginning = Beginning::new(settings, client, &store, options, &making);
        let attempt = async || beginning.attempt().await;
        let begun = patiently(shutdown, Some(START_PATIENCE), progress, attempt).await;
        let ended = match begun {
            Ok(Some(started)) => tokio::select! {
                lived = self.live(&store, &writer, started, progress) => lived,
                taken = store.lost() => Err(taken.into()),
            },
            Ok(None) => {
                making.abandon(&settings.postgres).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let ended = unless_taken(&store, ended).await;
        leave(&store, &writer).await;
        ended
    }

    async fn live(
        &self,
        store: &StateStore,
        writer: &Writer,
        started: Started,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        summary::say(self.settings, &started.plan);
        begin::say(&started.notes);
        let attempt = async || letters::open(self.settings, self.client, writer).await;
        let opened = patiently(self.shutdown, Some(START_PATIENCE), progress, attempt).await?;
        let Some(letters) = opened else { return Ok(()) };
        let writer = writer.clone().with_letters(letters);
        progress.watch(&writer);
        Run::new(self, store, writer).live(started, progress).await
    }
}

/// What does not fit any more may be what another has done since.
async fn unless_taken(store: &StateStore, ended: Result<(), Error>) -> Result<(), Error> {
    if !matches!(ended, Err(Error::NeedsResync(_))) {
        return ended;
    }
    match tokio::time::timeout(LAST_WRITE_TIMEOUT, store.renew()).await {
        Ok(Err(taken @ StateError::Taken { .. })) => Err(taken.into()),
        Ok(Ok(()) | Err(_)) | Err(_) => ended,
    }
}

/// Gives the lease back, so that whoever comes next need not wait: if nothing that was sent may still be carried
/// out.
async fn leave(store: &StateStore, writer: &Writer) {
    if !store.right().is_kept() || !writer.is_quiet() {
        return;
    }
    match tokio::time::timeout(LAST_WRITE_TIMEOUT, store.release_as_it_is()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the lease is not given back"),
        Err(_) => debug!("the lease is not given back in time"),
    }
}
