//! The one door to a running node: send a [`Command`], watch [`Event`](crate::api::Event)s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::{ApiError, Command, ErrorCode, Reply, Stamped};

/// How many commands may wait for the event loop; the next sender waits.
pub(crate) const COMMAND_QUEUE: usize = 256;

/// How many events a slow reader may be behind before it loses the oldest and gets `lagged`.
pub(crate) const EVENT_QUEUE: usize = 2048;

/// A command on its way to the event loop, with the way back.
pub(crate) type Asked = (Command, oneshot::Sender<Result<Reply, ApiError>>);

/// A cheap clone for each front end.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Asked>,
    pub(crate) events: broadcast::Sender<Stamped>,
    /// The number of the last event.
    pub(crate) emitted: Arc<AtomicU64>,
}

impl Handle {
    /// Have a command done. Waits while the node is busy; fails with [`ErrorCode::Stopping`] when it has ended.
    pub async fn execute(&self, command: Command) -> Result<Reply, ApiError> {
        self.begin(command).await?.result().await
    }

    /// Hand over a command without waiting for what comes of it. Commands are taken in the order they are handed over.
    pub async fn begin(&self, command: Command) -> Result<Begun, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send((command, reply)).await.map_err(|_| stopped())?;
        Ok(Begun(answer))
    }

    /// The number of the node's last event: with a reply in hand, of the last one that came before it.
    pub fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Acquire)
    }

    /// Watch what happens from now on. A reader that falls behind by more than 2,048 events loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Stamped> {
        self.events.subscribe()
    }
}

/// A command that was handed over.
#[derive(Debug)]
pub struct Begun(oneshot::Receiver<Result<Reply, ApiError>>);

impl Begun {
    /// What came of it.
    pub async fn result(self) -> Result<Reply, ApiError> {
        self.0.await.map_err(|_| stopped())?
    }
}

fn stopped() -> ApiError {
    ApiError::new(ErrorCode::Stopping, "the node is stopping")
}
