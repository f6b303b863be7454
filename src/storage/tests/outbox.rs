//! Own messages: numbered, bounded, settled and expired.

use super::*;
use crate::storage::outbox::{EXPIRED_AT_ONCE, LISTED, WAITING, WAITING_PER_PEER};

#[test]
fn a_message_goes_from_outbox_to_delivered() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    assert_eq!(node.opened.boot, 1);
    assert!(node.opened.damaged.is_none() && node.opened.peers.is_empty() && node.opened.pending.is_empty());
    let queued = node.queue(message(1, peer(1))).unwrap();
    assert_eq!(queued, Queued { id: id(1), seq: 1, envelope: b"signed 1".to_vec() });
    assert_eq!(node.queue(message(2, peer(1))).unwrap().seq, 2);
    assert_eq!(node.queue(message(3, peer(2))).unwrap().seq, 1);
    assert_eq!(node.counts(), Counts { outbox: 3, history: 3 });

    let waiting = node.ask(|storage, then| storage.outbox(then)).unwrap();
    assert_eq!(
        waiting.iter().map(|row| (row.to, row.id)).collect::<Vec<_>>(),
        [(peer(1), id(1)), (peer(1), id(2)), (peer(2), id(3))]
    );
    assert_eq!((waiting[0].text.as_str(), waiting[0].sent_at.as_millisecond()), ("text 1", 1_001));

    let ends = vec![(id(2), Settle::Delivered), (id(9), Settle::Delivered), (id(1), Settle::Failed("refused".into()))];
    let changed = node.ask(|storage, then| storage.settle(peer(1), ends.clone(), then)).unwrap();
    assert_eq!(changed, [id(2), id(1)]);
    assert_eq!(node.ask(|storage, then| storage.settle(peer(1), ends, then)).unwrap(), NONE, "only once");
    let other = vec![(id(3), Settle::Delivered)];
    assert_eq!(node.ask(|storage, then| storage.settle(peer(1), other, then)).unwrap(), NONE, "only by its receiver");

    let mut state = |number| node.ask(move |storage, then| storage.message_state(id(number), then)).unwrap();
    let stored = |to, state, reason: Option<&str>| Some(StoredState { to, state, reason: reason.map(str::to_owned) });
    assert_eq!(state(1), stored(peer(1), DeliveryState::Failed, Some("refused")));
    assert_eq!(state(2), stored(peer(1), DeliveryState::Delivered, None));
    assert_eq!(state(3), stored(peer(2), DeliveryState::Queued, None));
    assert_eq!(state(4), None);
    assert_eq!(node.counts(), Counts { outbox: 1, history: 3 });

    let rows = node.history(HistoryFilter { limit: 2, ..Default::default() });
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["text 2", "text 3"]);
    assert_eq!((rows[0].from.clone(), rows[0].to.clone()), (peer(0).to_base58(), peer(1).to_base58()));
    assert_eq!((rows[0].id.as_str(), rows[0].seq), ("00000000000000020707070707070707", 2));
}

#[test]
fn a_window_is_ordered_and_bounded() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for number in 1..=12 {
        node.queue(message(number, peer(1))).unwrap();
    }
    node.queue(message(13, peer(2))).unwrap();
    let mut window = |after, limit, bytes| {
        let window = node.ask(move |storage, then| storage.window(peer(1), after, limit, bytes, then)).unwrap();
        (window.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), window.more)
    };
    assert_eq!(window(0, 100, 1000), ((1..=12).collect(), false));
    assert_eq!(window(0, 3, 1000), (vec![1, 2, 3], true));
    assert_eq!(window(9, 3, 1000), (vec![10, 11, 12], false));
    assert_eq!(window(12, 3, 1000), (vec![], false));
    assert_eq!(window(0, 100, 16), (vec![1, 2], true), "`signed 1` has 8 bytes");
    assert_eq!(window(0, 100, 0), (vec![1], true), "one in any case");
    assert_eq!(window(11, 100, 0), (vec![12], false));
    assert_eq!(window(0, 0, 1000), (vec![1], true));
    assert_eq!(window(u64::MAX, 1, 1), (vec![], false));
}

#[test]
fn numbers_never_go_back() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    assert_eq!(node.queue(message(1, peer(1))).unwrap().seq, 1);
    assert_eq!(node.queue(message(2, peer(1))).unwrap().seq, 2);
    node.ask(|storage, then| storage.expire(u64::MAX, then)).unwrap();
    node.sql("DELETE FROM outbox; DELETE FROM messages;");
    node.storage.close();
    let mut node = Node::open(folder.path());
    assert_eq!(node.counts().history, 0);
    assert_eq!(node.queue(message(3, peer(1))).unwrap().seq, 3);
    node.storage.close();

    // Even when the database is lost.
    fs::write(db(folder.path()), "rubbish").unwrap();
    let mut node = Node::open(folder.path());
    let first = node.queue(message(4, peer(1))).unwrap().seq;
    assert!(first > 3);
    assert_eq!(node.queue(message(5, peer(1))).unwrap().seq, first + 1);
}

#[test]
fn messages_expire() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for number in 1..=3 {
        node.queue(message(number, peer(number as u8))).unwrap();
    }
    let mut expire = |now| node.ask(move |storage, then| storage.expire(now, then)).unwrap();
    assert_eq!(expire(100_000), []);
    assert_eq!(expire(100_002), [(peer(1), id(1)), (peer(2), id(2))]);
    assert_eq!(expire(100_002), []);
    let state = node.ask(|storage, then| storage.message_state(id(1), then)).unwrap().unwrap();
    assert_eq!((state.state, state.reason.as_deref()), (DeliveryState::Failed, Some("expired")));
    assert_eq!(node.counts().outbox, 1);
    let late = vec![(id(1), Settle::Delivered)];
    assert_eq!(node.ask(|storage, then| storage.settle(peer(1), late, then)).unwrap(), NONE, "it stays failed");
    let rows = node.history(HistoryFilter { limit: 1, peer: Some(peer(1)), ..Default::default() });
    assert_eq!((rows[0].state, rows[0].reason.as_deref()), (DeliveryState::Failed, Some("expired")));
}

#[test]
fn the_outbox_is_bounded() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let fill = |node: &mut Node, peer: PeerId, count: u64, base: u64| {
        node.ask(|storage, then| {
            let work = move |db: &mut Db| {
                let sql = "WITH RECURSIVE n(n) AS (SELECT ?2 UNION ALL SELECT n + 1 FROM n WHERE n < ?2 + ?3 - 1)
                    INSERT INTO messages (rowid, id, direction, kind, peer, author, recipient, name, team, text, sent_at,
                        received_at, seq, state, expires_at, digest)
                    SELECT n, randomblob(16), 'out', 'direct', ?1, '', ?1, '', '', 'x', 0, 0, n, 'queued', n, zeroblob(16) FROM n";
                db.conn.execute(sql, (peer.to_base58(), to_sql(base), to_sql(count)))?;
                let sql = "INSERT INTO outbox SELECT rowid, peer, seq, x'00', expires_at, zeroblob(16)
                    FROM messages WHERE rowid >= ?1";
                db.conn.execute(sql, [to_sql(base)])?;
                db.waiting = None;
                Ok(())
            };
            storage.write(work, then);
        })
        .unwrap();
    };
    let (one, all) = (WAITING_PER_PEER, WAITING);
    fill(&mut node, peer(1), one - 1, 1_000_000);
    node.queue(message(1, peer(1))).unwrap();
    assert_eq!(node.queue(message(2, peer(1))), Err(StorageError::PeerOutboxFull(one)));
    fill(&mut node, peer(2), all - one - 1, 2_000_000);
    node.queue(message(3, peer(3))).unwrap();
    assert_eq!(node.queue(message(4, peer(4))), Err(StorageError::OutboxFull(all)));
    assert_eq!(node.ask(|storage, then| storage.outbox(then)).unwrap().len(), LISTED);
    node.ask(|storage, then| storage.settle(peer(3), vec![(id(3), Settle::Delivered)], then)).unwrap();
    node.queue(message(4, peer(4))).unwrap();
    let expired = node.ask(|storage, then| storage.expire(u64::MAX, then)).unwrap();
    assert_eq!(expired.len(), EXPIRED_AT_ONCE);
    assert_eq!(node.counts().outbox, all - expired.len() as u64);
}
