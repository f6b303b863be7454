//! The threads that wait for the disk, so that nobody else does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use super::FileError;

/// Jobs that may wait. What finds no place fails with [`FileError::Busy`] and has not run.
pub(crate) const QUEUE: usize = 1024;

/// What comes of a job.
pub(crate) type Work<T> = BoxFuture<'static, Result<T, FileError>>;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads and one bounded queue. Jobs begin in the order in which they were submitted; with a single thread they
/// also end in it. When the pool is dropped, what was submitted is still done, and then the threads end.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    /// Starts so many threads with that name.
    pub(crate) fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let mut pool = Self { shared: Arc::default(), threads: Vec::new() };
        for _ in 0..threads {
            let shared = Arc::clone(&pool.shared);
            pool.threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || shared.run())?);
        }
        Ok(pool)
    }

    /// Has the work done. The job is in the queue when this returns; whoever drops the future only never learns what
    /// came of it.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
    ) -> Work<T> {
        let (done, result) = oneshot::channel();
        let mut state = self.shared.lock();
        let accepted = state.jobs.len() < QUEUE;
        if accepted {
            state.jobs.push_back(Box::new(move || drop(done.send(work()))));
        }
        drop(state);
        self.shared.changed.notify_one();
        let done = async move {
            if !accepted {
                return Err(FileError::Busy);
            }
            // The sender is dropped unused only when the work panicked.
            result.await.unwrap_or(Err(FileError::Panicked))
        };
        done.boxed()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A job may hold the last handle to its own pool; such a thread ends by itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // The panic was reported by the hook already; the thread must go on for the others.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("jobs", &self.lock().jobs.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_panic_is_survived() {
        let pool = Pool::start("test", 1).unwrap();
        let (go, wait) = mpsc::sync_channel::<()>(0);
        let (begin, begun) = mpsc::sync_channel::<()>(1);
        let first = pool.submit(move || Ok(begin.send(()).is_ok() && wait.recv().is_ok()));
        // Before it has taken the first job, the thread could still make a place for the last one.
        begun.recv().unwrap();
        let mut others = (0..QUEUE + 1).map(|at| pool.submit(move || Ok(at))).collect::<Vec<_>>();
        let last = others.pop().unwrap();
        assert!(matches!(block_on(last), Err(FileError::Busy)));
        go.send(()).unwrap();
        assert!(block_on(first).unwrap());
        assert_eq!(block_on(others.swap_remove(0)).unwrap(), 0);
        for other in others {
            let _ = block_on(other);
        }
        let panics = pool.submit(|| -> Result<(), FileError> { panic!("on purpose") });
        assert!(matches!(block_on(panics), Err(FileError::Panicked)));
        assert_eq!(block_on(pool.submit(|| Ok(1))).unwrap(), 1);
    }

    #[test]
    fn what_was_submitted_is_done_before_the_pool_ends() {
        let pool = Pool::start("test", 2).unwrap();
        let (sender, receiver) = mpsc::sync_channel(100);
        for at in 0..100 {
            let sender = sender.clone();
            drop(pool.submit(move || Ok(sender.send(at).is_ok())));
        }
        drop((pool, sender));
        assert_eq!(receiver.iter().count(), 100);
    }
}
