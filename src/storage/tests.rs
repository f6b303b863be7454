//! Real SQLite in temporary folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;

use libp2p::PeerId;
use libp2p::identity::Keypair;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::api::DeliveryState;

mod broadcasts;
mod damage;
mod history;
mod open;
mod outbox;
mod peers;
mod thread;

/// What the tests get back: a boxed result that each asks for by its type.
type Done = Box<dyn std::any::Any + Send>;

/// A storage in a folder, with the receiving end of its completions.
struct Node {
    storage: Storage<Done>,
    done: mpsc::Receiver<Done>,
    opened: Opened,
}

impl Node {
    fn open(folder: &Path) -> Self {
        Self::try_open(folder).unwrap()
    }

    fn try_open(folder: &Path) -> Result<Self, StorageError> {
        let (sender, done) = mpsc::channel(4096);
        let (storage, opened) = Storage::open(&db(folder), sender)?;
        Ok(Self { storage, done, opened })
    }

    fn next<T: 'static>(&mut self) -> T {
        *self.done.blocking_recv().expect("the thread lives").downcast().expect("completions come in order")
    }

    /// Run one job and wait for it.
    fn ask<T: Send + 'static>(&mut self, start: impl FnOnce(&Storage<Done>, Then<T>)) -> Result<T, StorageError> {
        start(&self.storage, Box::new(|result| Box::new(result) as Done));
        self.next()
    }

    fn queue(&mut self, message: NewMessage) -> Result<Queued, StorageError> {
        self.ask(|storage, then| storage.queue_message(message, Box::new(sign), then))
    }

    fn history(&mut self, filter: HistoryFilter) -> Vec<crate::api::HistoryRow> {
        self.ask(|storage, then| storage.history(filter, then)).unwrap()
    }

    fn search(&mut self, words: &str) -> Vec<String> {
        let rows = self.history(HistoryFilter { limit: 100, search: Some(words.into()), ..Default::default() });
        rows.into_iter().map(|row| row.text).collect()
    }

    fn window(&mut self, peer: PeerId) -> Window {
        self.ask(|storage, then| storage.window(peer, 0, 1000, usize::MAX, then)).unwrap()
    }

    fn counts(&mut self) -> Counts {
        self.ask(|storage, then| storage.counts(then)).unwrap()
    }

    fn sql(&mut self, sql: &'static str) {
        self.ask(|storage, then| storage.write(move |db| Ok(db.conn.execute_batch(sql)?), then)).unwrap();
    }

    fn number(&mut self, sql: &'static str) -> i64 {
        self.ask(|storage, then| storage.read(move |db| Ok(db.conn.query_row(sql, [], |row| row.get(0))?), then))
            .unwrap()
    }

    /// Keep the thread busy until the answer is dropped or sent to, so that what is submitted meanwhile forms one
    /// group.
    fn hold(&mut self) -> std_mpsc::Sender<()> {
        let (release, wait) = std_mpsc::channel::<()>();
        let (started, running) = std_mpsc::channel();
        self.storage.read(
            move |_| {
                started.send(()).unwrap();
                let _ = wait.recv();
                Ok(())
            },
            |result| Box::new(result) as Done,
        );
        running.recv().unwrap();
        release
    }
}

type Then<T> = Box<dyn FnOnce(Result<T, StorageError>) -> Done + Send>;

fn db(folder: &Path) -> PathBuf {
    folder.join("history.db")
}

fn peer(number: u8) -> PeerId {
    Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
}

fn id(number: u64) -> MessageId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn sign(seq: u64) -> Result<Vec<u8>, String> {
    Ok(format!("signed {seq}").into_bytes())
}

fn message(number: u64, to: PeerId) -> NewMessage {
    NewMessage {
        id: id(number),
        to,
        from: peer(0),
        name: "me".into(),
        team: "us".into(),
        text: format!("text {number}"),
        sent_at_ms: 1_000 + number,
        expires_at_ms: 100_000 + number,
    }
}

fn incoming(number: u64, from: PeerId, text: &str) -> Incoming {
    Incoming {
        id: id(number),
        from,
        to: peer(0),
        name: "them".into(),
        team: "they".into(),
        text: text.into(),
        sent_at_ms: 2_000 + number,
        seq: number,
        received_at_ms: 3_000 + number,
        expires_at_ms: 200_000,
    }
}

fn known(number: u8) -> StoredPeer {
    StoredPeer {
        peer: peer(number),
        card: Some(vec![number]),
        name: Some(format!("name {number}")),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".into(), "/ip6/::1/tcp/2".into()],
        boot: 3,
        first_met_ms: 10,
        last_seen_ms: 20 + u64::from(number),
        trusted: false,
        blocked: false,
    }
}

const NONE: [MessageId; 0] = [];

/// What a `kill -9` would leave: the files as they are while the thread still has them open.
fn killed_copy(folder: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        // The shared memory file is rebuilt from the WAL, as after a power cut.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}
