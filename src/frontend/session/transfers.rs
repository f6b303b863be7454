//! What a session does about files: `stats` into a file, `wait transfer`, and the end.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::super::export::{self, Format};
use super::super::render::safe::safe;
use super::{Answered, LINGER, LINGER_QUEUED, Session, to_value};
use crate::api::{ApiError, Command, ErrorCode, Event, Reply, TransferInfo, TransferState};

impl Session {
    pub(super) async fn stats(&self, id: Option<String>, file: PathBuf, format: Format) -> Result<Answered, ApiError> {
        let rows = self.transfers(id).await?;
        let shown = file.display().to_string();
        let written = tokio::task::spawn_blocking(move || export::export_stats(&rows, &file, format)).await;
        let rows = written.map_err(|_| ApiError::new(ErrorCode::General, "the export was interrupted"))??;
        let text = format!("{rows} transfers written to {}", safe(&shown));
        Ok(Answered::Value { data: json!({ "file": shown, "rows": rows }), text })
    }

    /// The transfers of an id, or all.
    async fn transfers(&self, id: Option<String>) -> Result<Vec<TransferInfo>, ApiError> {
        match self.handle.execute(Command::Transfers { id }).await? {
            Reply::Transfers(rows) => Ok(rows),
            Reply::Transfer(row) => Ok(vec![*row]),
            _ => Err(ApiError::new(ErrorCode::General, "the node gave no transfers")),
        }
    }

    /// Whether a transfer is complete with every receiver; an error when it will never be. Without an id it is the next one
    /// that came to its end and was not waited for before.
    pub(super) async fn transfer_holds(&self, id: Option<&str>) -> Result<Option<Answered>, ApiError> {
        let Some(id) = id else {
            let Some(ended) = self.watch.take_transfer() else { return Ok(None) };
            let Event::Transfer { id, file, state, reason, .. } = &*ended.event else { return Ok(None) };
            if *state != TransferState::Completed {
                return Err(ended_badly(id, *state, reason.as_deref()));
            }
            return Ok(Some(Answered::Value {
                data: to_value(&*ended.event),
                text: format!("{} is complete", safe(file)),
            }));
        };
        let rows = self.transfers(Some(id.to_owned())).await?;
        let bad = rows.iter().find(|row| row.state.is_final() && row.state != TransferState::Completed);
        if let Some(row) = bad {
            return Err(ended_badly(&row.id, row.state, row.reason.as_deref()));
        }
        if rows.iter().any(|row| row.state != TransferState::Completed) {
            return Ok(None);
        }
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        self.watch.forget_transfer(&row.id);
        let text = format!("{} is complete", safe(&row.file));
        Ok(Some(Answered::Value { data: json!({ "id": row.id, "state": row.state, "hash": row.hash }), text }))
    }

    /// Wait until what this session sent has come to its end: as long as bytes move, and not for ever for receivers that
    /// are away or do not decide. True when all is complete.
    pub(super) async fn linger_transfers(&mut self, began: Instant) -> bool {
        let mut completed = true;
        while let Some(id) = self.sent.pop_front() {
            loop {
                self.watch.see();
                let rows = self.transfers(Some(id.clone())).await.unwrap_or_default();
                let patience = rows.iter().filter_map(|row| match row.state {
                    TransferState::Active => Some(Duration::MAX),
                    TransferState::Offered => Some(LINGER),
                    TransferState::Paused => Some(LINGER_QUEUED),
                    _ => None,
                });
                let Some(patience) = patience.max() else {
                    completed &= !rows.is_empty() && rows.iter().all(|row| row.state == TransferState::Completed);
                    break;
                };
                // An active transfer tells of itself; should it cease to, it is looked at again all the same.
                let until = began.checked_add(patience).unwrap_or_else(|| Instant::now() + LINGER);
                if Instant::now() >= until || !self.watch.changed(until).await && patience != Duration::MAX {
                    completed = false;
                    break;
                }
            }
        }
        completed
    }
}

fn ended_badly(id: &str, state: TransferState, reason: Option<&str>) -> ApiError {
    let code = match (state, reason) {
        (TransferState::Rejected, _) => ErrorCode::Refused,
        _ => ErrorCode::ConditionFalse,
    };
    let why = reason.map(|reason| format!(" ({})", safe(reason))).unwrap_or_default();
    ApiError::new(code, format!("the transfer {id} is {state}{why}"))
}
