//! Damage, other versions, the count of starts, and what a kill leaves.

use super::*;
use crate::storage::open::SCHEMA;

#[test]
fn what_was_completed_survives_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    for number in 1..=20 {
        node.queue(message(number, peer(1))).unwrap();
        node.ask(|storage, then| storage.receive(peer(2), vec![incoming(number, peer(2), "hello")], then)).unwrap();
        node.ask(|storage, then| storage.settle(peer(1), vec![(id(number - 1), Settle::Delivered)], then)).unwrap();
        let copy = killed_copy(folder.path());
        let mut again = Node::open(copy.path());
        assert_eq!(again.opened.damaged, None);
        assert_eq!(again.counts(), Counts { outbox: 1, history: 2 * number });
        assert_eq!(again.opened.boot, 2);
        assert_eq!(again.window(peer(1)).messages[0].id, id(number));
    }
}

/// A folder whose database has seen some use and was closed.
fn used_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    let batch = (0..2_000).map(|number| incoming(number, peer(1), &format!("some text {number}"))).collect();
    node.ask(|storage, then| storage.receive(peer(1), batch, then)).unwrap();
    node.ask(|storage, then| storage.save_peer(known(1), then)).unwrap();
    node.storage.close();
    folder
}

/// What happens to the bytes of a database.
type Damage = fn(&mut Vec<u8>);

#[test]
fn a_damaged_database_is_set_aside() {
    let damages: [(&str, Damage); 6] = [
        ("cut in the middle of a page", |bytes| bytes.truncate(bytes.len() / 2 - 100)),
        ("cut to half its pages", |bytes| bytes.truncate(bytes.len() / 8192 * 4096)),
        ("cut to nothing", Vec::clear),
        ("bytes flipped in the middle", |bytes| {
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 4096].iter_mut().for_each(|byte| *byte ^= 0x55);
        }),
        ("header flipped", |bytes| bytes[3] ^= 0x40),
        ("something else", |bytes| *bytes = b"this is no database at all\n".repeat(1000)),
    ];
    for (damage, apply) in damages {
        let folder = used_folder();
        let mut bytes = fs::read(db(folder.path())).unwrap();
        apply(&mut bytes);
        fs::write(db(folder.path()), &bytes).unwrap();
        fs::write(folder.path().join("history.db-wal"), "left over").unwrap();

        let mut node = Node::open(folder.path());
        let aside = node.opened.damaged.clone().expect(damage);
        assert!(aside.file_name().unwrap().to_string_lossy().starts_with("history.db.damaged-2"), "{aside:?}");
        assert_eq!(fs::read(&aside).unwrap(), bytes, "{damage}: kept as it was");
        let mut wal = aside.into_os_string();
        wal.push("-wal");
        assert_eq!(fs::read_to_string(wal).expect(damage), "left over");
        assert_eq!(node.opened.boot, 2, "{damage}: the count of starts goes on");
        assert_eq!((node.counts().history, node.opened.peers.len()), (0, 0));
        node.queue(message(1, peer(1))).unwrap();
        node.storage.close();
        let mut node = Node::open(folder.path());
        let history = node.counts().history;
        assert_eq!((node.opened.damaged, node.opened.boot, history), (None, 3, 1), "{damage}");
    }
}

#[test]
fn two_damaged_databases_are_both_kept() {
    let folder = used_folder();
    let mut kept = Vec::new();
    for round in 0..3 {
        fs::write(db(folder.path()), format!("rubbish {round}")).unwrap();
        let node = Node::open(folder.path());
        kept.push(node.opened.damaged.clone().unwrap());
        node.storage.close();
    }
    for (round, aside) in kept.iter().enumerate() {
        assert_eq!(fs::read_to_string(aside).unwrap(), format!("rubbish {round}"));
    }
}

#[test]
fn the_count_of_starts_survives_the_loss_of_either_file() {
    let folder = used_folder();
    let boot = folder.path().join("boot");
    let mut last = 1;
    let mut reopen = |prepare: &dyn Fn()| {
        prepare();
        let node = Node::open(folder.path());
        let boot = node.opened.boot;
        node.storage.close();
        assert!(boot > last, "{boot} after {last}");
        last = boot;
        boot
    };
    let database = db(folder.path());
    assert_eq!(reopen(&|| ()), 2);
    assert_eq!(reopen(&|| fs::remove_file(&boot).unwrap()), 3);
    assert_eq!(reopen(&|| fs::write(&boot, "9 rubbish\n").unwrap()), 4);
    assert_eq!(reopen(&|| fs::write(&boot, [0xff; 20]).unwrap()), 5);
    assert_eq!(reopen(&|| fs::write(&boot, "").unwrap()), 6);
    assert_eq!(reopen(&|| fs::remove_file(&database).unwrap()), 7);
    // A backup is put back.
    let backup = fs::read(&database).unwrap();
    assert_eq!(reopen(&|| ()), 8);
    assert_eq!(reopen(&|| fs::write(&database, &backup).unwrap()), 9);
    // A bit flipped in the number itself.
    let flip = || {
        let text = fs::read_to_string(&boot).unwrap();
        assert!(text.starts_with('9'));
        fs::write(&boot, text.replacen('9', "8", 1)).unwrap();
    };
    assert_eq!(reopen(&flip), 10);
    // Both lost: nobody knows, so it jumps.
    let both = || {
        fs::write(&database, "rubbish").unwrap();
        fs::remove_file(&boot).unwrap();
    };
    assert!(reopen(&both) > 1_700_000_000);
    assert!(reopen(&|| fs::write(&database, "rubbish").unwrap()) > 1_700_000_001);

    let folder = used_folder();
    fs::write(db(folder.path()), "rubbish").unwrap();
    fs::write(folder.path().join("boot"), "rubbish").unwrap();
    assert!(Node::open(folder.path()).opened.boot > 1_700_000_000);
}

#[test]
fn a_restored_data_dir_catches_up_when_it_is_told() {
    let folder = used_folder();
    let reopen = || {
        let node = Node::open(folder.path());
        let (boot, damaged) = (node.opened.boot, node.opened.damaged.clone());
        node.storage.close();
        assert_eq!(damaged, None, "the history stays");
        boot
    };
    assert_eq!(reopen(), 2);
    let conn = rusqlite::Connection::open(db(folder.path())).unwrap();
    conn.execute("INSERT OR REPLACE INTO sequences (peer, last) VALUES ('somebody', 3)", []).unwrap();
    conn.close().unwrap();
    fs::write(folder.path().join("boot"), "restored\r\n").unwrap();
    let caught_up = reopen();
    assert!(caught_up > 1_700_000_000);
    assert_eq!(reopen(), caught_up + 1, "once");
    let conn = rusqlite::Connection::open(db(folder.path())).unwrap();
    let last: i64 = conn.query_row("SELECT min(last) FROM sequences", [], |row| row.get(0)).unwrap();
    assert!(last > 1_700_000_000_000, "the numbers of messages do not go back either");
}

#[test]
fn a_newer_database_is_refused_untouched() {
    let folder = used_folder();
    let node = Node::open(folder.path());
    node.storage.close();
    let newer = |conn: &rusqlite::Connection| conn.pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    let conn = rusqlite::Connection::open(db(folder.path())).unwrap();
    newer(&conn);
    conn.close().unwrap();
    let before = fs::read(db(folder.path())).unwrap();
    let count = fs::read(folder.path().join("boot")).unwrap();
    let error = Node::try_open(folder.path()).err().unwrap();
    assert!(matches!(error, StorageError::Newer { found, known, .. } if found == SCHEMA + 1 && known == SCHEMA));
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(fs::read(db(folder.path())).unwrap(), before);
    assert_eq!(fs::read(folder.path().join("boot")).unwrap(), count);

    // The same when the newer version still stands in the WAL only.
    let folder = used_folder();
    let conn = rusqlite::Connection::open(db(folder.path())).unwrap();
    conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    newer(&conn);
    let copy = killed_copy(folder.path());
    let before = fs::read(db(copy.path())).unwrap();
    let wal = fs::read(copy.path().join("history.db-wal")).unwrap();
    assert!(!wal.is_empty());
    assert!(matches!(Node::try_open(copy.path()), Err(StorageError::Newer { .. })));
    assert_eq!(fs::read(db(copy.path())).unwrap(), before);
    assert_eq!(fs::read(copy.path().join("history.db-wal")).unwrap(), wal);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let mut node = Node::open(folder.path());
    node.queue(message(1, peer(1))).unwrap();
    for name in ["history.db", "history.db-wal", "history.db-shm"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
