//! Who is known: cards, first names, trust and blocks, and the pinned identities of seeds.

use libp2p::PeerId;
use rusqlite::{OptionalExtension, params};

use super::thread::Db;
use super::{Storage, StorageError, from_sql, to_sql};

/// How many peers are remembered. Beyond it the least recently seen go that are not trusted, not blocked, not waited for
/// by a message, and have never exchanged one with this node; if only such are left, they stay.
pub(super) const PEERS: u64 = 10_000;

/// How many addresses of one peer are kept, the first ones.
pub(super) const ADDRESSES: usize = 32;

/// How many seeds may be pinned.
const SEED_PINS: u64 = 1_000;

/// What is remembered of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPeer {
    /// Who.
    pub(crate) peer: PeerId,
    /// Its last card, the exact signed bytes.
    pub(crate) card: Option<Vec<u8>>,
    /// The nickname it was first met with. Once set it never changes.
    pub(crate) name: Option<String>,
    /// Multiaddrs, the best first. At most 32 are kept.
    pub(crate) addresses: Vec<String>,
    /// How often that node had started.
    pub(crate) boot: u64,
    /// When it was first met, in milliseconds since the Unix epoch.
    pub(crate) first_met_ms: u64,
    /// When it was last heard of directly, in milliseconds since the Unix epoch.
    pub(crate) last_seen_ms: u64,
    /// On the trust list.
    pub(crate) trusted: bool,
    /// On the block list.
    pub(crate) blocked: bool,
}

impl<D: Send + 'static> Storage<D> {
    /// Remember a peer, or what is new about it.
    ///
    /// Of a peer that is known already the first name and the first meeting stay, `boot` and `last_seen_ms` only rise,
    /// a missing card or an empty list of addresses keeps the old one, and trust and block stay as
    /// [`Storage::set_trust`] and [`Storage::set_block`] left them.
    pub(crate) fn save_peer(
        &self,
        peer: StoredPeer,
        then: impl FnOnce(Result<(), StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.save_peer(&peer), then);
    }

    /// Put a peer on the trust list or take it off, known or not.
    pub(crate) fn set_trust(
        &self,
        peer: PeerId,
        trusted: bool,
        then: impl FnOnce(Result<(), StorageError>) -> D + Send + 'static,
    ) {
        let sql = "INSERT INTO peers (peer_id, trusted) VALUES (?1, ?2)
            ON CONFLICT (peer_id) DO UPDATE SET trusted = excluded.trusted";
        self.write(move |db| db.set_flag(sql, peer, trusted), then);
    }

    /// Put a peer on the block list or take it off, known or not.
    pub(crate) fn set_block(
        &self,
        peer: PeerId,
        blocked: bool,
        then: impl FnOnce(Result<(), StorageError>) -> D + Send + 'static,
    ) {
        let sql = "INSERT INTO peers (peer_id, blocked) VALUES (?1, ?2)
            ON CONFLICT (peer_id) DO UPDATE SET blocked = excluded.blocked";
        self.write(move |db| db.set_flag(sql, peer, blocked), then);
    }

    /// Pin the identity of a seed that was configured without one, and give the identity that counts: the first pin of
    /// an address stays. At most 1,000 pins.
    pub(crate) fn pin_seed(
        &self,
        address: String,
        peer: PeerId,
        then: impl FnOnce(Result<PeerId, StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.pin_seed(&address, peer), then);
    }
}

impl Db {
    fn save_peer(&mut self, peer: &StoredPeer) -> Result<(), StorageError> {
        let known = self.knows(&peer.peer)?;
        let addresses: Vec<&str> =
            peer.addresses.iter().map(String::as_str).filter(|line| !line.is_empty() && !line.contains('\n')).collect();
        let addresses = addresses[..addresses.len().min(ADDRESSES)].join("\n");
        let sql = "INSERT INTO peers (peer_id, card, name, boot, addresses, first_met, last_seen, trusted, blocked)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
            ON CONFLICT (peer_id) DO UPDATE SET
                card = coalesce(excluded.card, card),
                name = coalesce(name, excluded.name),
                boot = max(boot, excluded.boot),
                addresses = iif(excluded.addresses = '', addresses, excluded.addresses),
                first_met = iif(first_met = 0, excluded.first_met, first_met),
                last_seen = max(last_seen, excluded.last_seen)";
        self.conn.prepare_cached(sql)?.execute(params![
            peer.peer.to_base58(),
            peer.card,
            peer.name,
            to_sql(peer.boot),
            addresses,
            to_sql(peer.first_met_ms),
            to_sql(peer.last_seen_ms),
            peer.trusted,
            peer.blocked,
        ])?;
        if known { Ok(()) } else { self.forget_surplus() }
    }

    fn set_flag(&mut self, sql: &str, peer: PeerId, flag: bool) -> Result<(), StorageError> {
        let known = self.knows(&peer)?;
        self.conn.prepare_cached(sql)?.execute(params![peer.to_base58(), flag])?;
        if known { Ok(()) } else { self.forget_surplus() }
    }

    fn pin_seed(&mut self, address: &str, peer: PeerId) -> Result<PeerId, StorageError> {
        let find = "SELECT peer_id FROM seed_pins WHERE address = ?1";
        let pinned: Option<String> = self.conn.query_row(find, [address], |row| row.get(0)).optional()?;
        if let Some(pinned) = pinned.as_deref().and_then(parse) {
            return Ok(pinned);
        }
        let pins: i64 = self.conn.query_row("SELECT count(*) FROM seed_pins", [], |row| row.get(0))?;
        if from_sql(pins) >= SEED_PINS {
            return Err(StorageError::Limit("at most 1,000 seeds without an identity can be remembered"));
        }
        let sql = "INSERT OR REPLACE INTO seed_pins (address, peer_id) VALUES (?1, ?2)";
        self.conn.execute(sql, params![address, peer.to_base58()])?;
        Ok(peer)
    }

    /// Everybody, the last seen first.
    pub(super) fn peers(&self) -> Result<Vec<StoredPeer>, StorageError> {
        let sql = "SELECT peer_id, card, name, boot, addresses, first_met, last_seen, trusted, blocked
            FROM peers ORDER BY last_seen DESC, peer_id";
        let mut query = self.conn.prepare(sql)?;
        let mut rows = query.query([])?;
        let mut peers = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(peer) = parse(&row.get::<_, String>(0)?) else { continue };
            peers.push(StoredPeer {
                peer,
                card: row.get(1)?,
                name: row.get(2)?,
                boot: from_sql(row.get(3)?),
                addresses: row.get::<_, String>(4)?.lines().map(str::to_owned).collect(),
                first_met_ms: from_sql(row.get(5)?),
                last_seen_ms: from_sql(row.get(6)?),
                trusted: row.get(7)?,
                blocked: row.get(8)?,
            });
        }
        Ok(peers)
    }

    /// The pinned seeds, by address.
    pub(super) fn seed_pins(&self) -> Result<Vec<(String, PeerId)>, StorageError> {
        let mut query = self.conn.prepare("SELECT address, peer_id FROM seed_pins ORDER BY address")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let mut pins = Vec::new();
        for row in rows {
            let (address, peer) = row?;
            pins.extend(parse(&peer).map(|peer| (address, peer)));
        }
        Ok(pins)
    }

    fn knows(&self, peer: &PeerId) -> Result<bool, StorageError> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM peers WHERE peer_id = ?1")?.exists([peer.to_base58()])?)
    }

    /// Keep the table within [`PEERS`].
    fn forget_surplus(&mut self) -> Result<(), StorageError> {
        let count: i64 = self.conn.prepare_cached("SELECT count(*) FROM peers")?.query_row([], |row| row.get(0))?;
        let surplus = from_sql(count).saturating_sub(PEERS);
        if surplus == 0 {
            return Ok(());
        }
        let sql = "DELETE FROM peers WHERE rowid IN (
                SELECT p.rowid FROM peers AS p
                WHERE p.trusted = 0 AND p.blocked = 0 AND NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.peer = p.peer_id)
                AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.peer = p.peer_id AND m.kind = 'direct')
                ORDER BY p.last_seen LIMIT ?1)";
        self.conn.prepare_cached(sql)?.execute([to_sql(surplus)])?;
        Ok(())
    }
}

/// A peer id as the database keeps it. One that cannot be read is told and left out: a single odd row must not keep the
/// node from starting.
pub(super) fn parse(text: &str) -> Option<PeerId> {
    let peer = text.parse().ok();
    if peer.is_none() {
        tracing::warn!("the database holds a peer id that is none: {text:?}");
    }
    peer
}
