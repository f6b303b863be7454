//! One connection: a stream of control messages each way, and data streams, which are used again and again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable, BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use libp2p::StreamProtocol;
use libp2p::core::upgrade::{ReadyUpgrade, SelectUpgrade};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol};

use crate::fault::FaultKind;
use crate::hash::Hash;
use crate::manifest::{Chunk, TransferId};
use crate::protocol::data::{self, Fetch, Gate, Report, ServeError};
use crate::protocol::{self, CONTROL_PROTOCOL, Frame, PROTOCOL, ReadError, Refusal, Request};
use crate::receiver::{Ending, GetId};
use crate::store::{ChunkStore, StoreError};

/// Most control messages that wait to be written; beyond it the oldest goes. All of them are said again.
const MAX_QUEUED: usize = 1024;
/// Of these, most pages, which are large.
const MAX_QUEUED_PAGES: usize = 8;
/// Most data streams that the remote may open; a further one is dropped.
const MAX_INBOUND: usize = 64;
/// Most data streams that are kept for the next request.
const MAX_IDLE: usize = 16;
/// Somebody who does not read is waited for so many times longer than somebody who does not write: a receiver may have a
/// limit, and a window opens only after half of it was read.
const READER_PATIENCE: u32 = 6;
/// A stream is negotiated within this time.
const NEGOTIATION: Duration = Duration::from_secs(10);

/// What the behaviour tells a connection.
pub enum Command {
    /// Send a control message.
    Write(Frame),
    /// Fetch a span.
    Get {
        /// Its name.
        get: GetId,
        /// What to ask for.
        request: Request,
        /// The same, with lengths.
        chunks: Vec<Chunk>,
    },
    /// Forget a span.
    Abort {
        /// Its name.
        get: GetId,
    },
    /// Answer a request; an empty answer is a refusal.
    Answer {
        /// The number of the request.
        token: u64,
        /// The chunks, or why not.
        permission: Result<Vec<Chunk>, Refusal>,
    },
    /// Break off an answer.
    Stop {
        /// The number of the request.
        token: u64,
    },
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write(_) => "Write",
            Self::Get { .. } => "Get",
            Self::Abort { .. } => "Abort",
            Self::Answer { .. } => "Answer",
            Self::Stop { .. } => "Stop",
        })
    }
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum Message {
    /// A control message came.
    Frame(Frame),
    /// Chunks of a span are verified and remembered.
    Verified {
        /// Of which span.
        get: GetId,
        /// The number of the first.
        first: u64,
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// Bytes of a span came.
    Moved {
        /// Of which span.
        get: GetId,
        /// How many.
        bytes: u64,
        /// The time until the first, once.
        waited: Option<Duration>,
    },
    /// A span came to its end.
    Ended {
        /// Which.
        get: GetId,
        /// How.
        ending: Ending,
    },
    /// The remote asks for a span.
    Asked {
        /// The number of the request.
        token: u64,
        /// What it asks for.
        request: Request,
    },
    /// An answer came to its end.
    Served {
        /// The number of the request.
        token: u64,
        /// What was asked for.
        request: Request,
        /// Of the chunks that were read whole, from the first on.
        hashes: Vec<Hash>,
        /// An error of the own disk.
        error: Option<StoreError>,
    },
    /// The remote does not speak the protocol.
    Foreign,
    /// The remote misbehaved.
    Fault(FaultKind),
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) upload: Arc<Gate>,
    pub(crate) download: Arc<Gate>,
    pub(crate) stall_timeout: Duration,
}

/// What the streams of one connection have to say. Each has little at a time, and waits before it goes on.
type Outbox = Arc<Mutex<VecDeque<Message>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Job {
    get: GetId,
    request: Request,
    chunks: Vec<Chunk>,
    /// On a stream of its own.
    fresh: bool,
}

struct Permission {
    chunks: Result<Vec<Chunk>, Refusal>,
    stop: oneshot::Receiver<()>,
}

/// The requests that the remote has open here.
#[derive(Default)]
struct Desk {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Permission>>,
    stops: BTreeMap<u64, oneshot::Sender<()>>,
}

enum Control {
    Closed,
    Opening,
    Idle(Stream),
    Writing(BoxFuture<'static, std::io::Result<Stream>>),
}

/// What an outbound stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Control messages.
    Control,
    /// Spans.
    Data,
}

type Reading = BoxFuture<'static, (Stream, Result<Option<Frame>, ReadError>)>;
type Fetched = (Job, Ending, bool, Option<Stream>);

/// The handler of one connection. Its type is public because the swarm asks for it.
pub struct Handler {
    shared: Shared,
    outbox: Outbox,
    desk: Arc<Mutex<Desk>>,
    foreign: bool,
    queue: VecDeque<Frame>,
    control: Control,
    reading: Option<Reading>,
    jobs: VecDeque<Job>,
    opening: usize,
    idle: Vec<Stream>,
    fetches: FuturesUnordered<Abortable<BoxFuture<'static, Fetched>>>,
    aborts: BTreeMap<GetId, AbortHandle>,
    inbound: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Handler {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared,
            outbox: Outbox::default(),
            desk: Arc::default(),
            foreign: false,
            queue: VecDeque::new(),
            control: Control::Closed,
            reading: None,
            jobs: VecDeque::new(),
            opening: 0,
            idle: Vec::new(),
            fetches: FuturesUnordered::new(),
            aborts: BTreeMap::new(),
            inbound: FuturesUnordered::new(),
        }
    }

    fn tell(&self, message: Message) {
        lock(&self.outbox).push_back(message);
    }

    fn enqueue(&mut self, frame: Frame) {
        let same = |waiting: &Frame| {
            std::mem::discriminant(waiting) == std::mem::discriminant(&frame)
                && waiting.transfer() == frame.transfer()
                && !matches!(frame, Frame::Page { .. })
        };
        if let Some(waiting) = self.queue.iter_mut().find(|waiting| same(waiting)) {
            // Each says how things stand: only the latest counts.
            *waiting = frame;
            return;
        }
        let is_page = |frame: &Frame| matches!(frame, Frame::Page { .. });
        if is_page(&frame) && self.queue.iter().filter(|frame| is_page(frame)).count() >= MAX_QUEUED_PAGES {
            return;
        }
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
        }
        self.queue.push_back(frame);
    }

    fn read_on(&mut self, mut stream: Stream) {
        let reading = async move {
            let result = protocol::read(&mut stream).await;
            (stream, result)
        };
        self.reading = Some(reading.boxed());
    }

    fn begin(&mut self, job: Job, stream: Stream) {
        let (shared, outbox, get) = (self.shared.clone(), self.outbox.clone(), job.get);
        let fetching = async move {
            let mut stream = stream;
            let report = |report| {
                lock(&outbox).push_back(match report {
                    Report::Moved { bytes, waited } => Message::Moved { get, bytes, waited },
                    Report::Verified { first, hashes } => Message::Verified { get, first, hashes },
                });
            };
            let fetch = Fetch {
                request: job.request,
                chunks: &job.chunks,
                store: &*shared.store,
                gate: &shared.download,
                stall_timeout: shared.stall_timeout,
            };
            let (ending, answered) = data::fetch(&mut stream, fetch, report).await;
            let usable = matches!(ending, Ending::Complete | Ending::Refused(_));
            (job, ending, answered, usable.then_some(stream))
        };
        let (handle, registration) = AbortHandle::new_pair();
        self.aborts.insert(get, handle);
        self.fetches.push(Abortable::new(fetching.boxed(), registration));
    }

    fn fetched(&mut self, (mut job, ending, answered, stream): Fetched) {
        if self.aborts.remove(&job.get).is_none() {
            return;
        }
        if let Some(stream) = stream
            && self.idle.len() < MAX_IDLE
        {
            self.idle.push(stream);
        }
        if ending == Ending::Broken && !answered && !job.fresh {
            // The remote had closed the stream between two spans.
            job.fresh = true;
            self.jobs.push_front(job);
            return;
        }
        self.tell(Message::Ended { get: job.get, ending });
    }

    /// One data stream that the remote opened: requests and answers, until it closes.
    fn answer(&mut self, mut stream: Stream) {
        let (shared, outbox, desk) = (self.shared.clone(), self.outbox.clone(), self.desk.clone());
        let answering = async move {
            while let Ok(Some(request)) = data::read_request(&mut stream).await {
                let (sender, permission) = oneshot::channel();
                let token = {
                    let mut desk = lock(&desk);
                    desk.next += 1;
                    let token = desk.next;
                    desk.waiting.insert(token, sender);
                    token
                };
                lock(&outbox).push_back(Message::Asked { token, request });
                let Ok(permission) = permission.await else { return };
                let chunks = match permission.chunks {
                    Ok(chunks) => chunks,
                    Err(refusal) => match data::refuse(&mut stream, refusal).await {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                let mut hashes = Vec::new();
                let result = {
                    let patience = shared.stall_timeout * READER_PATIENCE;
                    let (id, store): (TransferId, _) = (request.transfer, &*shared.store);
                    let serving =
                        data::serve(&mut stream, id, &chunks, store, &shared.upload, patience, &mut hashes).boxed();
                    match select(serving, permission.stop).await {
                        Either::Left((result, _)) => result,
                        Either::Right(_) => Err(ServeError::Stream),
                    }
                };
                if !hashes.is_empty() {
                    // Should this be lost, the chunks are read once more: an error here harms nobody.
                    let _ = shared.store.verified(request.transfer, request.first, hashes.clone()).await;
                }
                lock(&desk).stops.remove(&token);
                let is_over = result.is_err();
                let error = match result {
                    Err(ServeError::Disk(error)) => Some(error),
                    Err(ServeError::Stream) | Ok(()) => None,
                };
                lock(&outbox).push_back(Message::Served { token, request, hashes, error });
                if is_over {
                    return;
                }
            }
        };
        self.inbound.push(answering.boxed());
    }

    /// Write what waits. `Ready` when there was progress.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.control, Control::Closed) {
            Control::Idle(mut stream) => {
                let Some(frame) = self.queue.pop_front() else {
                    self.control = Control::Idle(stream);
                    return Poll::Pending;
                };
                let writing = async move { protocol::write(&mut stream, frame).await.map(|()| stream) };
                self.control = Control::Writing(writing.boxed());
                Poll::Ready(())
            }
            Control::Writing(mut writing) => match writing.poll_unpin(cx) {
                Poll::Ready(result) => {
                    // What was lost with the stream is said again by whoever wants an answer.
                    self.control = result.map_or(Control::Closed, Control::Idle);
                    Poll::Ready(())
                }
                Poll::Pending => {
                    self.control = Control::Writing(writing);
                    Poll::Pending
                }
            },
            other => {
                self.control = other;
                Poll::Pending
            }
        }
    }

    /// Read the next message. `Ready` when there was progress.
    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let Poll::Ready((stream, result)) = reading.poll_unpin(cx) else { return Poll::Pending };
        self.reading = None;
        match result {
            Ok(Some(frame)) => {
                self.read_on(stream);
                self.tell(Message::Frame(frame));
            }
            Ok(None) | Err(ReadError::Io) => {}
            Err(ReadError::Fault(kind)) => self.tell(Message::Fault(kind)),
        }
        Poll::Ready(())
    }

    /// Start what waits for a stream. `Some` when one is to be opened.
    fn start_jobs(&mut self) -> bool {
        while let Some(job) = self.jobs.pop_front() {
            match (job.fresh, self.idle.pop()) {
                (false, Some(stream)) => self.begin(job, stream),
                (_, idle) => {
                    self.idle.extend(idle);
                    self.jobs.push_front(job);
                    break;
                }
            }
        }
        let open = self.opening < self.jobs.len();
        self.opening += usize::from(open);
        open
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Message;
    type InboundProtocol = SelectUpgrade<ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let protocols = SelectUpgrade::new(ReadyUpgrade::new(CONTROL_PROTOCOL), ReadyUpgrade::new(PROTOCOL));
        SubstreamProtocol::new(protocols, ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.aborts.is_empty() || !self.jobs.is_empty() || !lock(&self.desk).stops.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Purpose, Self::ToBehaviour>> {
        loop {
            // Nothing is read while the behaviour has not taken what was.
            if let Some(message) = lock(&self.outbox).pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(message));
            }
            let open = |name, purpose| {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(name), purpose).with_timeout(NEGOTIATION);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            };
            if matches!(self.control, Control::Closed) && !self.queue.is_empty() && !self.foreign {
                self.control = Control::Opening;
                return open(CONTROL_PROTOCOL, Purpose::Control);
            }
            if self.start_jobs() {
                return open(PROTOCOL, Purpose::Data);
            }
            if self.poll_control(cx).is_ready() || self.poll_reading(cx).is_ready() {
                continue;
            }
            if let Poll::Ready(Some(fetched)) = self.fetches.poll_next_unpin(cx) {
                if let Ok(fetched) = fetched {
                    self.fetched(fetched);
                }
                continue;
            }
            if let Poll::Ready(Some(())) = self.inbound.poll_next_unpin(cx) {
                continue;
            }
            if !lock(&self.outbox).is_empty() {
                continue;
            }
            return Poll::Pending;
        }
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Write(frame) if !self.foreign => self.enqueue(frame),
            Command::Write(_) => self.tell(Message::Foreign),
            Command::Get { get, request, chunks } => self.jobs.push_back(Job { get, request, chunks, fresh: false }),
            Command::Abort { get } => {
                self.jobs.retain(|job| job.get != get);
                if let Some(handle) = self.aborts.remove(&get) {
                    handle.abort();
                }
            }
            Command::Answer { token, permission } => {
                let (stop, stopped) = oneshot::channel();
                let mut desk = lock(&self.desk);
                if let Some(sender) = desk.waiting.remove(&token) {
                    if permission.is_ok() {
                        desk.stops.insert(token, stop);
                    }
                    let _ = sender.send(Permission { chunks: permission, stop: stopped });
                }
            }
            Command::Stop { token } => {
                if let Some(stop) = lock(&self.desk).stops.remove(&token) {
                    let _ = stop.send(());
                }
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), Purpose>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => match protocol {
                // The remote opens another when it has lost the first.
                Either::Left(stream) => self.read_on(stream),
                Either::Right(mut stream) => {
                    stream.ignore_for_keep_alive();
                    if self.inbound.len() < MAX_INBOUND {
                        self.answer(stream);
                    } else {
                        self.tell(Message::Fault(FaultKind::Flood));
                    }
                }
            },
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: mut stream, info }) => {
                stream.ignore_for_keep_alive();
                match info {
                    Purpose::Control => self.control = Control::Idle(stream),
                    Purpose::Data => {
                        self.opening = self.opening.saturating_sub(1);
                        match self.jobs.pop_front() {
                            Some(job) => self.begin(job, stream),
                            None if self.idle.len() < MAX_IDLE => self.idle.push(stream),
                            None => {}
                        }
                    }
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                if matches!(error, StreamUpgradeError::NegotiationFailed) {
                    self.foreign = true;
                    self.queue.clear();
                    self.tell(Message::Foreign);
                }
                match info {
                    Purpose::Control => {
                        // Nothing is tried again at once: what matters will be said again.
                        self.control = Control::Closed;
                        self.queue.clear();
                    }
                    Purpose::Data => {
                        self.opening = self.opening.saturating_sub(1);
                        if let Some(job) = self.jobs.pop_front() {
                            self.tell(Message::Ended { get: job.get, ending: Ending::Broken });
                        }
                    }
                }
            }
            _ => {}
        }
    }
}
