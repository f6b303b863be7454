//! Broadcasts: what was said to everybody, in the history, and the signed bytes for neighbours that were away.

use std::sync::Arc;

use libp2p::PeerId;
use rusqlite::params;

use super::thread::Db;
use super::{MessageId, Storage, StorageError, digest, to_sql};

/// A broadcast as it goes to the disk. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BroadcastRow {
    /// What people call it.
    pub(crate) id: MessageId,
    /// Who wrote it.
    pub(crate) author: PeerId,
    /// This node did.
    pub(crate) own: bool,
    /// The author's boot count when it did.
    pub(crate) epoch: u64,
    /// Its number in that epoch.
    pub(crate) sequence: u64,
    /// The author's nickname.
    pub(crate) name: String,
    /// The author's team label.
    pub(crate) team: String,
    /// The text, unchanged; `None` for numbered gossip, which is no part of the history.
    pub(crate) text: Option<String>,
    /// The author's clock.
    pub(crate) sent_at_ms: u64,
    /// This node's clock.
    pub(crate) received_at_ms: u64,
    /// The signed bytes.
    pub(crate) envelope: Arc<[u8]>,
}

impl<D: Send + 'static> Storage<D> {
    /// Keep a broadcast. Gives whether it is new: one that was stored before is not to be shown again.
    pub(crate) fn store_broadcast(
        &self,
        row: BroadcastRow,
        then: impl FnOnce(Result<bool, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.store_broadcast(&row), then);
    }

    /// Drop the signed bytes of all but the `keep` broadcasts that came last, and of those that came before `oldest_ms`.
    /// The history keeps the texts.
    pub(crate) fn prune_broadcasts(
        &self,
        keep: usize,
        oldest_ms: u64,
        then: impl FnOnce(Result<(), StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.prune_broadcasts(keep, oldest_ms), then);
    }
}

impl Db {
    fn store_broadcast(&mut self, row: &BroadcastRow) -> Result<bool, StorageError> {
        let author = row.author.to_base58();
        let sql = "INSERT INTO broadcasts (author, epoch, sequence, envelope, received_at) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (author, epoch, sequence) DO NOTHING";
        let kept = self.conn.prepare_cached(sql)?.execute(params![
            author,
            to_sql(row.epoch),
            to_sql(row.sequence),
            &row.envelope[..],
            to_sql(row.received_at_ms),
        ])?;
        let Some(text) = &row.text else { return Ok(kept == 1) };
        // The signed bytes are pruned after a while, the history is not: what a neighbour still has from before is no news.
        let sql = "INSERT INTO messages
            (id, direction, kind, peer, author, recipient, name, team, text, sent_at, received_at, seq, state, expires_at,
            digest)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
            ON CONFLICT (id, peer, direction) DO NOTHING";
        let (direction, state) = if row.own { ("out", "sent") } else { ("in", "received") };
        let message = digest::Message {
            id: &row.id,
            direction,
            kind: "broadcast",
            peer: &author,
            author: &author,
            recipient: "all",
            name: &row.name,
            team: &row.team,
            text,
            sent_at: to_sql(row.sent_at_ms),
            received_at: to_sql(row.received_at_ms),
            seq: to_sql(row.sequence),
            expires_at: 0,
        };
        let new = self.conn.prepare_cached(sql)?.execute(params![
            message.id,
            message.direction,
            message.kind,
            message.peer,
            message.author,
            message.recipient,
            message.name,
            message.team,
            message.text,
            message.sent_at,
            message.received_at,
            message.seq,
            state,
            message.expires_at,
            message.digest(),
        ])?;
        Ok(new == 1)
    }

    fn prune_broadcasts(&mut self, keep: usize, oldest_ms: u64) -> Result<(), StorageError> {
        // Many may have come in one millisecond, so the number is counted by row.
        let sql = "DELETE FROM broadcasts WHERE received_at < ?1 OR rowid IN
            (SELECT rowid FROM broadcasts ORDER BY received_at DESC, rowid DESC LIMIT -1 OFFSET ?2)";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        self.conn.prepare_cached(sql)?.execute(params![to_sql(oldest_ms), keep])?;
        Ok(())
    }

    /// The signed bytes that are kept, and whether no broadcast was ever stored here.
    pub(super) fn broadcasts(&self) -> Result<(Vec<Vec<u8>>, bool), StorageError> {
        let mut query = self.conn.prepare("SELECT envelope FROM broadcasts ORDER BY author, epoch, sequence")?;
        let rows = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM messages WHERE kind = 'broadcast')";
        let none: bool = self.conn.query_row(sql, [], |row| row.get(0))?;
        let newcomer = none && rows.is_empty();
        Ok((rows, newcomer))
    }
}
