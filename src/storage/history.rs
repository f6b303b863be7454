//! What was said: incoming messages, each stored once, and looking things up.

use libp2p::PeerId;
use rusqlite::{ToSql, params, params_from_iter};

use super::thread::Db;
use super::{MessageId, Storage, StorageError, digest, from_sql, hex, outbox, timestamp, to_sql};
use crate::api::{DAMAGED, HistoryRow, MessageKind};

/// How many rows one answer holds at most.
pub(super) const ROWS: usize = 100_000;

/// How many bytes of text one answer holds at most; the latest messages that fit are given, one in any case.
pub(super) const ROWS_BYTES: usize = 64 * 1024 * 1024;

/// How many words a search may have.
pub(super) const SEARCH_WORDS: usize = 32;

/// A message as it arrived. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// The author's name for it.
    pub(crate) id: MessageId,
    /// The author.
    pub(crate) from: PeerId,
    /// This node.
    pub(crate) to: PeerId,
    /// The author's nickname.
    pub(crate) name: String,
    /// The author's team label.
    pub(crate) team: String,
    /// The text, unchanged.
    pub(crate) text: String,
    /// The author's clock.
    pub(crate) sent_at_ms: u64,
    /// The author's number for it.
    pub(crate) seq: u64,
    /// This node's clock.
    pub(crate) received_at_ms: u64,
    /// When the author gives up.
    pub(crate) expires_at_ms: u64,
}

/// Which part of the history is wanted; see [`crate::api::HistoryQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryFilter {
    /// Only messages to or from this peer.
    pub(crate) peer: Option<PeerId>,
    /// At most so many, the latest.
    pub(crate) limit: usize,
    /// Only messages that hold all of these words, at most 32.
    pub(crate) search: Option<String>,
    /// Only messages that were received here, or written here, at or after this time.
    pub(crate) since: Option<jiff::Timestamp>,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that wait for a receipt.
    pub(crate) outbox: u64,
    /// Messages in the history.
    pub(crate) history: u64,
}

impl<D: Send + 'static> Storage<D> {
    /// How many bytes the file system of the database has left for this user; `None` when it does not say.
    pub(crate) fn free_room(&self, then: impl FnOnce(Result<Option<u64>, StorageError>) -> D + Send + 'static) {
        self.read(
            |db| {
                let told = db.conn.path().and_then(|path| nix::sys::statvfs::statvfs(path).ok());
                Ok(told.map(|told| told.blocks_available().saturating_mul(told.fragment_size())))
            },
            then,
        );
    }

    /// Store what `peer` handed over. Gives for each message, in order, whether it is new: one that was stored before
    /// is to be acknowledged again, but not to be shown again.
    pub(crate) fn receive(
        &self,
        peer: PeerId,
        messages: Vec<Incoming>,
        then: impl FnOnce(Result<Vec<(MessageId, bool)>, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.receive(peer, &messages), then);
    }

    /// The latest matching messages, oldest first: at most `limit`, 100,000 rows and 64 MiB of text.
    ///
    /// A row that is not what was written comes with an empty text and the reason [`DAMAGED`].
    ///
    /// A word matches whole words without regard to case and accents; one that the index cannot hold (signs only, or a
    /// script without spaces between words) matches anywhere. A search without any word matches everything.
    pub(crate) fn history(
        &self,
        filter: HistoryFilter,
        then: impl FnOnce(Result<Vec<HistoryRow>, StorageError>) -> D + Send + 'static,
    ) {
        self.read(move |db| db.history(&filter), then);
    }

    /// How much is stored.
    pub(crate) fn counts(&self, then: impl FnOnce(Result<Counts, StorageError>) -> D + Send + 'static) {
        self.read(Db::counts, then);
    }
}

impl Db {
    fn receive(&mut self, peer: PeerId, messages: &[Incoming]) -> Result<Vec<(MessageId, bool)>, StorageError> {
        let peer = peer.to_base58();
        let sql = "INSERT INTO messages
            (id, direction, kind, peer, author, recipient, name, team, text, sent_at, received_at, seq, state, expires_at,
            digest)
            VALUES (?1, 'in', 'direct', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'received', ?11, ?12)
            ON CONFLICT (id, peer, direction) DO NOTHING";
        let mut insert = self.conn.prepare_cached(sql)?;
        let mut stored = Vec::with_capacity(messages.len());
        for message in messages {
            let (author, recipient) = (message.from.to_base58(), message.to.to_base58());
            let row = digest::Message {
                id: &message.id,
                direction: "in",
                kind: "direct",
                peer: &peer,
                author: &author,
                recipient: &recipient,
                name: &message.name,
                team: &message.team,
                text: &message.text,
                sent_at: to_sql(message.sent_at_ms),
                received_at: to_sql(message.received_at_ms),
                seq: to_sql(message.seq),
                expires_at: to_sql(message.expires_at_ms),
            };
            let new = insert.execute(params![
                row.id,
                row.peer,
                row.author,
                row.recipient,
                row.name,
                row.team,
                row.text,
                row.sent_at,
                row.received_at,
                row.seq,
                row.expires_at,
                row.digest(),
            ])?;
            stored.push((message.id, new == 1));
        }
        Ok(stored)
    }

    pub(super) fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryRow>, StorageError> {
        let search = Search::parse(filter.search.as_deref().unwrap_or_default())?;
        let peer = filter.peer.map(|peer| peer.to_base58());
        let since = filter.since.map(|since| since.as_millisecond());
        let limit = filter.limit.min(ROWS) as i64;

        let mut conditions = Vec::new();
        let mut values: Vec<&dyn ToSql> = Vec::new();
        let mut given = |condition: &str, value| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        };
        let mut from = "messages AS m";
        if !search.indexed.is_empty() {
            from = "messages_fts AS f CROSS JOIN messages AS m ON m.rowid = f.rowid";
            given("messages_fts MATCH ?", &search.indexed);
        }
        for word in &search.anywhere {
            given("instr(m.text, ?) > 0", word);
        }
        if let Some(peer) = &peer {
            given("m.peer = ?", peer);
        }
        if let Some(since) = &since {
            given("m.received_at >= ?", since);
        }
        let order = if search.indexed.is_empty() { "m.rowid" } else { "f.rowid" };
        let condition = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        values.push(&limit);
        let sql = format!(
            "SELECT {}, m.digest, m.state, m.reason FROM {from} WHERE {condition} ORDER BY {order} DESC LIMIT ?{}",
            digest::MESSAGE_COLUMNS,
            values.len()
        );

        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(values))?;
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            bytes += digest::text_len(row, 8)?;
            if bytes > ROWS_BYTES && !found.is_empty() {
                break;
            }
            let is_whole = digest::is_whole(row, digest::MESSAGE_COUNT)?;
            found.push(HistoryRow {
                id: hex(&digest::id(row, 0)?),
                kind: if digest::text(row, 2)? == "broadcast" { MessageKind::Broadcast } else { MessageKind::Direct },
                from: digest::text(row, 4)?,
                to: digest::text(row, 5)?,
                name: digest::text(row, 6)?,
                team: digest::text(row, 7)?,
                text: if is_whole { digest::text(row, 8)? } else { String::new() },
                sent_at: timestamp(digest::number(row, 9)?),
                received_at: timestamp(digest::number(row, 10)?),
                seq: from_sql(digest::number(row, 11)?),
                state: outbox::state(&digest::text(row, 14)?),
                reason: if is_whole {
                    Some(digest::text(row, 15)?).filter(|reason| !reason.is_empty())
                } else {
                    Some(DAMAGED.to_owned())
                },
            });
        }
        found.reverse();
        Ok(found)
    }

    pub(super) fn counts(&mut self) -> Result<Counts, StorageError> {
        let outbox = self.waiting()?.total;
        let history =
            self.conn.prepare_cached("SELECT count(*) FROM messages")?.query_row([], |row| row.get(0).map(from_sql))?;
        Ok(Counts { outbox, history })
    }
}

/// The words of a search, by how they are looked up.
struct Search {
    /// An FTS5 expression: each word as a quoted string, all of them required. Empty when there is none.
    indexed: String,
    /// Words that are looked for in the text itself.
    anywhere: Vec<String>,
}

impl Search {
    fn parse(text: &str) -> Result<Self, StorageError> {
        // FTS5 reads its expression up to a NUL.
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '\0').filter(|w| !w.is_empty()).collect();
        if words.len() > SEARCH_WORDS {
            return Err(StorageError::Limit("search for at most 32 words at once"));
        }
        let mut search = Self { indexed: String::new(), anywhere: Vec::new() };
        for word in words {
            if is_indexed(word) {
                // Inside a quoted string only the quote itself means something (FTS5 documentation, section 3.1).
                search.indexed.push_str(&format!("\"{}\" ", word.replace('"', "\"\"")));
            } else {
                search.anywhere.push(word.to_owned());
            }
        }
        Ok(search)
    }
}

/// Whether the tokeniser `unicode61` finds in a word what a reader would call words: letters and digits, and all of
/// them of alphabets that put spaces between words.
fn is_indexed(word: &str) -> bool {
    let mut letters = word.chars().filter(|c| c.is_alphanumeric()).peekable();
    // Below Thai, and the extensions of Latin and Greek.
    letters.peek().is_some() && letters.all(|c| matches!(c, '\0'..'\u{e00}' | '\u{1e00}'..'\u{2000}'))
}
