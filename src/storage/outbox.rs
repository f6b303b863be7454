//! Own messages on their way: numbered, signed and stored together, and given up in time.

use libp2p::PeerId;
use rusqlite::{OptionalExtension, params};

use super::thread::Db;
use super::{MessageId, Storage, StorageError, digest, from_sql, peers, timestamp, to_sql};
use crate::api::{DAMAGED, DeliveryState};

/// How many messages may wait in total.
pub(super) const WAITING: u64 = 100_000;

/// How many messages may wait for one peer.
pub(super) const WAITING_PER_PEER: u64 = 10_000;

/// How many messages [`Storage::outbox`] gives at most, the oldest.
pub(super) const LISTED: usize = 1_000;

/// How many messages one [`Storage::expire`] gives up at most, so that it does not hold up the others.
pub(super) const EXPIRED_AT_ONCE: usize = 1_000;

/// Signs a message once its number is known, and gives the bytes that go over the wire.
pub(crate) type Sign = Box<dyn FnOnce(u64) -> Result<Vec<u8>, String> + Send>;

/// A message to be sent. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewMessage {
    /// Its name, never used before.
    pub(crate) id: MessageId,
    /// The receiver.
    pub(crate) to: PeerId,
    /// This node.
    pub(crate) from: PeerId,
    /// Own nickname.
    pub(crate) name: String,
    /// Own team label.
    pub(crate) team: String,
    /// The text, unchanged.
    pub(crate) text: String,
    /// When it was written.
    pub(crate) sent_at_ms: u64,
    /// When to give up.
    pub(crate) expires_at_ms: u64,
}

/// A message that is in the durable outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    /// The message.
    pub(crate) id: MessageId,
    /// Its number: one more than the last one for that receiver.
    pub(crate) seq: u64,
    /// The signed bytes.
    pub(crate) envelope: Vec<u8>,
}

/// The next messages for one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// By rising number.
    pub(crate) messages: Vec<Outgoing>,
    /// Whether others wait behind them.
    pub(crate) more: bool,
    /// Messages on the way there that are not what was written, and are not to be sent: [`Storage::settle`] gives them
    /// up.
    pub(crate) damaged: Vec<MessageId>,
}

/// A message as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// The message.
    pub(crate) id: MessageId,
    /// Its number.
    pub(crate) seq: u64,
    /// The signed bytes.
    pub(crate) envelope: Vec<u8>,
    /// When to give up, in milliseconds since the Unix epoch.
    pub(crate) expires_at_ms: u64,
}

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// The receiver has it on its disk.
    Delivered,
    /// Given up, and why.
    Failed(String),
}

/// One row of the outbox as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The receiver.
    pub(crate) to: PeerId,
    /// The message.
    pub(crate) id: MessageId,
    /// Its text; empty when that is damaged.
    pub(crate) text: String,
    /// When it was written.
    pub(crate) sent_at: jiff::Timestamp,
    /// When it will be given up.
    pub(crate) expires_at: jiff::Timestamp,
    /// [`DAMAGED`] when what is shown is not what was written.
    pub(crate) reason: Option<String>,
}

/// How far an own message has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredState {
    /// The receiver.
    pub(crate) to: PeerId,
    /// Never `Sent`, which only the event loop knows, nor `Received`.
    pub(crate) state: DeliveryState,
    /// Why it failed.
    pub(crate) reason: Option<String>,
}

impl<D: Send + 'static> Storage<D> {
    /// Number, sign and store a message, in history and outbox together. `sign` runs on the storage thread.
    ///
    /// The number is one more than the last one ever used for that receiver; it goes on over restarts, and jumps ahead
    /// when the database was lost. A message that fails uses up no number. Fails with [`StorageError::OutboxFull`] at
    /// 100,000 waiting messages, with [`StorageError::PeerOutboxFull`] at 10,000 for one peer.
    pub(crate) fn queue_message(
        &self,
        message: NewMessage,
        sign: Sign,
        then: impl FnOnce(Result<Queued, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.queue_message(&message, sign), then);
    }

    /// The messages that wait for `peer` with a number above `after_seq`, by rising number: at most `limit` (at least
    /// one) and at most `max_bytes` of envelopes, but one in any case if there is any. Those whose envelope the disk has
    /// damaged are left out and named apart.
    pub(crate) fn window(
        &self,
        peer: PeerId,
        after_seq: u64,
        limit: usize,
        max_bytes: usize,
        then: impl FnOnce(Result<Window, StorageError>) -> D + Send + 'static,
    ) {
        self.read(move |db| db.window(peer, after_seq, limit, max_bytes), then);
    }

    /// End messages to `peer`. Gives those that were waiting until now, in the order of the list; the others are left
    /// alone.
    pub(crate) fn settle(
        &self,
        peer: PeerId,
        ends: Vec<(MessageId, Settle)>,
        then: impl FnOnce(Result<Vec<MessageId>, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.settle(peer, ends), then);
    }

    /// Give up what expires at or before `now_ms`, the longest expired first. Those messages are `failed` with the
    /// reason `expired` afterwards. At most 1,000 at once: so many in the answer mean that there may be others.
    pub(crate) fn expire(
        &self,
        now_ms: u64,
        then: impl FnOnce(Result<Vec<(PeerId, MessageId)>, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.expire(now_ms), then);
    }

    /// What waits, the oldest first, at most 1,000 messages.
    pub(crate) fn outbox(&self, then: impl FnOnce(Result<Vec<Waiting>, StorageError>) -> D + Send + 'static) {
        self.read(|db| db.outbox(), then);
    }

    /// How far an own message has come; `None` when there is none of that id.
    pub(crate) fn message_state(
        &self,
        id: MessageId,
        then: impl FnOnce(Result<Option<StoredState>, StorageError>) -> D + Send + 'static,
    ) {
        self.read(move |db| db.message_state(&id), then);
    }
}

impl Db {
    fn queue_message(&mut self, message: &NewMessage, sign: Sign) -> Result<Queued, StorageError> {
        let waiting = self.waiting()?;
        if waiting.total >= WAITING {
            return Err(StorageError::OutboxFull(WAITING));
        }
        if waiting.by_peer.get(&message.to).is_some_and(|count| *count >= WAITING_PER_PEER) {
            return Err(StorageError::PeerOutboxFull(WAITING_PER_PEER));
        }
        let to = message.to.to_base58();
        let expires_at = to_sql(message.expires_at_ms);
        let next = "INSERT INTO sequences (peer, last)
            VALUES (?1, 1 + coalesce((SELECT value FROM meta WHERE key = 'sequence_floor'), 0))
            ON CONFLICT (peer) DO UPDATE SET last = last + 1 RETURNING last";
        let seq: i64 = self.conn.prepare_cached(next)?.query_row([&to], |row| row.get(0))?;
        let envelope = sign(from_sql(seq)).map_err(StorageError::Sign)?;
        let history = "INSERT INTO messages
            (id, direction, kind, peer, author, recipient, name, team, text, sent_at, received_at, seq, state, expires_at,
            digest)
            VALUES (?1, 'out', 'direct', ?2, ?3, ?2, ?4, ?5, ?6, ?7, ?7, ?8, 'queued', ?9, ?10)";
        let (from, sent_at) = (message.from.to_base58(), to_sql(message.sent_at_ms));
        let digested = digest::Message {
            id: &message.id,
            direction: "out",
            kind: "direct",
            peer: &to,
            author: &from,
            recipient: &to,
            name: &message.name,
            team: &message.team,
            text: &message.text,
            sent_at,
            received_at: sent_at,
            seq,
            expires_at,
        };
        self.conn.prepare_cached(history)?.execute(params![
            message.id,
            to,
            from,
            message.name,
            message.team,
            message.text,
            sent_at,
            seq,
            expires_at,
            digested.digest(),
        ])?;
        let row = self.conn.last_insert_rowid();
        let outbox =
            "INSERT INTO outbox (message, peer, seq, envelope, expires_at, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let digest = digest::envelope(&message.id, &to, seq, &envelope, expires_at);
        self.conn.prepare_cached(outbox)?.execute(params![row, to, seq, envelope, expires_at, digest])?;
        let waiting = self.waiting()?;
        waiting.total += 1;
        *waiting.by_peer.entry(message.to).or_default() += 1;
        Ok(Queued { id: message.id, seq: from_sql(seq), envelope })
    }

    fn window(&self, peer: PeerId, after: u64, limit: usize, max_bytes: usize) -> Result<Window, StorageError> {
        let sql = "SELECT m.id, o.peer, o.seq, o.envelope, o.expires_at, o.digest
            FROM outbox AS o JOIN messages AS m ON m.rowid = o.message
            WHERE o.peer = ?1 AND o.seq > ?2 ORDER BY o.seq";
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query(params![peer.to_base58(), to_sql(after)])?;
        let mut window = Window::default();
        let mut bytes = 0usize;
        while let Some(row) = rows.next()? {
            if !digest::is_whole(row, 5)? {
                window.damaged.push(digest::id(row, 0)?);
                continue;
            }
            let envelope: Vec<u8> = row.get(3)?;
            bytes = bytes.saturating_add(envelope.len());
            if !window.messages.is_empty() && (window.messages.len() >= limit || bytes > max_bytes) {
                window.more = true;
                break;
            }
            window.messages.push(Outgoing {
                id: row.get(0)?,
                seq: from_sql(row.get(2)?),
                envelope,
                expires_at_ms: from_sql(row.get(4)?),
            });
        }
        Ok(window)
    }

    fn settle(&mut self, peer: PeerId, ends: Vec<(MessageId, Settle)>) -> Result<Vec<MessageId>, StorageError> {
        let name = peer.to_base58();
        let mut changed = Vec::with_capacity(ends.len());
        for (id, end) in ends {
            let find = "SELECT rowid FROM messages WHERE id = ?1 AND peer = ?2 AND direction = 'out'";
            let row: Option<i64> =
                self.conn.prepare_cached(find)?.query_row(params![id, name], |row| row.get(0)).optional()?;
            let (state, reason) = match end {
                Settle::Delivered => ("delivered", None),
                Settle::Failed(reason) => ("failed", Some(reason)),
            };
            if let Some(row) = row
                && self.end(Some(peer), row, state, reason.as_deref())?
            {
                changed.push(id);
            }
        }
        Ok(changed)
    }

    fn expire(&mut self, now_ms: u64) -> Result<Vec<(PeerId, MessageId)>, StorageError> {
        let sql = "SELECT o.message, o.peer, m.id FROM outbox AS o JOIN messages AS m ON m.rowid = o.message
            WHERE o.expires_at <= ?1 ORDER BY o.expires_at, o.message LIMIT ?2";
        let rows = {
            let mut query = self.conn.prepare_cached(sql)?;
            let rows = query.query_map(params![to_sql(now_ms), EXPIRED_AT_ONCE as i64], |row| {
                Ok((row.get::<_, i64>(0)?, digest::text(row, 1)?, digest::id(row, 2)?))
            })?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        let mut expired = Vec::with_capacity(rows.len());
        for (row, peer, id) in rows {
            // A receiver that the disk has garbled: nobody can be told, but the row must not stay for ever.
            let peer = peers::parse(&peer);
            if self.end(peer, row, "failed", Some("expired"))?
                && let Some(peer) = peer
            {
                expired.push((peer, id));
            }
        }
        Ok(expired)
    }

    /// Take one message out of the outbox. False when it was not there.
    fn end(&mut self, peer: Option<PeerId>, row: i64, state: &str, reason: Option<&str>) -> Result<bool, StorageError> {
        if self.conn.prepare_cached("DELETE FROM outbox WHERE message = ?1")?.execute([row])? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE messages SET state = ?2, reason = ?3 WHERE rowid = ?1";
        self.conn.prepare_cached(sql)?.execute(params![row, state, reason])?;
        // Counts that are not known were counted after the row had gone.
        if let Some(waiting) = &mut self.waiting {
            waiting.total = waiting.total.saturating_sub(1);
            if let Some(peer) = peer
                && let Some(count) = waiting.by_peer.get_mut(&peer)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    waiting.by_peer.remove(&peer);
                }
            }
        }
        Ok(true)
    }

    fn outbox(&self) -> Result<Vec<Waiting>, StorageError> {
        let sql = format!(
            "SELECT {}, m.digest, o.peer, o.expires_at
            FROM outbox AS o JOIN messages AS m ON m.rowid = o.message ORDER BY o.message LIMIT ?1",
            digest::MESSAGE_COLUMNS
        );
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query([LISTED as i64])?;
        let mut waiting = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(to) = peers::parse(&digest::text(row, 14)?) else { continue };
            let is_whole = digest::is_whole(row, digest::MESSAGE_COUNT)?;
            waiting.push(Waiting {
                to,
                id: digest::id(row, 0)?,
                text: if is_whole { digest::text(row, 8)? } else { String::new() },
                sent_at: timestamp(digest::number(row, 9)?),
                expires_at: timestamp(digest::number(row, 15)?),
                reason: (!is_whole).then(|| DAMAGED.to_owned()),
            });
        }
        Ok(waiting)
    }

    fn message_state(&self, id: &MessageId) -> Result<Option<StoredState>, StorageError> {
        let sql = "SELECT peer, state, reason FROM messages WHERE id = ?1 AND direction = 'out'";
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query(params![id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let Some(to) = peers::parse(&digest::text(row, 0)?) else { return Ok(None) };
        let reason = Some(digest::text(row, 2)?).filter(|reason| !reason.is_empty());
        Ok(Some(StoredState { to, state: state(&digest::text(row, 1)?), reason }))
    }
}

/// A delivery state as the database spells it; its CHECK allows no other.
pub(super) fn state(text: &str) -> DeliveryState {
    match text {
        "queued" => DeliveryState::Queued,
        "sent" => DeliveryState::Sent,
        "delivered" => DeliveryState::Delivered,
        "failed" => DeliveryState::Failed,
        _ => DeliveryState::Received,
    }
}
