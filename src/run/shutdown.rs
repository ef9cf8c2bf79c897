//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

/// Exit code of a process that was told twice: it was stopped, nothing is lost.
const SECOND_SIGNAL_EXIT: i32 = 1;

/// Asks for a stop, for a program that runs waldex as a library.
pub struct ShutdownHandle {
    ask: watch::Sender<bool>,
}

impl ShutdownHandle {
    /// Asks for an orderly stop.
    pub fn ask(&self) {
        self.ask.send_replace(true);
    }
}

/// Whether a stop was asked for. Clones see the same.
#[derive(Clone)]
pub struct Shutdown {
    asked: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens for the signals from here on.
    ///
    /// # Errors
    /// The system refuses the handler.
    pub fn on_signals() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let (ask, asked) = watch::channel(false);
        tokio::spawn(listen(terminate, interrupt, ask));
        Ok(Self { asked })
    }

    /// Listens for nothing but the handle.
    pub fn by_hand() -> (ShutdownHandle, Self) {
        let (ask, asked) = watch::channel(false);
        (ShutdownHandle { ask }, Self { asked })
    }

    /// Returns once a stop was asked for. Cancel-safe.
    pub async fn requested(&mut self) {
        // The sender lives as long as the process; if it is gone there is no one left to ask.
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.asked.borrow()
    }
}

async fn listen(mut terminate: Signal, mut interrupt: Signal, ask: watch::Sender<bool>) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if ask.send_replace(true) {
            warn!("second signal: ending at once; what was not confirmed will be sent again");
            std::process::exit(SECOND_SIGNAL_EXIT);
        }
    }
}
