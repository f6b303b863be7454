//! What `wait` and `expect` look at.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regex::Regex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::api::{Event, Stamped};

/// Messages kept for a later `wait message`; beyond, the oldest are forgotten.
const KEPT_MESSAGES: usize = 1_024;

/// Transfers that ended, kept for a later `wait transfer`; beyond, the oldest are forgotten.
const KEPT_TRANSFERS: usize = 256;

/// Gathers what `wait` looks at, so that nothing is missed between two waits.
pub(super) struct Watch {
    messages: Arc<Mutex<VecDeque<Stamped>>>,
    transfers: Arc<Mutex<VecDeque<Stamped>>>,
    changes: watch::Receiver<u64>,
    task: AbortHandle,
}

impl Watch {
    /// Gather from now on.
    pub(super) fn start(mut events: broadcast::Receiver<Stamped>) -> Self {
        let messages = Arc::new(Mutex::new(VecDeque::new()));
        let transfers = Arc::new(Mutex::new(VecDeque::new()));
        let ended = Arc::clone(&transfers);
        let (sender, changes) = watch::channel(0);
        let gathered = Arc::clone(&messages);
        let task = tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(stamped) => match *stamped.event {
                        Event::Message { .. } => {
                            let mut messages = lock(&gathered);
                            if messages.len() == KEPT_MESSAGES {
                                messages.pop_front();
                            }
                            messages.push_back(stamped);
                        }
                        Event::Transfer { state, .. } if state.is_final() => {
                            let mut transfers = lock(&ended);
                            if transfers.len() == KEPT_TRANSFERS {
                                transfers.pop_front();
                            }
                            transfers.push_back(stamped);
                        }
                        Event::Delivery { .. }
                        | Event::Transfer { .. }
                        | Event::PeerUp { .. }
                        | Event::PeerAlive { .. }
                        | Event::PeerDead { .. }
                        | Event::PeerLeft { .. }
                        | Event::PeerLost { .. } => {}
                        _ => continue,
                    },
                    // What was lost cannot be matched any more, but states may have changed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
                sender.send_modify(|changes| *changes += 1);
            }
        });
        Self { messages, transfers, changes, task: task.abort_handle() }
    }

    /// Everything so far is about to be looked at.
    pub(super) fn see(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Wait for something new; false when the deadline came first.
    pub(super) async fn changed(&mut self, deadline: Instant) -> bool {
        matches!(tokio::time::timeout_at(deadline, self.changes.changed()).await, Ok(Ok(())))
    }

    /// The oldest message that matches and was not taken before.
    pub(super) fn take_message(&self, pattern: &Regex) -> Option<Stamped> {
        let mut messages = lock(&self.messages);
        let fits = |stamped: &Stamped| matches!(&*stamped.event, Event::Message { text, .. } if pattern.is_match(text));
        let place = messages.iter().position(fits)?;
        messages.remove(place)
    }

    /// The oldest end of a transfer that was not taken before.
    pub(super) fn take_transfer(&self) -> Option<Stamped> {
        lock(&self.transfers).pop_front()
    }

    /// The end of that transfer was waited for by its id.
    pub(super) fn forget_transfer(&self, wanted: &str) {
        lock(&self.transfers).retain(|stamped| !matches!(&*stamped.event, Event::Transfer { id, .. } if id == wanted));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(messages: &Mutex<VecDeque<Stamped>>) -> MutexGuard<'_, VecDeque<Stamped>> {
    messages.lock().unwrap_or_else(PoisonError::into_inner)
}
