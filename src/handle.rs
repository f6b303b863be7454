//! The one door to a running node: send a [`Command`], watch [`Event`](crate::api::Event)s.

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
}

impl Handle {
    /// Have a command done. Waits while the node is busy; fails with [`ErrorCode::Stopping`] when it has ended.
    pub async fn execute(&self, command: Command) -> Result<Reply, ApiError> {
        let stopped = || ApiError::new(ErrorCode::Stopping, "the node is stopping");
        let (reply, answer) = oneshot::channel();
        self.commands.send((command, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Watch what happens from now on. A reader that falls behind by more than 2,048 events loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Stamped> {
        self.events.subscribe()
    }
}
