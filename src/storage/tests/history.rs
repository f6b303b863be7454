//! Incoming messages and lookups.

use proptest::prelude::*;

use super::*;
use crate::storage::history::ROWS;

#[test]
fn a_repeated_message_is_stored_once() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let batch = vec![incoming(1, peer(1), "a"), incoming(2, peer(1), "b"), incoming(1, peer(1), "forged")];
    let stored = node.ask(|storage, then| storage.receive(peer(1), batch.clone(), then)).unwrap();
    assert_eq!(stored, [(id(1), true), (id(2), true), (id(1), false)]);
    node.storage.close();
    let mut node = Node::open(folder.path());
    let stored = node.ask(|storage, then| storage.receive(peer(1), batch, then)).unwrap();
    assert_eq!(stored, [(id(1), false), (id(2), false), (id(1), false)]);
    let same_id = vec![incoming(1, peer(2), "another's")];
    let stored = node.ask(|storage, then| storage.receive(peer(2), same_id, then)).unwrap();
    assert_eq!(stored, [(id(1), true)], "nobody can use up somebody else's ids");
    assert_eq!(node.queue(message(1, peer(1))).unwrap().seq, 1, "nor ours");
    let rows = node.history(HistoryFilter { limit: 10, ..Default::default() });
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["a", "b", "another's", "text 1"]);
    assert_eq!(rows[0].state, DeliveryState::Received);
    assert_eq!((rows[0].name.as_str(), rows[0].sent_at.as_millisecond()), ("them", 2_001));
    assert_eq!(rows[0].received_at.as_millisecond(), 3_001);
}

#[test]
fn an_absurd_time_or_number_is_kept_within_range() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let mut odd = incoming(1, peer(1), "from the far future");
    (odd.sent_at_ms, odd.seq, odd.expires_at_ms) = (u64::MAX, u64::MAX, u64::MAX);
    node.ask(|storage, then| storage.receive(peer(1), vec![odd], then)).unwrap();
    let rows = node.history(HistoryFilter { limit: 1, ..Default::default() });
    assert_eq!((rows[0].sent_at, rows[0].seq), (jiff::Timestamp::MAX, i64::MAX as u64));
    let mut forever = message(2, peer(1));
    forever.expires_at_ms = u64::MAX;
    node.queue(forever).unwrap();
    assert_eq!(node.window(peer(1)).messages[0].expires_at_ms, i64::MAX as u64);
}

#[test]
fn history_is_filtered() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for number in 1..=6 {
        let from = peer(1 + (number % 2) as u8);
        let text = format!("number {number} apple");
        let batch = vec![incoming(number, from, &text)];
        node.ask(|storage, then| storage.receive(from, batch, then)).unwrap();
    }
    node.queue(message(7, peer(1))).unwrap();
    let all = HistoryFilter { limit: 100, ..Default::default() };
    let mut seqs = |filter| node.history(filter).iter().map(|row| row.seq).collect::<Vec<_>>();
    assert_eq!(seqs(all.clone()), [1, 2, 3, 4, 5, 6, 1]);
    assert_eq!(seqs(HistoryFilter { limit: 3, ..all.clone() }), [5, 6, 1]);
    assert_eq!(seqs(HistoryFilter { limit: 0, ..all.clone() }), [0; 0]);
    assert_eq!(seqs(HistoryFilter { peer: Some(peer(1)), ..all.clone() }), [2, 4, 6, 1]);
    assert_eq!(seqs(HistoryFilter { peer: Some(peer(9)), ..all.clone() }), [0; 0]);
    let since = Some(jiff::Timestamp::from_millisecond(3_004).unwrap());
    assert_eq!(seqs(HistoryFilter { since, ..all.clone() }), [4, 5, 6]);
    let apple = HistoryFilter { search: Some("APPLE".into()), ..all };
    assert_eq!(seqs(apple.clone()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seqs(HistoryFilter { limit: 2, ..apple.clone() }), [5, 6], "the latest of the matching ones");
    assert_eq!(seqs(HistoryFilter { limit: 2, peer: Some(peer(1)), since, ..apple }), [4, 6]);
}

#[test]
fn odd_searches_find_what_they_say() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let texts = [
        "don't panic",
        "say \"hello\" twice",
        "50% off * today",
        "Äpfel und Birnen",
        "NOT AND OR NEAR",
        "今日は良い天気です",
        "well done 👍",
        "under_score",
        "nul\0inside",
        "plain hello",
    ];
    let batch = texts.iter().zip(1..).map(|(text, number)| incoming(number, peer(1), text)).collect();
    node.ask(|storage, then| storage.receive(peer(1), batch, then)).unwrap();
    let cases: &[(&str, &[usize])] = &[
        ("hello", &[1, 9]),
        ("\"hello\"", &[1, 9]),
        ("hello \"", &[1]),
        ("don't", &[0]),
        ("'", &[0]),
        ("*", &[2]),
        ("%", &[2]),
        ("_", &[7]),
        ("50% off", &[2]),
        ("apfel", &[3]),
        ("BIRNEN äpfel", &[3]),
        ("NOT", &[4]),
        ("AND OR", &[4]),
        ("NEAR(", &[4]),
        ("天気", &[5]),
        ("👍", &[6]),
        ("done 👍", &[6]),
        ("done 👎", &[]),
        ("hel", &[]),
        ("hel*", &[]),
        ("text:hello", &[]),
        ("-hello", &[1, 9]),
        ("inside", &[8]),
        ("nul\0inside", &[8]),
        ("(", &[]),
        ("", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (" \t ", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("' OR 1=1 --", &[]),
    ];
    for (words, expected) in cases {
        let expected: Vec<&str> = expected.iter().map(|index| texts[*index]).collect();
        assert_eq!(node.search(words), expected, "{words:?}");
    }
    let filter = HistoryFilter { limit: 1, search: Some("word ".repeat(33)), ..Default::default() };
    let refused = node.ask(|storage, then| storage.history(filter, then));
    assert!(matches!(refused, Err(StorageError::Limit(_))));
    let filter = HistoryFilter { limit: 1, search: Some("wörd ".repeat(32)), ..Default::default() };
    node.ask(|storage, then| storage.history(filter, then)).unwrap();
    node.sql("DELETE FROM messages WHERE text = 'plain hello'; UPDATE messages SET text = 'goodbye' WHERE seq = 1;");
    assert_eq!(node.search("hello"), [texts[1]], "the index follows the table");
    assert_eq!((node.search("goodbye").len(), node.search("don't").len()), (1, 0));
    node.sql("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)");
}

#[test]
fn no_search_is_an_error() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.ask(|storage, then| storage.receive(peer(1), vec![incoming(1, peer(1), "hello")], then)).unwrap();
    let node = std::cell::RefCell::new(node);
    proptest!(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() }, |(words in "(\\PC|[\"'*%_() ^:+-]|\\x00){0,40}")| {
        let filter = HistoryFilter { limit: 1, search: Some(words), ..Default::default() };
        let found = node.borrow_mut().ask(|storage, then| storage.history(filter, then));
        prop_assert!(matches!(found, Ok(_) | Err(StorageError::Limit(_))), "{found:?}");
    });
}

#[test]
fn a_long_history_is_read_from_its_end() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for base in (0..100_000u64).step_by(10_000) {
        let batch = (base..base + 10_000).map(|number| incoming(number, peer(1), &format!("word{} all", number % 100)));
        let batch = batch.collect();
        node.ask(|storage, then| storage.receive(peer(1), batch, then)).unwrap();
    }
    let latest = HistoryFilter { limit: 20, peer: Some(peer(1)), ..Default::default() };
    assert_eq!(node.history(latest.clone())[19].seq, 99_999);
    let found = node.history(HistoryFilter { search: Some("word7".into()), ..latest.clone() });
    assert_eq!((found.len(), found[0].seq, found[19].seq), (20, 98_007, 99_907));
    assert_eq!(node.history(HistoryFilter { search: Some("all".into()), ..latest.clone() })[19].seq, 99_999);
    assert_eq!(node.history(HistoryFilter { limit: usize::MAX, ..latest }).len(), ROWS);

    // The plan, not the time: neither query may sort or scan what it need not.
    let mut plan = |sql: &'static str| {
        node.ask(|storage, then| {
            let work = move |db: &mut Db| {
                let mut query = db.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let rows = query.query_map([], |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?.join("; "))
            };
            storage.read(work, then);
        })
        .unwrap()
    };
    let by_peer = plan("SELECT m.text FROM messages AS m WHERE m.peer = 'x' ORDER BY m.rowid DESC LIMIT 20");
    assert_eq!(by_peer, "SEARCH m USING INDEX messages_by_peer (peer=?)");
    let by_word = plan(
        "SELECT m.text FROM messages_fts AS f CROSS JOIN messages AS m ON m.rowid = f.rowid
        WHERE messages_fts MATCH 'x' AND m.peer = 'x' ORDER BY f.rowid DESC LIMIT 20",
    );
    assert!(!by_word.contains("TEMP B-TREE"), "{by_word}");
}
