//! Group commit, failures of one job and of all, the full queue, the end.

use super::*;
use crate::storage::thread::{GROUP, QUEUE, RESERVE};

#[test]
fn waiting_jobs_share_one_commit_and_readers_need_none() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let release = node.hold();
    for number in 0..300 {
        node.storage.queue_message(message(number, peer(1)), Box::new(sign), |result| Box::new(result) as Done);
    }
    assert_eq!(node.storage.pending(), 301);
    drop(release);
    node.next::<Result<(), StorageError>>().unwrap();
    for number in 0..300 {
        let queued = node.next::<Result<Queued, StorageError>>().unwrap();
        assert_eq!((queued.id, queued.seq), (id(number), number + 1), "in order");
    }
    assert_eq!(node.storage.queue.commits(), 1);
    assert_eq!(node.counts().outbox, 300);
    node.window(peer(1));
    assert_eq!(node.storage.queue.commits(), 1, "reading commits nothing");
    node.queue(message(300, peer(1))).unwrap();
    assert_eq!(node.storage.queue.commits(), 2);
}

#[test]
fn a_failing_job_fails_alone() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let release = node.hold();
    let box_it = |result| Box::new(result) as Done;
    node.storage.queue_message(message(1, peer(1)), Box::new(sign), box_it);
    node.storage.queue_message(message(2, peer(1)), Box::new(|_| Err("no key".into())), box_it);
    node.storage.queue_message(message(3, peer(1)), Box::new(|_| panic!("thrown by the test")), box_it);
    node.storage.queue_message(message(1, peer(1)), Box::new(sign), box_it);
    node.storage.queue_message(message(4, peer(1)), Box::new(sign), box_it);
    drop(release);
    node.next::<Result<(), StorageError>>().unwrap();
    let mut next = || node.next::<Result<Queued, StorageError>>();
    assert_eq!(next().unwrap().seq, 1);
    assert_eq!(next(), Err(StorageError::Sign("no key".into())));
    assert_eq!(next(), Err(StorageError::Panicked("thrown by the test".into())));
    assert!(matches!(next(), Err(StorageError::Sqlite(_))), "the id exists already");
    assert_eq!(next().unwrap().seq, 2, "what failed used up no number");
    assert_eq!(node.storage.panics(), 1);
    assert_eq!(node.counts(), Counts { outbox: 2, history: 2 });
    assert_eq!(node.storage.queue.commits(), 1);
}

#[test]
fn dropping_without_close_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for number in 1..=50 {
        node.storage.queue_message(message(number, peer(1)), Box::new(sign), |result| Box::new(result) as Done);
    }
    let Node { storage, mut done, .. } = node;
    drop(storage);
    let mut completed = 0;
    while done.blocking_recv().is_some() {
        completed += 1;
    }
    assert_eq!(completed, 50);
    node = Node::open(folder.path());
    assert_eq!(node.opened.pending, [(peer(1), 50)]);
}

#[test]
fn closing_drains_and_empties_the_wal() {
    let folder = TempDir::new().unwrap();
    let node = Node::open(folder.path());
    for number in 1..=50 {
        node.storage.queue_message(message(number, peer(1)), Box::new(sign), |result| Box::new(result) as Done);
    }
    node.storage.close();
    assert!(!folder.path().join("history.db-wal").exists());
    assert_eq!(Node::open(folder.path()).opened.pending, [(peer(1), 50)]);
}

#[test]
fn closing_does_not_wait_for_a_reader_that_has_stopped() {
    let folder = TempDir::new().unwrap();
    let (sender, done) = mpsc::channel::<Done>(1);
    let (storage, _) = Storage::open(&db(folder.path()), sender).unwrap();
    for number in 1..=50 {
        storage.queue_message(message(number, peer(1)), Box::new(sign), |result| Box::new(result) as Done);
    }
    storage.close();
    drop(done);
    assert_eq!(Node::open(folder.path()).opened.pending, [(peer(1), 50)]);
}

#[test]
fn a_full_queue_refuses_in_order() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let release = node.hold();
    for number in 0..QUEUE as u64 + 5 {
        assert_eq!(node.storage.has_room(), number < (QUEUE - RESERVE) as u64);
        node.storage.queue_message(message(number, peer(1)), Box::new(sign), |result| Box::new(result) as Done);
    }
    drop(release);
    node.next::<Result<(), StorageError>>().unwrap();
    for number in 0..QUEUE as u64 {
        assert_eq!(node.next::<Result<Queued, StorageError>>().unwrap().id, id(number));
    }
    for _ in 0..5 {
        assert_eq!(node.next::<Result<Queued, StorageError>>(), Err(StorageError::Busy));
    }
    assert!(node.storage.has_room());
    assert_eq!(node.counts().outbox, QUEUE as u64);
    assert_eq!(node.storage.queue.commits(), QUEUE.div_ceil(GROUP) as u64);
    assert_eq!(node.storage.pending(), 0);
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.queue(message(1, peer(1))).unwrap();
    let pages = node.number("PRAGMA page_count");
    node.ask(|storage, then| {
        let work = move |db: &mut Db| {
            Ok(db.conn.query_row(&format!("PRAGMA max_page_count = {}", pages + 8), [], |_| Ok(()))?)
        };
        storage.read(work, then);
    })
    .unwrap();
    let mut stored = vec![id(1)];
    let mut refused = 0;
    for round in 0..20 {
        let release = node.hold();
        for number in 0..10 {
            let message = NewMessage { text: "x".repeat(3_000), ..message(100 + round * 10 + number, peer(1)) };
            node.storage.queue_message(message, Box::new(sign), |result| Box::new(result) as Done);
        }
        drop(release);
        node.next::<Result<(), StorageError>>().unwrap();
        for _ in 0..10 {
            match node.next::<Result<Queued, StorageError>>() {
                Ok(queued) => stored.push(queued.id),
                Err(error) => {
                    assert_eq!(error, StorageError::NoRoom);
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
    // Reading works, and what was said to be stored is what is there.
    let there = |node: &mut Node| {
        let window = node.window(peer(1));
        assert!(window.messages.iter().zip(1..).all(|(message, seq)| message.seq == seq), "without gaps");
        window.messages.into_iter().map(|message| message.id).collect::<Vec<_>>()
    };
    assert_eq!(there(&mut node), stored);
    assert_eq!(node.counts().outbox, stored.len() as u64);
    node.ask(|storage, then| {
        let work = |db: &mut Db| Ok(db.conn.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))?);
        storage.read(work, then);
    })
    .unwrap();
    for number in 1_000..1_010 {
        stored.push(node.queue(message(number, peer(1))).unwrap().id);
    }
    assert_eq!(there(&mut node), stored);
    node.storage.close();
    assert_eq!(there(&mut Node::open(folder.path())), stored);
}

#[test]
fn a_transaction_that_sqlite_gives_up_fails_all_its_jobs_and_no_other() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let release = node.hold();
    let box_it = |result| Box::new(result) as Done;
    node.storage.queue_message(message(1, peer(1)), Box::new(sign), box_it);
    // What SQLite does by itself on an I/O error, with the error it gives then and without one.
    node.storage.write(
        |db| {
            db.conn.execute_batch("ROLLBACK")?;
            Err::<(), _>(StorageError::NoRoom)
        },
        |result| Box::new(result) as Done,
    );
    node.storage.queue_message(message(2, peer(1)), Box::new(sign), box_it);
    node.storage.write(|db| Ok(db.conn.execute_batch("ROLLBACK")?), |result| Box::new(result) as Done);
    node.storage.queue_message(message(3, peer(1)), Box::new(sign), box_it);
    drop(release);
    node.next::<Result<(), StorageError>>().unwrap();
    assert_eq!(node.next::<Result<Queued, StorageError>>(), Err(StorageError::NoRoom));
    assert_eq!(node.next::<Result<(), StorageError>>(), Err(StorageError::NoRoom));
    assert!(node.next::<Result<Queued, StorageError>>().is_err());
    assert!(node.next::<Result<(), StorageError>>().is_err());
    assert_eq!(node.next::<Result<Queued, StorageError>>().unwrap().seq, 1);
    assert_eq!(node.counts(), Counts { outbox: 1, history: 1 });
}

#[test]
fn a_commit_that_fails_fails_all_its_jobs() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let release = node.hold();
    let box_it = |result| Box::new(result) as Done;
    node.storage.queue_message(message(1, peer(1)), Box::new(sign), box_it);
    // A row that refers to nothing, which is found out at the commit.
    node.storage.write(
        |db| {
            let orphan = "INSERT INTO outbox VALUES (99, 'x', 1, x'00', 0, zeroblob(16))";
            Ok(db.conn.execute_batch(&format!("PRAGMA defer_foreign_keys = ON; {orphan}"))?)
        },
        |result| Box::new(result) as Done,
    );
    node.storage.counts(|result| Box::new(result) as Done);
    drop(release);
    node.next::<Result<(), StorageError>>().unwrap();
    assert!(node.next::<Result<Queued, StorageError>>().is_err());
    assert!(node.next::<Result<(), StorageError>>().is_err());
    assert!(node.next::<Result<Counts, StorageError>>().is_err(), "it has seen what did not come to be");
    assert_eq!(node.counts(), Counts { outbox: 0, history: 0 });
    assert_eq!(node.queue(message(1, peer(1))).unwrap().seq, 1);
}

#[test]
fn a_panicking_completion_is_survived() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.storage.counts(|_| panic!("thrown by the test"));
    node.queue(message(1, peer(1))).unwrap();
    assert_eq!((node.storage.panics(), node.storage.pending()), (1, 0));
}
