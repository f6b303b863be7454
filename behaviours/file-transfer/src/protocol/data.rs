//! Data streams: bytes go straight from the disk to the stream and from the stream to the disk, a piece at a time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_timer::Delay;

use super::{REQUEST_BYTES, Refusal, Request};
use crate::hash::{ChunkHasher, Hash};
use crate::manifest::{CHUNK, Chunk, PIECE, TransferId};
use crate::pacing::{self, Pace};
use crate::receiver::Ending;
use crate::store::{ChunkStore, Place, StoreError};

/// What is smaller waits for its neighbours before it is written: small writes are what makes streams slow.
const SMALL: usize = 64 << 10;
/// The disk remembers verified chunks after so many bytes of them, or [`RUN_CHUNKS`].
const RUN_BYTES: u64 = CHUNK;
/// See [`RUN_BYTES`].
const RUN_CHUNKS: usize = 64;
/// While bytes come, this is said so often.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// The longest that a gate holds somebody before it is asked again: a limit may have been lifted.
const MAX_HOLD: Duration = Duration::from_secs(1);

/// A gate that many streams pass.
pub(crate) struct Gate {
    pace: Mutex<(u64, Box<dyn Pace>)>,
}

impl Gate {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { pace: Mutex::new((0, pacing::for_limit(limit, now()))) }
    }

    pub(crate) fn set(&self, limit: Option<u64>) {
        let mut pace = self.lock();
        *pace = (pace.0 + 1, pacing::for_limit(limit, now()));
    }

    /// The largest step, and whether it is small because of a limit.
    fn step(&self) -> usize {
        self.lock().1.step().clamp(1, PIECE)
    }

    /// Wait until so many bytes may pass.
    async fn pass(&self, bytes: usize) {
        let (generation, ready) = {
            let mut pace = self.lock();
            (pace.0, pace.1.ready_at(bytes, now()))
        };
        loop {
            let wait = ready.saturating_duration_since(now());
            if wait.is_zero() || self.lock().0 != generation {
                return;
            }
            Delay::new(wait.min(MAX_HOLD)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Box<dyn Pace>)> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for progress, not for an end.
struct Patience {
    timeout: Duration,
    delay: Option<Delay>,
}

impl Patience {
    fn new(timeout: Duration) -> Self {
        Self { timeout, delay: None }
    }

    /// The result, or `None` when it did not come in time.
    async fn within<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        // The timer is armed only by who has to wait, and goes on from one wait to the next: it is looked at when it fires.
        let mut since = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let since = *since.get_or_insert_with(now);
            loop {
                let delay = self.delay.get_or_insert_with(|| Delay::new(self.timeout));
                if Pin::new(&mut *delay).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let left = self.timeout.saturating_sub(now().saturating_duration_since(since));
                if left.is_zero() {
                    return Poll::Ready(None);
                }
                delay.reset(left);
            }
        })
        .await
    }
}

/// What a span in flight tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// Bytes came; once with the time until the first.
    Moved { bytes: u64, waited: Option<Duration> },
    /// Chunks are verified and remembered.
    Verified { first: u64, hashes: Vec<Hash> },
}

/// A span to be fetched.
pub(crate) struct Fetch<'a> {
    pub(crate) request: Request,
    pub(crate) chunks: &'a [Chunk],
    pub(crate) store: &'a dyn ChunkStore,
    pub(crate) gate: &'a Gate,
    pub(crate) stall_timeout: Duration,
}

/// Ask for a span and take it. The stream can be used again after [`Ending::Complete`] and [`Ending::Refused`] only. The
/// flag says whether anything came.
pub(crate) async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    fetch: Fetch<'_>,
    mut report: impl FnMut(Report),
) -> (Ending, bool) {
    let mut taking = Taking {
        stream,
        patience: Patience::new(fetch.stall_timeout),
        gate: fetch.gate,
        asked_at: now(),
        answered: false,
        moved: 0,
        reported_at: now(),
        waited: None,
    };
    let ending = taking.span(&fetch, &mut report).await.err().unwrap_or(Ending::Complete);
    taking.report(&mut report);
    (ending, taking.answered)
}

struct Taking<'a, S> {
    stream: &'a mut S,
    patience: Patience,
    gate: &'a Gate,
    asked_at: Instant,
    answered: bool,
    moved: u64,
    reported_at: Instant,
    waited: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Taking<'_, S> {
    async fn span(&mut self, fetch: &Fetch<'_>, report: &mut impl FnMut(Report)) -> Result<(), Ending> {
        let request = fetch.request.encode();
        let asking = async {
            self.stream.write_all(&request).await?;
            self.stream.flush().await
        };
        self.patience.within(asking).await.ok_or(Ending::Stalled)?.map_err(|_| Ending::Broken)?;
        let mut answer = [0];
        self.fill(&mut answer, report).await?;
        if answer[0] != 0 {
            return Err(Ending::Refused(Refusal::from_byte(answer[0])));
        }
        let mut run = Run { first: fetch.request.first, hashes: Vec::new(), bytes: 0 };
        let result = self.chunks(fetch, &mut run, report).await;
        // What is right stays right, however it ended.
        let kept = run.keep(fetch, report).await;
        self.report(report);
        result.and(kept)
    }

    async fn chunks(
        &mut self,
        fetch: &Fetch<'_>,
        run: &mut Run,
        report: &mut impl FnMut(Report),
    ) -> Result<(), Ending> {
        let transfer = fetch.request.transfer;
        let mut piece = Vec::new();
        for chunk in fetch.chunks {
            let mut hasher = ChunkHasher::new(chunk);
            let mut done = 0_u64;
            while done < u64::from(chunk.length) {
                let left = u64::from(chunk.length) - done;
                piece.resize(left.min(PIECE as u64) as usize, 0);
                self.fill(&mut piece, report).await?;
                hasher.update(&piece);
                let place = Place { transfer, file: chunk.file, offset: chunk.offset + done };
                done += piece.len() as u64;
                piece = fetch.store.write(place, piece).await.map_err(Ending::Disk)?;
            }
            let mut said = [0; 32];
            self.fill(&mut said, report).await?;
            let hash = hasher.finish();
            if hash != Hash(said) {
                return Err(Ending::Corrupt(chunk.index));
            }
            run.hashes.push(hash);
            run.bytes += u64::from(chunk.length);
            if run.bytes >= RUN_BYTES || run.hashes.len() >= RUN_CHUNKS {
                run.keep(fetch, report).await?;
            }
        }
        Ok(())
    }

    /// Fill the buffer, as fast as the gate and the sender allow.
    async fn fill(&mut self, buffer: &mut [u8], report: &mut impl FnMut(Report)) -> Result<(), Ending> {
        let mut done = 0;
        while done < buffer.len() {
            let end = buffer.len().min(done + self.gate.step());
            let reading = self.stream.read(&mut buffer[done..end]);
            match self.patience.within(reading).await {
                None => return Err(Ending::Stalled),
                Some(Err(_) | Ok(0)) => return Err(Ending::Broken),
                Some(Ok(length)) => {
                    done += length;
                    self.moved += length as u64;
                    if !self.answered {
                        self.answered = true;
                        self.waited = Some(now().saturating_duration_since(self.asked_at));
                    }
                    self.gate.pass(length).await;
                    if now().saturating_duration_since(self.reported_at) >= REPORT_INTERVAL {
                        self.report(report);
                    }
                }
            }
        }
        Ok(())
    }

    fn report(&mut self, report: &mut impl FnMut(Report)) {
        self.reported_at = now();
        if self.moved > 0 {
            report(Report::Moved { bytes: std::mem::take(&mut self.moved), waited: self.waited.take() });
        }
    }
}

/// Chunks whose hashes are right, and which the disk does not remember yet.
struct Run {
    first: u64,
    hashes: Vec<Hash>,
    bytes: u64,
}

impl Run {
    async fn keep(&mut self, fetch: &Fetch<'_>, report: &mut impl FnMut(Report)) -> Result<(), Ending> {
        let hashes = std::mem::take(&mut self.hashes);
        if hashes.is_empty() {
            return Ok(());
        }
        let (first, count) = (self.first, hashes.len() as u64);
        self.first += count;
        self.bytes = 0;
        fetch.store.verified(fetch.request.transfer, first, hashes.clone()).await.map_err(Ending::Disk)?;
        report(Report::Verified { first, hashes });
        Ok(())
    }
}

/// Why a span was not sent whole.
pub(crate) enum ServeError {
    /// The stream broke, or nobody read it.
    Stream,
    /// The own disk.
    Disk(StoreError),
}

impl From<io::Error> for ServeError {
    fn from(_: io::Error) -> Self {
        Self::Stream
    }
}

/// Read the next request; `None` at the end of the stream.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut bytes = [0; REQUEST_BYTES];
    if stream.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut bytes[1..]).await?;
    Ok(Some(Request::decode(&bytes)))
}

/// Answer a request with nothing.
pub(crate) async fn refuse(stream: &mut (impl AsyncWrite + Unpin), refusal: Refusal) -> io::Result<()> {
    stream.write_all(&[refusal as u8]).await?;
    stream.flush().await
}

/// Answer a request with these chunks. `hashes` gets the hash of each chunk that was read whole, however it ends.
pub(crate) async fn serve(
    stream: &mut (impl AsyncWrite + Unpin),
    transfer: TransferId,
    chunks: &[Chunk],
    store: &dyn ChunkStore,
    gate: &Gate,
    stall_timeout: Duration,
    hashes: &mut Vec<Hash>,
) -> Result<(), ServeError> {
    let mut out = vec![0];
    let mut patience = Patience::new(stall_timeout);
    let mut piece = Vec::new();
    for chunk in chunks {
        let mut hasher = ChunkHasher::new(chunk);
        let mut done = 0_u64;
        while done < u64::from(chunk.length) {
            let step = gate.step();
            let left = u64::from(chunk.length) - done;
            piece.resize(left.min(step as u64) as usize, 0);
            gate.pass(piece.len()).await;
            let place = Place { transfer, file: chunk.file, offset: chunk.offset + done };
            piece = store.read(place, piece).await.map_err(ServeError::Disk)?;
            hasher.update(&piece);
            done += piece.len() as u64;
            let limited = step < PIECE;
            if piece.len() < SMALL {
                out.extend_from_slice(&piece);
                if out.len() >= SMALL || limited {
                    write(stream, &mut patience, &mut out, limited).await?;
                }
            } else {
                write(stream, &mut patience, &mut out, false).await?;
                write(stream, &mut patience, &mut piece, limited).await?;
            }
        }
        let hash = hasher.finish();
        out.extend_from_slice(&hash.0);
        hashes.push(hash);
    }
    write(stream, &mut patience, &mut out, true).await
}

/// Write the buffer and empty it; somebody who reads slowly is waited for, somebody who does not read is not.
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    patience: &mut Patience,
    buffer: &mut Vec<u8>,
    flush: bool,
) -> Result<(), ServeError> {
    let mut done = 0;
    while done < buffer.len() {
        match patience.within(stream.write(&buffer[done..])).await {
            None | Some(Ok(0)) => return Err(ServeError::Stream),
            Some(length) => done += length?,
        }
    }
    buffer.clear();
    if flush {
        patience.within(stream.flush()).await.ok_or(ServeError::Stream)??;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Context;

    use futures::FutureExt as _;
    use futures::executor::block_on;
    use futures::future::{BoxFuture, ready};

    use super::*;
    use crate::hash;
    use crate::manifest::{Entry, Manifest};

    /// A remote that says what it was told to say, and then nothing, or closes.
    struct Remote {
        says: Vec<u8>,
        at: usize,
        closes: bool,
        heard: Vec<u8>,
    }

    impl AsyncRead for Remote {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let length = buffer.len().min(self.says.len() - self.at).min(10_000);
            if length == 0 && !self.closes {
                return Poll::Pending;
            }
            buffer[..length].copy_from_slice(&self.says[self.at..self.at + length]);
            self.at += length;
            Poll::Ready(Ok(length))
        }
    }

    impl AsyncWrite for Remote {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.heard.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Store(Mutex<(usize, Vec<u64>)>);

    impl ChunkStore for Store {
        fn read(&self, place: Place, mut buffer: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
            let at = place.offset..;
            buffer.iter_mut().zip(at).for_each(|(byte, at)| *byte = byte_at(place.file, at));
            ready(Ok(buffer)).boxed()
        }

        fn write(&self, place: Place, data: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
            assert!(data.len() <= PIECE && place.offset + data.len() as u64 <= SIZES[place.file as usize]);
            self.0.lock().unwrap().0 += data.len();
            ready(Ok(data)).boxed()
        }

        fn verified(&self, _: TransferId, first: u64, hashes: Vec<Hash>) -> BoxFuture<'static, Result<(), StoreError>> {
            self.0.lock().unwrap().1.extend(first..first + hashes.len() as u64);
            ready(Ok(())).boxed()
        }

        fn hash(&self, _: TransferId, _: Chunk) -> BoxFuture<'static, Result<Hash, StoreError>> {
            unreachable!("not asked here")
        }

        fn finish(&self, _: TransferId, _: Hash) -> BoxFuture<'static, Result<String, StoreError>> {
            unreachable!("not asked here")
        }

        fn discard(&self, _: TransferId) -> BoxFuture<'static, ()> {
            unreachable!("not asked here")
        }
    }

    const ID: TransferId = TransferId([5; 16]);
    const SIZES: [u64; 4] = [5, CHUNK + 3, 70_000, 1];

    fn byte_at(file: u32, at: u64) -> u8 {
        ((at * at) >> 3) as u8 ^ file as u8
    }

    fn chunks() -> Vec<Chunk> {
        let names = ["a", "b", "c", "d"];
        let entries = names.iter().zip(SIZES).map(|(name, size)| Entry::file(&[name], size)).collect();
        let manifest = Manifest::new("x".into(), entries).unwrap();
        (0..manifest.chunks()).filter_map(|index| manifest.chunk(index)).collect()
    }

    fn answer(limit: Option<u64>) -> Vec<u8> {
        let mut remote = Remote { says: Vec::new(), at: 0, closes: true, heard: Vec::new() };
        let mut hashes = Vec::new();
        let (store, gate) = (Arc::new(Store::default()), Gate::new(limit));
        let all = chunks();
        let serving = serve(&mut remote, ID, &all, &*store, &gate, Duration::from_secs(5), &mut hashes);
        assert!(block_on(serving).is_ok());
        assert_eq!(hashes.len(), 5);
        remote.heard
    }

    fn take(says: Vec<u8>, closes: bool) -> (Ending, Vec<u64>, u64) {
        let mut remote = Remote { says, at: 0, closes, heard: Vec::new() };
        let (store, gate) = (Store::default(), Gate::new(None));
        let request = Request { transfer: ID, first: 0, count: 5 };
        let all = chunks();
        let stall_timeout = Duration::from_millis(30);
        let job = Fetch { request, chunks: &all, store: &store, gate: &gate, stall_timeout };
        let (mut counted, mut moved) = (Vec::new(), 0);
        let report = |report| match report {
            Report::Moved { bytes, .. } => moved += bytes,
            Report::Verified { first, hashes } => counted.extend(first..first + hashes.len() as u64),
        };
        let (ending, _) = block_on(fetch(&mut remote, job, report));
        assert_eq!(remote.heard, request.encode());
        let remembered = store.0.lock().unwrap().1.clone();
        assert_eq!(remembered, counted, "what counts is what the disk remembers");
        (ending, counted, moved)
    }

    #[test]
    fn an_answer_is_one_byte_and_each_chunk_with_its_hash() {
        let mut expected = vec![0];
        for chunk in chunks() {
            let bytes = chunk.offset..chunk.offset + u64::from(chunk.length);
            let bytes: Vec<u8> = bytes.map(|at| byte_at(chunk.file, at)).collect();
            expected.extend_from_slice(&bytes);
            expected.extend_from_slice(&hash::of_chunk(&chunk, &bytes).0);
        }
        assert!(answer(None) == expected);
        assert!(answer(Some(50 << 20)) == expected, "a limit changes nothing but the time");
        let length = expected.len() as u64;
        assert_eq!(take(expected, true), (Ending::Complete, vec![0, 1, 2, 3, 4], length));
    }

    #[test]
    fn what_is_wrong_is_never_counted_and_what_came_before_is() {
        let right = answer(None);
        // Of each chunk the first byte, the last and one of its hash.
        let mut start = 1;
        for chunk in chunks() {
            let end = start + chunk.length as usize;
            for at in [start, end - 1, end, end + 31] {
                let mut wrong = right.clone();
                wrong[at] ^= 0x10;
                let (ending, counted, _) = take(wrong, true);
                assert_eq!(ending, Ending::Corrupt(chunk.index), "byte {at}");
                assert_eq!(counted, (0..chunk.index).collect::<Vec<_>>());
            }
            start = end + 32;
        }
        assert_eq!(start, right.len());
    }

    #[test]
    fn an_answer_that_ends_early_is_broken_and_one_that_stops_is_stalled() {
        let right = answer(None);
        for length in [0, 1, 3, 6, 38, 40, 100_000, right.len() - 1] {
            let (ending, counted, _) = take(right[..length].to_vec(), true);
            assert_eq!(ending, Ending::Broken, "{length}");
            let (stalled, same, _) = take(right[..length].to_vec(), false);
            assert_eq!((stalled, same), (Ending::Stalled, counted), "{length}");
        }
    }

    #[test]
    fn a_refusal_is_one_byte_and_more_than_asked_for_is_not_read() {
        for refusal in [Refusal::Unknown, Refusal::Paused, Refusal::Busy, Refusal::Over] {
            let mut remote = Remote { says: Vec::new(), at: 0, closes: true, heard: Vec::new() };
            block_on(refuse(&mut remote, refusal)).unwrap();
            assert_eq!(take(remote.heard, true).0, Ending::Refused(refusal));
        }
        assert_eq!(take(vec![200], true).0, Ending::Refused(Refusal::Busy));
        let mut more = answer(None);
        let length = more.len() as u64;
        more.extend([0; 100_000]);
        assert_eq!(take(more, true), (Ending::Complete, vec![0, 1, 2, 3, 4], length));
    }

    #[test]
    fn requests_are_read_until_the_stream_ends() {
        let request = Request { transfer: ID, first: u64::MAX, count: 7 };
        let mut says = request.encode().to_vec();
        says.extend([1, 2, 3]);
        let mut remote = Remote { says, at: 0, closes: true, heard: Vec::new() };
        assert_eq!(block_on(read_request(&mut remote)).unwrap(), Some(request));
        assert!(block_on(read_request(&mut remote)).is_err());
        assert_eq!(block_on(read_request(&mut remote)).unwrap(), None);
    }
}
