//! What this node thinks of others, kept over restarts.

use libp2p::PeerId;
use rusqlite::params;

use super::thread::Db;
use super::{Storage, StorageError, to_sql};

/// How many are kept; the ones saved longest ago go first.
const STANDINGS: i64 = 4_096;

impl<D: Send + 'static> Storage<D> {
    /// Keep what is thought of some peers, as bytes whose meaning is the caller's; `None` is to forget it.
    pub(crate) fn save_standings(
        &self,
        standings: Vec<(PeerId, Option<Vec<u8>>)>,
        at_ms: u64,
        then: impl FnOnce(Result<(), StorageError>) -> D + Send + 'static,
    ) {
        self.write(move |db| db.save_standings(&standings, at_ms), then);
    }
}

impl Db {
    fn save_standings(&mut self, standings: &[(PeerId, Option<Vec<u8>>)], at_ms: u64) -> Result<(), StorageError> {
        let sql = "INSERT INTO standings (peer_id, standing, saved_at) VALUES (?1, ?2, ?3)
            ON CONFLICT (peer_id) DO UPDATE SET standing = excluded.standing, saved_at = excluded.saved_at";
        for (peer, standing) in standings {
            let Some(standing) = standing else {
                self.conn.prepare_cached("DELETE FROM standings WHERE peer_id = ?1")?.execute([peer.to_base58()])?;
                continue;
            };
            self.conn.prepare_cached(sql)?.execute(params![peer.to_base58(), standing, to_sql(at_ms)])?;
        }
        let surplus = "DELETE FROM standings WHERE peer_id IN
            (SELECT peer_id FROM standings ORDER BY saved_at DESC, peer_id LIMIT -1 OFFSET ?1)";
        self.conn.prepare_cached(surplus)?.execute([STANDINGS])?;
        Ok(())
    }

    /// All that is kept.
    pub(super) fn standings(&self) -> Result<Vec<(PeerId, Vec<u8>)>, StorageError> {
        let mut query = self.conn.prepare("SELECT peer_id, standing FROM standings ORDER BY peer_id")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let mut standings = Vec::new();
        for row in rows {
            let (peer, standing) = row?;
            if let Ok(peer) = peer.parse() {
                standings.push((peer, standing));
            }
        }
        Ok(standings)
    }
}
