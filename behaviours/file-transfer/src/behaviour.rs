//! The shell around the cores: libp2p's traits, the clock, and which connection carries what.
//!
//! *Which connection.* The first connection to a peer is its primary one: control messages go there and nowhere else.
//! Spans are asked for on the newest other one, a bulk connection, and on the primary one only while there is none.
//! Answers go where the request came from, so it is the receiver who chooses, and who wants and gives back bulk links.

mod bulk;
mod carry_out;
mod event;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::Config;
use crate::fault::FaultKind;
use crate::handler::{Command, Handler, Message, Shared};
use crate::hash::Hash;
use crate::manifest::{Manifest, ManifestError, Offer, TransferId};
use crate::pacing::{Pace as _, TokenBucket};
use crate::plan::Plan;
use crate::protocol::data::Gate;
use crate::protocol::{Frame, Refusal, Request};
use crate::receiver::{self, Ending, GetId, Receiver};
use crate::record::{Direction, Record, Snapshot, State};
use crate::sender::{self, Sender, ServeId};
use crate::store::{ChunkStore, StoreError};

use bulk::Connections;
pub use event::Event;

/// Messages of a peer whose hello has not passed here yet; the oldest goes. What matters is said again.
const MAX_EARLY: usize = 8;
/// Bytes of such messages, of all peers together; beyond it none is kept.
const MAX_EARLY_BYTES: usize = 4 << 20;
/// Requests for spans that one peer may make a second, on average; bursts of as many.
const REQUEST_RATE: u64 = 4_000;

/// The application asked for something that cannot be. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such transfer, or not with that peer.
    #[error("there is no such transfer")]
    Unknown,
    /// The transfer is over, or not in the state that this needs.
    #[error("the transfer is {0}")]
    State(State),
    /// It is in use already.
    #[error("that transfer exists already")]
    Exists,
    /// More than [`Config::max_transfers`].
    #[error("there are too many transfers; wait for some to end")]
    TooMany,
    /// There is nobody to send to.
    #[error("there is nobody to send to")]
    NoReceiver,
    /// The offer cannot be made.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Error {
    fn from_state(state: Option<State>) -> Self {
        state.map_or(Self::Unknown, Self::State)
    }
}

/// What the disk has done.
enum Done {
    Finished(TransferId, Result<String, StoreError>),
    Hashed(TransferId, u64, Result<Hash, StoreError>),
    Discarded,
}

/// What is known of a peer whose hello has passed.
struct Peer {
    messages: TokenBucket,
    requests: TokenBucket,
    flooding: bool,
}

/// The protocol `/althing/file-transfer/1`. See the crate's documentation.
pub struct Behaviour {
    key: Keypair,
    config: Config,
    shared: Shared,
    sender: Sender,
    receiver: Receiver,
    connections: Connections,
    up: BTreeMap<PeerId, Peer>,
    early: BTreeMap<PeerId, VecDeque<Frame>>,
    /// Where each span was asked for.
    gets: BTreeMap<GetId, (PeerId, ConnectionId)>,
    /// Where each request came from, and its number there.
    serves: BTreeMap<ServeId, (PeerId, ConnectionId, u64)>,
    next_serve: u64,
    disk: FuturesUnordered<BoxFuture<'static, Done>>,
    pending: VecDeque<ToSwarm<Event, Command>>,
    timer: Option<(Instant, Delay)>,
}

impl Behaviour {
    /// A node with that Ed25519 key and disk. `rng_seed` decides the jitter of retries only.
    pub fn new(key: Keypair, config: Config, store: Arc<dyn ChunkStore>, rng_seed: u64) -> Self {
        let shared = Shared {
            store,
            upload: Arc::new(Gate::new(config.upload_limit)),
            download: Arc::new(Gate::new(config.download_limit)),
            stall_timeout: config.stall_timeout,
        };
        Self {
            sender: Sender::new(config.clone(), key.clone()),
            receiver: Receiver::new(config.clone(), rng_seed),
            connections: Connections::new(config.bulk_idle),
            key,
            config,
            shared,
            up: BTreeMap::new(),
            early: BTreeMap::new(),
            gets: BTreeMap::new(),
            serves: BTreeMap::new(),
            next_serve: 0,
            disk: FuturesUnordered::new(),
            pending: VecDeque::new(),
            timer: None,
        }
    }

    /// Bring back what an earlier run kept, before the swarm runs: an offer with its records (one for an incoming
    /// transfer, one for each receiver of an outgoing one) and the hashes of the chunks that [`ChunkStore::verified`]
    /// remembers, by their numbers. Nothing of it is reported again. Whatever is not over goes on when its peer is up.
    ///
    /// # Errors
    /// [`Error::Exists`], and [`Error::Unknown`] without a record.
    pub fn restore(&mut self, offer: Offer, records: Vec<Record>, verified: &[(u64, Hash)]) -> Result<(), Error> {
        let Some(first) = records.first().cloned() else { return Err(Error::Unknown) };
        let restored = match first.direction {
            Direction::In => self.receiver.restore(offer, first, verified, now()),
            Direction::Out => self.sender.restore(offer, records, verified),
        };
        if restored { Ok(()) } else { Err(Error::Exists) }
    }

    /// The hello of that peer has passed: nothing is said to a peer, and nothing it says is taken, before.
    pub fn peer_up(&mut self, peer: PeerId) {
        let now = now();
        let rate = (self.config.message_rate.max(1.0)) as u64;
        let entry = Peer {
            messages: TokenBucket::new(rate, rate * 10, now),
            requests: TokenBucket::new(REQUEST_RATE, REQUEST_RATE, now),
            flooding: false,
        };
        if self.up.insert(peer, entry).is_some() {
            return;
        }
        self.sender.handle_input(sender::Input::PeerUp { peer }, now);
        self.receiver.handle_input(receiver::Input::PeerUp { peer }, now);
        for frame in self.early.remove(&peer).unwrap_or_default() {
            self.on_frame(peer, frame);
        }
    }

    /// The last link to that peer is gone. Its transfers pause.
    pub fn peer_down(&mut self, peer: PeerId) {
        if self.up.remove(&peer).is_none() {
            return;
        }
        let now = now();
        self.sender.handle_input(sender::Input::PeerDown { peer }, now);
        self.receiver.handle_input(receiver::Input::PeerDown { peer }, now);
    }

    /// Offer files to these peers, connected or not. `id`: 16 bytes of the system's randomness, under which the store
    /// knows the sources already. `sent_at_ms`: the own clock, in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::TooMany`], [`Error::NoReceiver`], or [`Error::Manifest`] when it cannot be signed.
    pub fn offer(
        &mut self,
        id: TransferId,
        manifest: Manifest,
        peers: &[PeerId],
        plan: Plan,
        sent_at_ms: u64,
    ) -> Result<Offer, Error> {
        if self.sender.knows(&id) || self.receiver.knows(&id) {
            return Err(Error::Exists);
        }
        if self.sender.live() >= self.config.max_transfers {
            return Err(Error::TooMany);
        }
        if peers.is_empty() {
            return Err(Error::NoReceiver);
        }
        let offer = Offer::sign(&self.key, id, manifest, sent_at_ms)?;
        self.sender.offer(offer.clone(), peers, plan, now());
        Ok(offer)
    }

    /// Take an incoming offer; the store must have room for it already.
    ///
    /// # Errors
    /// [`Error::Unknown`], or [`Error::State`] when it is not offered any more.
    pub fn accept(&mut self, id: TransferId) -> Result<(), Error> {
        self.receiver.accept(id, now()).map_err(Error::from_state)
    }

    /// Refuse an incoming offer, for good.
    ///
    /// # Errors
    /// As [`Behaviour::accept`].
    pub fn reject(&mut self, id: TransferId) -> Result<(), Error> {
        self.receiver.reject(id, now()).map_err(Error::from_state)
    }

    /// Hold a transfer until [`Behaviour::resume`], over restarts. Of an outgoing one with all receivers, or with that
    /// one.
    ///
    /// # Errors
    /// [`Error::Unknown`], or [`Error::State`] when it is over, or incoming and not accepted.
    pub fn pause(&mut self, id: TransferId, peer: Option<PeerId>) -> Result<(), Error> {
        let result = match self.sender.knows(&id) {
            true => self.sender.pause(id, peer, now()),
            false => self.receiver.pause(id, now()),
        };
        result.map_err(Error::from_state)
    }

    /// Undo [`Behaviour::pause`]; also tries again at once what waits for its next attempt.
    ///
    /// # Errors
    /// As [`Behaviour::pause`].
    pub fn resume(&mut self, id: TransferId, peer: Option<PeerId>) -> Result<(), Error> {
        let result = match self.sender.knows(&id) {
            true => self.sender.resume(id, peer, now()),
            false => self.receiver.resume(id, now()),
        };
        result.map_err(Error::from_state)
    }

    /// Give up a transfer, for good. Of an outgoing one with all receivers, or with that one.
    ///
    /// # Errors
    /// [`Error::Unknown`], or [`Error::State`] when it is over, or the final files are just being made.
    pub fn cancel(&mut self, id: TransferId, peer: Option<PeerId>) -> Result<(), Error> {
        let result = match self.sender.knows(&id) {
            true => self.sender.cancel(id, peer, now()),
            false => self.receiver.cancel(id, now()),
        };
        result.map_err(Error::from_state)
    }

    /// How every transfer stands: outgoing ones, one for each receiver, then incoming ones, each oldest first; those that
    /// are over included while they are remembered.
    pub fn transfers(&self) -> Vec<Snapshot> {
        let now = now();
        let mut all = self.sender.transfers(now);
        all.extend(self.receiver.transfers(now));
        all
    }

    /// Bytes a second for all transfers together; `None` is without limit. Takes effect at once.
    pub fn set_limits(&mut self, upload: Option<u64>, download: Option<u64>) {
        self.shared.upload.set(upload);
        self.shared.download.set(download);
    }

    fn event(&mut self, event: Event) {
        self.pending.push_back(ToSwarm::GenerateEvent(event));
    }

    fn notify(&mut self, peer: PeerId, connection: ConnectionId, command: Command) {
        let handler = NotifyHandler::One(connection);
        self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: command });
    }

    fn write(&mut self, to: PeerId, frame: Frame) {
        if let Some(connection) = self.connections.primary(&to) {
            self.notify(to, connection, Command::Write(frame));
        }
    }

    fn on_frame(&mut self, peer: PeerId, frame: Frame) {
        let now = now();
        match frame {
            Frame::Ask { .. } | Frame::Status { .. } => {
                self.sender.handle_input(sender::Input::Frame { peer, frame }, now);
            }
            Frame::Offer { transfer, .. } if self.sender.knows(&transfer) => {
                // Our own name of an own transfer: nobody else can have drawn it.
                self.event(Event::Fault { peer, kind: FaultKind::ConflictingOffer });
            }
            Frame::Offer { .. } | Frame::Page { .. } | Frame::State { .. } => {
                self.receiver.handle_input(receiver::Input::Frame { peer, frame }, now);
            }
        }
    }

    /// Whether that peer may say one more thing; a flood is said once until it ebbs.
    fn admit(&mut self, peer: PeerId, is_request: bool) -> bool {
        let now = now();
        let Some(entry) = self.up.get_mut(&peer) else { return false };
        let bucket = if is_request { &mut entry.requests } else { &mut entry.messages };
        let mut taken = bucket.clone();
        let admitted = taken.ready_at(1, now) <= now;
        if admitted {
            *bucket = taken;
        }
        let news = !admitted && !entry.flooding;
        entry.flooding = !admitted;
        if news {
            self.event(Event::Fault { peer, kind: FaultKind::Flood });
        }
        admitted
    }

    fn keep_early(&mut self, peer: PeerId, frame: Frame) {
        let held = self.early.values().flatten().map(Frame::weight).sum::<usize>();
        if held + frame.weight() > MAX_EARLY_BYTES {
            return;
        }
        let frames = self.early.entry(peer).or_default();
        if frames.len() >= MAX_EARLY {
            frames.pop_front();
        }
        frames.push_back(frame);
    }

    fn on_asked(&mut self, peer: PeerId, connection: ConnectionId, token: u64, request: Request) {
        if !self.admit(peer, true) {
            let permission = Err(Refusal::Busy);
            return self.notify(peer, connection, Command::Answer { token, permission });
        }
        self.next_serve += 1;
        let serve = ServeId(self.next_serve);
        self.serves.insert(serve, (peer, connection, token));
        self.sender.handle_input(sender::Input::Requested { peer, serve, request }, now());
    }

    /// Give back bulk connections that nothing uses.
    fn look_at_bulk(&mut self, now: Instant) -> bool {
        let (receiver, serves) = (&self.receiver, &self.serves);
        // A transfer that goes on will use it for its next span, if it does not now.
        let busy = |peer: &PeerId, connection: ConnectionId| {
            receiver.wanted_from(peer) > 0 || serves.values().any(|(_, used, _)| *used == connection)
        };
        let idle = self.connections.idle(now, busy);
        let any = !idle.is_empty();
        for (peer, connection) in idle {
            self.event(Event::BulkIdle { peer, connection });
        }
        any
    }

    /// Set the timer to the next deadline; whether it has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let cores = self.sender.poll_timeout().into_iter().chain(self.receiver.poll_timeout());
        let Some(next) = cores.chain(self.connections.poll_timeout()).min() else {
            self.timer = None;
            return false;
        };
        let timer = match &mut self.timer {
            Some((at, timer)) if *at == next => timer,
            timer => &mut timer.insert((next, Delay::new(next.saturating_duration_since(now())))).1,
        };
        let fired = Pin::new(timer).poll(cx).is_ready();
        if fired {
            self.timer = None;
        }
        fired
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.shared.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.shared.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.connections.opened(peer_id, connection_id, endpoint.is_dialer(), now());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, remaining_established, .. }) => {
                self.connections.closed(&peer_id, connection_id);
                if remaining_established == 0 {
                    self.early.remove(&peer_id);
                }
                let now = now();
                let gets = self.gets.iter().filter(|(_, (_, used))| *used == connection_id).map(|(get, _)| *get);
                for get in gets.collect::<Vec<_>>() {
                    self.gets.remove(&get);
                    let input = receiver::Input::Ended { get, ending: Ending::Broken };
                    self.receiver.handle_input(input, now);
                }
                let serves = self.serves.iter().filter(|(_, (_, used, _))| *used == connection_id);
                for serve in serves.map(|(serve, _)| *serve).collect::<Vec<_>>() {
                    self.serves.remove(&serve);
                    self.sender.handle_input(sender::Input::Served { serve, error: None }, now);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, message: THandlerOutEvent<Self>) {
        let now = now();
        match message {
            Message::Frame(frame) if !self.up.contains_key(&peer) => self.keep_early(peer, frame),
            Message::Frame(frame) => {
                if self.admit(peer, false) {
                    self.on_frame(peer, frame);
                }
            }
            Message::Verified { get, first, hashes } => {
                self.receiver.handle_input(receiver::Input::Verified { get, first, hashes }, now);
            }
            Message::Moved { get, bytes, waited } => {
                self.connections.used(&peer, now);
                self.receiver.handle_input(receiver::Input::Moved { get, bytes, waited }, now);
            }
            Message::Ended { get, ending } => {
                self.gets.remove(&get);
                self.connections.used(&peer, now);
                self.receiver.handle_input(receiver::Input::Ended { get, ending }, now);
            }
            Message::Asked { token, request } => self.on_asked(peer, connection, token, request),
            Message::Served { token, request, hashes, error } => {
                if !hashes.is_empty() {
                    let (id, first) = (request.transfer, request.first);
                    self.sender.handle_input(sender::Input::Hashed { id, first, hashes }, now);
                }
                let mut serves = self.serves.iter();
                let served = serves.find(|(_, at)| (at.1, at.2) == (connection, token)).map(|(serve, _)| *serve);
                if let Some(serve) = served {
                    self.serves.remove(&serve);
                    self.sender.handle_input(sender::Input::Served { serve, error }, now);
                }
            }
            Message::Foreign => self.sender.handle_input(sender::Input::Unsupported { peer }, now),
            Message::Fault(kind) => self.event(Event::Fault { peer, kind }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.pending.pop_front() {
                return Poll::Ready(action);
            }
            if let Some(output) = self.sender.poll_output() {
                self.carry_out_for_sender(output);
                continue;
            }
            if let Some(output) = self.receiver.poll_output() {
                self.carry_out_for_receiver(output);
                continue;
            }
            if let Poll::Ready(Some(done)) = self.disk.poll_next_unpin(cx) {
                self.on_done(done);
                continue;
            }
            if self.poll_timer(cx) {
                let now = now();
                self.sender.handle_timeout(now);
                self.receiver.handle_timeout(now);
                self.look_at_bulk(now);
                continue;
            }
            return Poll::Pending;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the cores")]
fn now() -> Instant {
    Instant::now()
}
