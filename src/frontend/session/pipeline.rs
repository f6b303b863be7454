//! Replies in order while the next messages are handed over already.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{Answered, WATCHED};
use crate::api::{ApiError, Reply};
use crate::frontend::output::{Output, ReplyLine};
use crate::handle::{Begun, Handle};

/// Messages of a pipelined session that are handed over and not answered; then the next line waits.
const IN_FLIGHT: usize = 256;

/// Replies that are waited for in order while further messages are handed over.
pub(super) struct Pipeline {
    steps: mpsc::Sender<Step>,
}

enum Step {
    Reply(PendingReply),
    /// Give the ids of what began since the last one.
    Settle(oneshot::Sender<Vec<String>>),
}

/// A reply that was not given yet; the fields are those of [`ReplyLine`].
pub(super) struct PendingReply {
    pub(super) line: u64,
    pub(super) id: Option<Value>,
    pub(super) command: String,
    pub(super) begun: Result<Begun, ApiError>,
}

impl Pipeline {
    pub(super) fn start(handle: Handle, output: Output) -> Self {
        let (steps, mut queue) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            while let Some(step) = queue.recv().await {
                match step {
                    Step::Reply(PendingReply { line, id, command, begun }) => {
                        let result = match begun {
                            Ok(begun) => begun.result().await,
                            Err(error) => Err(error),
                        };
                        if let Ok(Reply::Started { id }) = &result
                            && ids.len() < WATCHED
                        {
                            ids.push(id.clone());
                        }
                        let after = handle.emitted();
                        output.reply(ReplyLine { line, id, after, command, result: result.map(Answered::Reply) }).await;
                    }
                    Step::Settle(settled) => {
                        let _ = settled.send(std::mem::take(&mut ids));
                    }
                }
            }
        });
        Self { steps }
    }

    /// Hand over a reply to wait for; waits itself while too many are.
    pub(super) async fn reply(&self, reply: PendingReply) {
        let _ = self.steps.send(Step::Reply(reply)).await;
    }

    /// Wait for every reply so far; the ids of what began since the last time.
    pub(super) async fn settle(&self) -> Vec<String> {
        let (settled, ids) = oneshot::channel();
        let _ = self.steps.send(Step::Settle(settled)).await;
        ids.await.unwrap_or_default()
    }
}
