//! Rows that are no longer what was written: said, never served as good.

use super::*;
use crate::api::{DAMAGED, HistoryRow};

fn all() -> HistoryFilter {
    HistoryFilter { limit: 100, ..Default::default() }
}

/// A received message, and two that wait for the same peer.
fn filled(folder: &Path) -> Node {
    let mut node = Node::open(folder);
    node.ask(|storage, then| storage.receive(peer(1), vec![incoming(9, peer(1), "hello from afar")], then)).unwrap();
    node.queue(message(1, peer(1))).unwrap();
    node.queue(message(2, peer(1))).unwrap();
    node
}

fn texts(rows: &[HistoryRow]) -> Vec<(&str, Option<&str>)> {
    rows.iter().map(|row| (row.text.as_str(), row.reason.as_deref())).collect()
}

/// Flip one bit of every place in the closed database where `what` stands.
fn flip(folder: &Path, what: &[u8], bit: u8) {
    let mut bytes = fs::read(db(folder)).unwrap();
    let places: Vec<usize> = (0..bytes.len() - what.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place + 1] ^= bit;
    }
    fs::write(db(folder), bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_the_file_is_said() {
    // The second makes the text no UTF-8, the third and fourth hit a name and a team.
    for (what, bit, damaged) in [
        ("hello from afar", 0x01, 0..1),
        ("hello from afar", 0x80, 0..1),
        ("themthey", 0x01, 0..1),
        ("theyhello from", 0x80, 0..1),
        ("text 2", 0x04, 2..3),
    ] {
        let folder = TempDir::new().unwrap();
        filled(folder.path()).storage.close();
        flip(folder.path(), what.as_bytes(), bit);
        let mut node = Node::open(folder.path());
        assert!(node.opened.damaged.is_none(), "SQLite sees nothing of it");
        let mut expected = [("hello from afar", None), ("text 1", None), ("text 2", None)];
        expected[damaged.clone()].fill(("", Some(DAMAGED)));
        let rows = node.history(all());
        assert_eq!(texts(&rows), expected, "{what} {bit}");
        assert_eq!(rows[0].state, DeliveryState::Received, "the state stays");
        let waiting = node.ask(|storage, then| storage.outbox(then)).unwrap();
        let waiting: Vec<_> = waiting.iter().map(|row| (row.text.as_str(), row.reason.as_deref())).collect();
        assert_eq!(waiting, expected[1..], "{what} {bit}");
    }
}

#[test]
fn every_column_that_never_changes_is_watched() {
    let changes = [
        "id = randomblob(16)",
        "direction = 'out'",
        "peer = peer || 'x'",
        "author = recipient",
        "recipient = author",
        "name = 'then'",
        "name = name || team, team = ''",
        "team = ''",
        "text = 'hello from afaR'",
        "sent_at = sent_at + 1",
        "received_at = received_at - 1",
        "seq = 10",
        "expires_at = 0",
        "digest = zeroblob(16)",
        "text = CAST(x'68ff' AS TEXT)",
        "peer = CAST(x'ff' AS TEXT), author = CAST(x'ff' AS TEXT)",
    ];
    let folder = TempDir::new().unwrap();
    let mut node = filled(folder.path());
    let whole = node.history(all());
    for change in changes {
        let sql = format!("SAVEPOINT before; UPDATE messages SET {change} WHERE direction = 'in'");
        let filter = all();
        let work = move |db: &mut Db| {
            db.conn.execute_batch(&sql)?;
            let rows = db.history(&filter)?;
            db.conn.execute_batch("ROLLBACK TO before; RELEASE before")?;
            Ok(rows)
        };
        let rows = node.ask(|storage, then| storage.write(work, then)).unwrap();
        assert_eq!((rows[0].text.as_str(), rows[0].reason.as_deref()), ("", Some(DAMAGED)), "{change}");
        assert!(rows[0].is_damaged());
        assert_eq!(rows[1..], whole[1..], "{change}");
    }
    assert_eq!(node.history(all()), whole);
    node.ask(|storage, then| storage.settle(peer(1), vec![(id(1), Settle::Failed("refused".into()))], then)).unwrap();
    assert_eq!(texts(&node.history(all()))[1], ("text 1", Some("refused")), "what may change is not watched");
}

#[test]
fn a_damaged_envelope_does_not_block_the_queue() {
    for what in ["envelope = x'00'", "envelope = x''", "expires_at = expires_at + 1", "digest = zeroblob(16)"] {
        let folder = TempDir::new().unwrap();
        let mut node = filled(folder.path());
        let sql = format!("UPDATE outbox SET {what} WHERE seq = 1");
        node.ask(|storage, then| storage.write(move |db| Ok(db.conn.execute_batch(&sql)?), then)).unwrap();
        let window = node.ask(|storage, then| storage.window(peer(1), 0, 1, usize::MAX, then)).unwrap();
        assert_eq!(window.damaged, [id(1)], "{what}");
        assert_eq!(window.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [2], "{what}");
        let ends = vec![(id(1), Settle::Failed("damaged on disk".into()))];
        assert_eq!(node.ask(|storage, then| storage.settle(peer(1), ends, then)).unwrap(), [id(1)]);
        assert_eq!(node.window(peer(1)).damaged, NONE);
        assert_eq!(texts(&node.history(all()))[1], ("text 1", Some("damaged on disk")), "its text is good");
        assert_eq!(node.counts().outbox, 1);
    }
}

#[test]
fn a_flipped_bit_of_an_envelope_is_found() {
    let folder = TempDir::new().unwrap();
    filled(folder.path()).storage.close();
    flip(folder.path(), b"signed 2", 0x10);
    let mut node = Node::open(folder.path());
    let window = node.window(peer(1));
    assert_eq!((window.messages.len(), window.damaged), (1, vec![id(2)]));
    assert!(!window.more);
}

#[test]
fn a_message_whose_receiver_is_garbled_expires() {
    let folder = TempDir::new().unwrap();
    let mut node = filled(folder.path());
    node.sql("UPDATE outbox SET peer = CAST(x'ff' AS TEXT) WHERE seq = 1");
    node.storage.close();
    let mut node = Node::open(folder.path());
    assert_eq!(node.queue(message(3, peer(1))).unwrap().seq, 3, "it is in nobody's way");
    assert_eq!(node.ask(|storage, then| storage.outbox(then)).unwrap().len(), 2);
    let expired = node.ask(|storage, then| storage.expire(u64::MAX, then)).unwrap();
    assert_eq!(expired, [(peer(1), id(2)), (peer(1), id(3))]);
    assert_eq!(node.counts().outbox, 0);
}
