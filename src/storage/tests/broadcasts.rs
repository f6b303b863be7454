//! Broadcasts: each stored once, their signed bytes pruned, their texts kept.

use super::*;

fn broadcast(sequence: u64, received_at_ms: u64) -> BroadcastRow {
    BroadcastRow {
        id: id(sequence),
        author: peer(1),
        own: false,
        epoch: 1,
        sequence,
        name: "them".into(),
        team: "they".into(),
        text: Some(format!("to all {sequence}")),
        sent_at_ms: 1_000 + sequence,
        received_at_ms,
        envelope: format!("signed {sequence}").into_bytes().into(),
    }
}

fn kept(node: &mut Node) -> Vec<u64> {
    let read = |db: &mut super::super::thread::Db| {
        let mut query = db.conn.prepare("SELECT sequence FROM broadcasts ORDER BY sequence")?;
        Ok(query.query_map([], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?)
    };
    let rows = node.ask(|storage, then| storage.read(read, then)).unwrap();
    rows.into_iter().map(|row| u64::try_from(row).unwrap()).collect()
}

#[test]
fn a_broadcast_is_new_once_even_when_its_bytes_were_pruned() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    assert!(node.opened.newcomer);
    for new in [true, false] {
        assert_eq!(node.ask(|storage, then| storage.store_broadcast(broadcast(1, 10), then)), Ok(new));
    }
    node.ask(|storage, then| storage.prune_broadcasts(10, 11, then)).unwrap();
    assert!(kept(&mut node).is_empty());
    assert_eq!(node.ask(|storage, then| storage.store_broadcast(broadcast(1, 20), then)), Ok(false));
    assert_eq!(node.history(HistoryFilter { limit: 100, ..Default::default() }).len(), 1);
}

#[test]
fn bytes_beyond_the_number_or_the_age_are_pruned_and_the_texts_stay() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    // Several come in the same millisecond.
    for (sequence, received_at) in [(1, 10), (2, 20), (3, 30), (4, 30), (5, 30), (6, 40)] {
        node.ask(|storage, then| storage.store_broadcast(broadcast(sequence, received_at), then)).unwrap();
    }
    node.ask(|storage, then| storage.prune_broadcasts(6, 10, then)).unwrap();
    assert_eq!(kept(&mut node), [1, 2, 3, 4, 5, 6]);
    node.ask(|storage, then| storage.prune_broadcasts(6, 20, then)).unwrap();
    assert_eq!(kept(&mut node), [2, 3, 4, 5, 6]);
    node.ask(|storage, then| storage.prune_broadcasts(2, 0, then)).unwrap();
    assert_eq!(kept(&mut node), [5, 6]);
    assert_eq!(node.history(HistoryFilter { limit: 100, ..Default::default() }).len(), 6);
    node.storage.close();
    let node = Node::open(folder.path());
    assert_eq!(node.opened.broadcasts, [b"signed 5".to_vec(), b"signed 6".to_vec()]);
    assert!(!node.opened.newcomer);
}
