//! Digests of rows, so that a bit that flipped on the disk is said instead of being served as good.
//!
//! SQLite checks how its file hangs together, not what stands in a cell. So each message and each waiting envelope
//! carries the first 16 bytes of SHA-256 over its columns that never change, and every read that serves them checks it.
//! This finds accidents; whoever can write the file can write a digest too.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};

use super::MessageId;

/// How many bytes of SHA-256 are kept.
const BYTES: usize = 16;

/// The columns of `messages` that never change, as [`Message::digest`] and queries take them.
pub(super) const MESSAGE_COLUMNS: &str = "m.id, m.direction, m.kind, m.peer, m.author, m.recipient, m.name, m.team, \
     m.text, m.sent_at, m.received_at, m.seq, m.expires_at";

/// How many those are.
pub(super) const MESSAGE_COUNT: usize = 13;

/// A row of `messages`, without what changes later.
pub(super) struct Message<'a> {
    pub(super) id: &'a MessageId,
    pub(super) direction: &'a str,
    pub(super) kind: &'a str,
    pub(super) peer: &'a str,
    pub(super) author: &'a str,
    pub(super) recipient: &'a str,
    pub(super) name: &'a str,
    pub(super) team: &'a str,
    pub(super) text: &'a str,
    pub(super) sent_at: i64,
    pub(super) received_at: i64,
    pub(super) seq: i64,
    pub(super) expires_at: i64,
}

impl Message<'_> {
    pub(super) fn digest(&self) -> [u8; BYTES] {
        let values: [ValueRef<'_>; MESSAGE_COUNT] = [
            ValueRef::Blob(self.id),
            self.direction.into(),
            self.kind.into(),
            self.peer.into(),
            self.author.into(),
            self.recipient.into(),
            self.name.into(),
            self.team.into(),
            self.text.into(),
            ValueRef::Integer(self.sent_at),
            ValueRef::Integer(self.received_at),
            ValueRef::Integer(self.seq),
            ValueRef::Integer(self.expires_at),
        ];
        of(values)
    }
}

/// The digest of a row of `outbox`, in the order in which [`is_whole`] reads the columns.
pub(super) fn envelope(id: &MessageId, peer: &str, seq: i64, envelope: &[u8], expires_at: i64) -> [u8; BYTES] {
    of([
        ValueRef::Blob(id),
        peer.into(),
        ValueRef::Integer(seq),
        ValueRef::Blob(envelope),
        ValueRef::Integer(expires_at),
    ])
}

/// Whether the first `columns` columns of a row are those that the digest in the column after them was made of.
pub(super) fn is_whole(row: &Row<'_>, columns: usize) -> rusqlite::Result<bool> {
    let values = (0..columns).map(|column| row.get_ref(column)).collect::<Result<Vec<_>, _>>()?;
    Ok(bytes(row, columns)? == of(values))
}

/// Each value is a byte for its type, its length in eight bytes, and its bytes; numbers are eight bytes and
/// little-endian. So no two lists of values are encoded alike.
fn of<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> [u8; BYTES] {
    // One buffer and one call: many small updates cost more than the copy.
    let mut encoded = Vec::with_capacity(1024);
    let mut sized = |kind: u8, content: &[u8]| {
        encoded.push(kind);
        encoded.extend_from_slice(&(content.len() as u64).to_le_bytes());
        encoded.extend_from_slice(content);
    };
    for value in values {
        match value {
            ValueRef::Null => sized(b'n', &[]),
            ValueRef::Integer(number) => sized(b'i', &number.to_le_bytes()),
            ValueRef::Real(number) => sized(b'r', &number.to_le_bytes()),
            ValueRef::Text(text) => sized(b't', text),
            ValueRef::Blob(blob) => sized(b'b', blob),
        }
    }
    let mut kept = [0; BYTES];
    kept.copy_from_slice(&Sha256::digest(&encoded)[..BYTES]);
    kept
}

/// The bytes of a text or a blob; of anything else none. One damaged row must not fail a query for all others, so
/// nothing here insists on a type or on UTF-8.
fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    })
}

/// A text, in which `\u{fffd}` stands for what is no UTF-8.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    bytes(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// How long a text is, in bytes.
pub(super) fn text_len(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    bytes(row, column).map(<[u8]>::len)
}

/// An id; zeros in place of anything else.
pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<MessageId> {
    bytes(row, column).map(|bytes| bytes.try_into().unwrap_or_default())
}

/// An integer; zero in place of anything else.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(row.get_ref(column)?.as_i64().unwrap_or_default())
}
