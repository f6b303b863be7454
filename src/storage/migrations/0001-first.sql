-- The first schema. Times are milliseconds since the Unix epoch, peer ids are base58 text, flags are 0 or 1.

-- Single numbers: `boot` (how often this node has started), `sequence_floor` (see `sequences`).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Everybody known. `name` is the nickname a peer was first met with; `addresses` holds one multiaddr a line.
CREATE TABLE peers (
    peer_id   TEXT PRIMARY KEY,
    card      BLOB,
    name      TEXT,
    boot      INTEGER NOT NULL DEFAULT 0,
    addresses TEXT NOT NULL DEFAULT '',
    first_met INTEGER NOT NULL DEFAULT 0,
    last_seen INTEGER NOT NULL DEFAULT 0,
    trusted   INTEGER NOT NULL DEFAULT 0 CHECK (trusted IN (0, 1)),
    blocked   INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1))
) STRICT;
CREATE INDEX peers_by_last_seen ON peers (last_seen);

-- What is thought of others: bytes of the reputation crate.
CREATE TABLE standings (
    peer_id  TEXT PRIMARY KEY,
    standing BLOB NOT NULL,
    saved_at INTEGER NOT NULL
) STRICT;
CREATE INDEX standings_by_age ON standings (saved_at);

-- The identity learnt from a seed that was configured without one.
CREATE TABLE seed_pins (
    address TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The last number given to a message for a peer. Never goes back, whatever is deleted elsewhere.
CREATE TABLE sequences (
    peer TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The history. `peer` is the other one, whoever wrote the message. `seq` is the author's number.
CREATE TABLE messages (
    rowid       INTEGER PRIMARY KEY,
    id          BLOB NOT NULL CHECK (length(id) = 16),
    direction   TEXT NOT NULL CHECK (direction IN ('in', 'out')),
    kind        TEXT NOT NULL CHECK (kind IN ('direct', 'broadcast')),
    peer        TEXT NOT NULL,
    author      TEXT NOT NULL,
    recipient   TEXT NOT NULL,
    name        TEXT NOT NULL,
    team        TEXT NOT NULL,
    text        TEXT NOT NULL,
    sent_at     INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'delivered', 'failed', 'received')),
    reason      TEXT,
    expires_at  INTEGER NOT NULL,
    -- 16 bytes of SHA-256 over every column but `rowid`, `state` and `reason`; see digest.rs.
    digest      BLOB NOT NULL CHECK (length(digest) = 16),
    -- The id leads, so that a message is found by its id alone.
    UNIQUE (id, peer, direction)
) STRICT;
CREATE INDEX messages_by_peer ON messages (peer);

-- Own messages that have no receipt yet, with the exact bytes that were signed.
CREATE TABLE outbox (
    message    INTEGER PRIMARY KEY REFERENCES messages (rowid) ON DELETE CASCADE,
    peer       TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    envelope   BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    -- 16 bytes of SHA-256 over the message's id and the columns above but `message`.
    digest     BLOB NOT NULL CHECK (length(digest) = 16)
) STRICT;
CREATE UNIQUE INDEX outbox_by_peer ON outbox (peer, seq);
CREATE INDEX outbox_by_expiry ON outbox (expires_at);

-- The signed bytes of broadcasts, for neighbours that were away. Pruned after a while; the texts stay in the history.
CREATE TABLE broadcasts (
    author      TEXT NOT NULL,
    epoch       INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    envelope    BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (author, epoch, sequence)
) STRICT;
CREATE INDEX broadcasts_by_age ON broadcasts (received_at);

-- The search index holds no copy of the text. `columnsize = 0`: nothing ranks by relevance.
CREATE VIRTUAL TABLE messages_fts USING fts5 (
    text,
    content = 'messages',
    content_rowid = 'rowid',
    columnsize = 0,
    tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER messages_fts_insert AFTER INSERT ON messages BEGIN
    INSERT INTO messages_fts (rowid, text) VALUES (new.rowid, new.text);
END;
CREATE TRIGGER messages_fts_delete AFTER DELETE ON messages BEGIN
    INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', old.rowid, old.text);
END;
CREATE TRIGGER messages_fts_update AFTER UPDATE OF text ON messages BEGIN
    INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', old.rowid, old.text);
    INSERT INTO messages_fts (rowid, text) VALUES (new.rowid, new.text);
END;
