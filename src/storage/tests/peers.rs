//! Who is remembered, and for how long.

use super::*;
use crate::storage::peers::PEERS;

#[test]
fn peers_are_remembered() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let first = known(1);
    node.ask(|storage, then| storage.save_peer(first.clone(), then)).unwrap();
    let later = StoredPeer {
        card: None,
        name: Some("somebody else".into()),
        addresses: vec![],
        boot: 2,
        first_met_ms: 99,
        last_seen_ms: 50,
        blocked: true,
        ..first.clone()
    };
    node.ask(|storage, then| storage.save_peer(later, then)).unwrap();
    node.ask(|storage, then| storage.set_trust(peer(1), true, then)).unwrap();
    node.ask(|storage, then| storage.set_block(peer(2), true, then)).unwrap();
    let nameless = StoredPeer { name: None, card: None, ..known(3) };
    node.ask(|storage, then| storage.save_peer(nameless, then)).unwrap();
    let renewed = StoredPeer { addresses: vec!["/ip4/1.2.3.4/tcp/5".into(), "two\nlines".into()], ..known(3) };
    node.ask(|storage, then| storage.save_peer(renewed, then)).unwrap();
    node.storage.close();

    let node = Node::open(folder.path());
    let stranger = StoredPeer {
        peer: peer(2),
        card: None,
        name: None,
        addresses: vec![],
        boot: 0,
        first_met_ms: 0,
        last_seen_ms: 0,
        trusted: false,
        blocked: true,
    };
    let third = StoredPeer { addresses: vec!["/ip4/1.2.3.4/tcp/5".into()], ..known(3) };
    let first = StoredPeer { last_seen_ms: 50, trusted: true, ..first };
    assert_eq!(node.opened.peers, [first, third, stranger]);
}

#[test]
fn a_peer_met_after_it_was_blocked_gets_its_name() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.ask(|storage, then| storage.set_block(peer(1), true, then)).unwrap();
    node.ask(|storage, then| storage.save_peer(known(1), then)).unwrap();
    node.ask(|storage, then| storage.set_block(peer(1), false, then)).unwrap();
    node.storage.close();
    assert_eq!(Node::open(folder.path()).opened.peers, [known(1)]);
}

#[test]
fn the_least_recently_seen_peers_are_forgotten() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.ask(|storage, then| {
        let work = |db: &mut Db| {
            let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                INSERT INTO peers (peer_id, last_seen) SELECT 'filler' || n, 1000 + n FROM n";
            db.conn.execute(sql, [to_sql(PEERS - 3)])?;
            Ok(())
        };
        storage.write(work, then);
    })
    .unwrap();
    node.ask(|storage, then| storage.save_peer(StoredPeer { last_seen_ms: 1, trusted: true, ..known(1) }, then))
        .unwrap();
    node.ask(|storage, then| storage.save_peer(StoredPeer { last_seen_ms: 2, blocked: true, ..known(2) }, then))
        .unwrap();
    node.ask(|storage, then| storage.save_peer(StoredPeer { last_seen_ms: 3, ..known(3) }, then)).unwrap();
    node.queue(message(1, peer(3))).unwrap();
    node.ask(|storage, then| storage.save_peer(StoredPeer { last_seen_ms: 9_999, ..known(4) }, then)).unwrap();
    assert_eq!(node.number("SELECT count(*) FROM peers"), PEERS as i64);
    assert_eq!(node.number("SELECT count(*) FROM peers WHERE peer_id = 'filler1'"), 0);
    assert_eq!(node.number("SELECT count(*) FROM peers WHERE peer_id NOT LIKE 'filler%'"), 4);
}

#[test]
fn a_seed_keeps_its_first_pin() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let address = "/ip4/127.0.0.1/tcp/9000".to_owned();
    let pin = |node: &mut Node, who| node.ask(|storage, then| storage.pin_seed(address.clone(), who, then)).unwrap();
    assert_eq!(pin(&mut node, peer(1)), peer(1));
    assert_eq!(pin(&mut node, peer(2)), peer(1));
    node.storage.close();
    assert_eq!(Node::open(folder.path()).opened.seed_pins, [(address.clone(), peer(1))]);
}
