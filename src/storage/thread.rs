//! The job queue, and the loop of the thread that owns the connection.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::StorageError;

/// How many jobs may wait. When it is full a job completes with [`StorageError::Busy`] without having run.
pub(super) const QUEUE: usize = 1024;

/// How many of those places [`Queue::has_room`] holds back for what the event loop has begun already.
pub(super) const RESERVE: usize = 128;

/// How many jobs at most share one transaction, hence one fsync.
pub(super) const GROUP: usize = 512;

/// How many refusals may wait beside the jobs. A loop that goes on submitting in spite of them loses the completion,
/// which drops whatever channel it carries.
const REFUSALS: usize = 1024;

/// What the jobs work on.
pub(super) struct Db {
    pub(super) conn: Connection,
    /// How many messages wait; `None` when it must be counted again, because something was rolled back.
    pub(super) waiting: Option<WaitingCount>,
}

/// How many messages wait in the outbox, kept because counting 100,000 rows for each new message would be slow.
#[derive(Default)]
pub(super) struct WaitingCount {
    pub(super) total: u64,
    pub(super) by_peer: BTreeMap<PeerId, u64>,
}

/// Whether a job changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The queue between the event loop and the thread, with what both count.
pub(super) struct Queue<D> {
    state: Mutex<State<D>>,
    /// Signalled when an item was added and when the queue was closed.
    changed: Condvar,
    closing: watch::Sender<bool>,
    panics: AtomicU64,
    /// Transactions that wrote something.
    commits: AtomicU64,
}

struct State<D> {
    items: VecDeque<Item<D>>,
    /// Jobs whose completion was not handed over yet.
    pending: usize,
    closed: bool,
}

enum Item<D> {
    Job(Box<dyn Job<D>>),
    /// The completion of a job that found no room. It passes through the queue so that completions stay in order.
    Refused(D),
}

impl<D: Send + 'static> Queue<D> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), pending: 0, closed: false }),
            changed: Condvar::new(),
            closing: watch::Sender::new(false),
            panics: AtomicU64::new(0),
            commits: AtomicU64::new(0),
        }
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(&mut Db) -> Result<T, StorageError> + Send + 'static,
        then: impl FnOnce(Result<T, StorageError>) -> D + Send + 'static,
    ) {
        let mut state = self.lock();
        let item = if state.items.len() < QUEUE {
            Item::Job(Box::new(Task { access, work: Some(work), result: None, then }))
        } else if state.items.len() < QUEUE + REFUSALS {
            Item::Refused(then(Err(StorageError::Busy)))
        } else {
            tracing::error!("a job for the database was dropped: the queue was full and has_room was not heeded");
            return;
        };
        state.pending += 1;
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().items.len() < QUEUE - RESERVE
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().pending
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Wait for items and take up to a group of them. `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Item<D>>> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let group = state.items.len().min(GROUP);
        Some(state.items.drain(..group).collect())
    }

    /// Hand one completion over. Waits while the channel is full, unless the storage is being closed.
    fn deliver(&self, done: &mpsc::Sender<D>, completion: D) {
        let permit = match done.try_reserve() {
            Err(mpsc::error::TrySendError::Full(())) => {
                let mut closing = self.closing.subscribe();
                futures::executor::block_on(async {
                    tokio::select! {
                        biased;
                        permit = done.reserve() => permit.ok(),
                        _ = closing.wait_for(|closing| *closing) => None,
                    }
                })
            }
            permit => permit.ok(),
        };
        // Under one lock, so that nobody sees a job that is neither pending nor in the channel, nor one that is both.
        let mut state = self.lock();
        state.pending -= 1;
        if let Some(permit) = permit {
            permit.send(completion);
        }
    }
}

impl<D> Queue<D> {
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.closing.send_replace(true);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job in two halves: its work inside the transaction, and its completion after the commit.
trait Job<D>: Send {
    fn access(&self) -> Access;
    /// Do the work and keep what came of it; the error is given out too, so that the savepoint can be undone.
    fn work(&mut self, db: &mut Db) -> Result<(), Failed>;
    /// Make the completion. `fate` is the error of the whole transaction, if it had one.
    fn finish(self: Box<Self>, fate: Option<StorageError>) -> D;
}

struct Failed {
    error: StorageError,
    panicked: bool,
}

struct Task<T, W, F> {
    access: Access,
    work: Option<W>,
    result: Option<Result<T, StorageError>>,
    then: F,
}

impl<D, T, W, F> Job<D> for Task<T, W, F>
where
    T: Send,
    W: FnOnce(&mut Db) -> Result<T, StorageError> + Send,
    F: FnOnce(Result<T, StorageError>) -> D + Send,
{
    fn access(&self) -> Access {
        self.access
    }

    fn work(&mut self, db: &mut Db) -> Result<(), Failed> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // What the job leaves half done lies in the connection, whose savepoint is rolled back, and in the counts,
        // which are counted again.
        let (result, panicked) = match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(result) => (result, false),
            Err(panic) => (Err(StorageError::Panicked(panic_text(panic.as_ref()))), true),
        };
        let error = result.as_ref().err().cloned();
        self.result = Some(result);
        error.map_or(Ok(()), |error| Err(Failed { error, panicked }))
    }

    fn finish(self: Box<Self>, fate: Option<StorageError>) -> D {
        let result = match fate {
            Some(error) => Err(error),
            None => self.result.unwrap_or(Err(StorageError::Closed)),
        };
        (self.then)(result)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

/// The thread: until the queue is closed and empty.
pub(super) fn run<D: Send + 'static>(mut db: Db, queue: &Queue<D>, done: &mpsc::Sender<D>) {
    while let Some(items) = queue.take() {
        let mut jobs = Vec::with_capacity(items.len());
        let mut refused = Vec::new();
        for item in items {
            match item {
                Item::Job(job) => jobs.push(job),
                // Every job before it comes before it in the queue, and a refusal is followed by refusals or by jobs of
                // a later time; to keep the order it is remembered where it stood.
                Item::Refused(completion) => refused.push((jobs.len(), completion)),
            }
        }
        let mut refused = refused.into_iter().peekable();
        let finished = run_group(&mut db, jobs, queue);
        let count = finished.len();
        for (index, (job, fate)) in finished.into_iter().enumerate() {
            while let Some((_, completion)) = refused.next_if(|(before, _)| *before <= index) {
                queue.deliver(done, completion);
            }
            match catch_unwind(AssertUnwindSafe(|| job.finish(fate))) {
                Ok(completion) => queue.deliver(done, completion),
                Err(panic) => {
                    queue.panics.fetch_add(1, Ordering::Relaxed);
                    queue.lock().pending -= 1;
                    tracing::error!("a completion of the database panicked: {}", panic_text(panic.as_ref()));
                }
            }
        }
        debug_assert!(refused.peek().is_none_or(|(before, _)| *before == count));
        for (_, completion) in refused {
            queue.deliver(done, completion);
        }
    }
    // Best effort: what is in the WAL is safe there as well.
    if let Err(error) = db.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!("the database's log could not be moved into it: {error}");
    }
}

type Ran<D> = (Box<dyn Job<D>>, Option<StorageError>);

/// Run jobs in one transaction and commit it. Gives each job back with the error of its transaction, if that failed.
fn run_group<D: Send + 'static>(db: &mut Db, jobs: Vec<Box<dyn Job<D>>>, queue: &Queue<D>) -> Vec<Ran<D>> {
    let mut ran: Vec<Ran<D>> = Vec::with_capacity(jobs.len());
    let mut writers = jobs.iter().filter(|job| job.access() == Access::Write).count();
    // Where the jobs of the open transaction begin in `ran`.
    let mut since = None;
    for mut job in jobs {
        let writes = job.access() == Access::Write;
        if since.is_none() && writers > 0 {
            roll_back(db);
            // IMMEDIATE, because a read that becomes a write cannot wait for another program's lock.
            match execute(db, "BEGIN IMMEDIATE") {
                Ok(()) => since = Some(ran.len()),
                Err(error) if writes => {
                    writers -= 1;
                    ran.push((job, Some(error)));
                    continue;
                }
                Err(_) => {}
            }
        }
        writers -= usize::from(writes);
        let outcome = if writes { run_apart(db, job.as_mut()) } else { job.work(db) };
        ran.push((job, None));
        let Err(Failed { error, panicked }) = outcome else { continue };
        if panicked {
            queue.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a job of the database panicked: {error}");
        }
        db.waiting = None;
        // A full disk or a failing one makes SQLite undo the whole transaction at once, with what the jobs before did.
        if let Some(first) = since
            && db.conn.is_autocommit()
        {
            ran[first..].iter_mut().for_each(|(_, fate)| *fate = Some(error.clone()));
            since = None;
        }
    }
    if let Some(first) = since {
        match execute(db, "COMMIT") {
            Ok(()) => {
                queue.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!("{} jobs could not be stored: {error}", ran.len() - first);
                roll_back(db);
                ran[first..].iter_mut().for_each(|(_, fate)| *fate = Some(error.clone()));
            }
        }
    }
    ran
}

/// Run one job in a savepoint of the open transaction, and undo it alone when it fails.
fn run_apart<D>(db: &mut Db, job: &mut dyn Job<D>) -> Result<(), Failed> {
    let broken = |error| Failed { error, panicked: false };
    if let Err(error) = execute(db, "SAVEPOINT job") {
        // The job has not run: the transaction is given up, so that it is told.
        roll_back(db);
        return Err(broken(error));
    }
    let outcome = job.work(db);
    if db.conn.is_autocommit() {
        // SQLite has undone everything. A job that says `Ok` has overlooked an error.
        return outcome.and(Err(broken(StorageError::Sqlite("the transaction was rolled back".into()))));
    }
    let undone = match outcome {
        Ok(()) => Ok(()),
        Err(_) => execute(db, "ROLLBACK TO job"),
    };
    if let Err(error) = undone.and_then(|()| execute(db, "RELEASE job")) {
        roll_back(db);
        return Err(broken(error));
    }
    outcome
}

fn execute(db: &Db, sql: &str) -> Result<(), StorageError> {
    db.conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Give up the open transaction, if there is one.
fn roll_back(db: &mut Db) {
    if db.conn.is_autocommit() {
        return;
    }
    db.waiting = None;
    if let Err(error) = execute(db, "ROLLBACK") {
        tracing::error!("a transaction could not be rolled back: {error}");
    }
}
