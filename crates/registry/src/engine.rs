//! The one thread that talks HTTP, and the way from blocking callers to it and back.

use std::future::Future;
use std::sync::mpsc;
use std::thread;

use kiln_core::Cancel;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::RegistryError;

/// A running thread; dropping it ends what still goes on there.
#[derive(Debug)]
pub(crate) struct Engine {
    handle: Handle,
    /// Dropped with the engine, which the thread notices.
    _stop: oneshot::Sender<()>,
}

impl Engine {
    pub(crate) fn start() -> Result<Self, RegistryError> {
        let fail = |error: std::io::Error| RegistryError::Client { cause: error.to_string() };
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(fail)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || serve(runtime, stopped))
            .map_err(fail)?;
        Ok(Self { handle, _stop: stop })
    }

    /// Runs a future there and waits for it, or for cancellation.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        if cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let abort = self.spawn(async move {
            // The receiver waits below, unless its thread is gone.
            let _ = sender.send(work.await);
        });
        let _guard = cancel.on_cancel(move || abort.abort());
        // Nothing is sent if the task was aborted.
        receiver.recv().unwrap_or_else(|_| Err(stopped(cancel)))
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(work).abort_handle()
    }
}

/// Why a task ended without a word.
pub(crate) fn stopped(cancel: &Cancel) -> RegistryError {
    if cancel.is_cancelled() {
        RegistryError::Cancelled
    } else {
        RegistryError::Client { cause: "its thread ended unexpectedly".to_owned() }
    }
}

fn serve(runtime: Runtime, stopped: oneshot::Receiver<()>) {
    // An error is what the sender's end gives when it is dropped.
    let _ = runtime.block_on(stopped);
    // Name look-ups run in the system's library and may hang there: not waited for.
    runtime.shutdown_background();
}
