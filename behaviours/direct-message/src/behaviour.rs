//! The shell around the two cores: it owns the clock, the one timer and the inner request-response protocol.

mod lanes;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response::{self, InboundFailure, OutboundFailure, ResponseChannel};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::Config;
use crate::inbox::{self, Error, InboundNumber, Inbox, Stored, Token};
use crate::message::{Message, MessageId};
use crate::outbox::{self, Failure, Outbox, Outgoing, RequestNumber, Requeue, Settled};
use crate::protocol::{Batch, FaultKind, Receipts};
use lanes::{Asked, Lanes};

/// Streams of this protocol on one connection, both directions together: one batch each way, as much again for those
/// that a restarted peer has given up. Each may hold [`MAX_REQUEST_BYTES`]; a further one is closed at once.
const MAX_STREAMS: usize = 4;

/// What the application must know or do.
///
/// For one message the order is `Sent`, then `Settled` or `Requeued`; after `Requeued` it starts again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These messages were handed to the link; no receipt yet.
    Sent {
        /// Their receiver.
        peer: PeerId,
        /// In order.
        ids: Vec<MessageId>,
    },
    /// These messages came to their end: take them out of the outbox. It may say so again after a restart or a
    /// refill that ran at the same time.
    Settled {
        /// Their receiver.
        peer: PeerId,
        /// In order.
        receipts: Vec<(MessageId, Settled)>,
    },
    /// These messages were sent in vain and wait again.
    Requeued {
        /// Their receiver.
        peer: PeerId,
        /// In order.
        ids: Vec<MessageId>,
        /// Why.
        reason: Requeue,
    },
    /// Read the unsettled messages to that peer from the disk, lowest number first, and call [`Behaviour::refilled`],
    /// exactly once for each such event and in their order, with no message when there is none.
    Refill {
        /// Their receiver.
        peer: PeerId,
        /// Only messages with a higher number.
        after_seq: u64,
        /// At most so many.
        limit: usize,
        /// At most so many bytes of envelopes, added up.
        max_bytes: usize,
    },
    /// Store these messages durably, in this order and each once by author and id, stopping at the first that fails
    /// for the time being; then call [`Behaviour::stored`], in any case. Nothing more is taken from that peer before.
    Received {
        /// Their author, who is the connected peer.
        peer: PeerId,
        /// What [`Behaviour::stored`] wants to hear.
        token: Token,
        /// Signatures, addressee and times are checked. Texts and names are unescaped.
        messages: Vec<Message>,
    },
    /// A peer broke the protocol. Nothing was done about it.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// Direct messages over libp2p. See the crate's documentation for who calls what when.
///
/// It never dials: a peer gets its messages while [`Behaviour::peer_up`] holds for it.
pub struct Behaviour {
    inner: Lanes,
    outbox: Outbox,
    inbox: Inbox,
    /// The latest request to each peer, as the inner protocol calls it; earlier ones are of no interest any more.
    requests: BTreeMap<PeerId, (Asked, RequestNumber)>,
    /// Requests of others that wait for the disk. As many as the inbox has in hand.
    channels: BTreeMap<InboundNumber, ResponseChannel<Receipts>>,
    next_inbound: u64,
    /// Drained by each poll before anything is added.
    events: VecDeque<Event>,
    timer: Option<(Instant, Delay)>,
}

impl Behaviour {
    /// The behaviour of the node `local`. The seed decides the jitter of retries only.
    pub fn new(local: PeerId, config: Config, rng_seed: u64) -> Self {
        let inner_config = request_response::Config::default()
            .with_request_timeout(config.request_timeout)
            .with_max_concurrent_streams(MAX_STREAMS);
        Self {
            inner: Lanes::new(inner_config),
            outbox: Outbox::new(config.clone(), rng_seed),
            inbox: Inbox::new(local, config),
            requests: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_inbound: 0,
            events: VecDeque::new(),
            timer: None,
        }
    }

    /// A message was committed to the outbox on disk. Call in the order of the numbers. It goes out at once when the
    /// peer is up and nothing is in flight to it.
    pub fn queued(&mut self, peer: PeerId, message: Outgoing) {
        self.tell_outbox(outbox::Input::Queued { peer, message });
    }

    /// The outbox on disk holds something for that peer from an earlier run.
    pub fn pending(&mut self, peer: PeerId) {
        self.tell_outbox(outbox::Input::Pending { peer });
    }

    /// The answer to [`Event::Refill`]. `more` says that further messages lie behind these; with no message at all it
    /// says that the disk failed, and the question is put again a little later.
    pub fn refilled(&mut self, peer: PeerId, messages: Vec<Outgoing>, more: bool) {
        self.tell_outbox(outbox::Input::Refilled { peer, messages, more });
    }

    /// The message expired on disk. No event names it any more, unless it was put out already.
    pub fn forget(&mut self, peer: PeerId, id: MessageId) {
        self.tell_outbox(outbox::Input::Forget { peer, id });
    }

    /// A link to the peer stands and its hello has passed. Called again for a peer that is up it forgets failures, so
    /// that what waits for a retry goes out at once.
    pub fn peer_up(&mut self, peer: PeerId) {
        self.tell_outbox(outbox::Input::PeerUp { peer });
    }

    /// The last link to the peer is gone. What was in flight is reported as [`Event::Requeued`].
    pub fn peer_down(&mut self, peer: PeerId) {
        self.requests.remove(&peer);
        self.tell_outbox(outbox::Input::PeerDown { peer });
    }

    /// The answer to [`Event::Received`]. A message that is not named counts as not stored for the time being.
    ///
    /// # Errors
    /// A token that was answered already or never given out; nothing has changed then.
    pub fn stored(&mut self, token: Token, outcomes: Vec<(MessageId, Stored)>) -> Result<(), Error> {
        self.inbox.handle_input(inbox::Input::Stored { token, outcomes }, now())
    }

    fn tell_outbox(&mut self, input: outbox::Input) {
        self.outbox.handle_input(input, now());
    }

    /// Do what the cores want; whether there was anything.
    fn drain_cores(&mut self) -> bool {
        let mut progress = false;
        while let Some(output) = self.outbox.poll_output() {
            progress = true;
            match output {
                outbox::Output::Send { peer, request, batch } => self.send(peer, request, batch),
                outbox::Output::Refill { peer, after_seq, limit, max_bytes } => {
                    self.events.push_back(Event::Refill { peer, after_seq, limit, max_bytes });
                }
                outbox::Output::Sent { peer, ids } => self.events.push_back(Event::Sent { peer, ids }),
                outbox::Output::Settled { peer, receipts } => self.events.push_back(Event::Settled { peer, receipts }),
                outbox::Output::Requeued { peer, ids, reason } => {
                    self.events.push_back(Event::Requeued { peer, ids, reason });
                }
                outbox::Output::Fault { peer, kind } => self.events.push_back(Event::Fault { peer, kind }),
            }
        }
        while let Some(output) = self.inbox.poll_output() {
            progress = true;
            match output {
                inbox::Output::Store { peer, token, messages } => {
                    self.events.push_back(Event::Received { peer, token, messages });
                }
                inbox::Output::Respond { request, receipts } => {
                    if let Some(channel) = self.channels.remove(&request) {
                        // The link may be gone by now; the peer will send again and be told the same.
                        self.inner.send_response(channel, receipts);
                    }
                }
                inbox::Output::Reject { request } => {
                    self.channels.remove(&request);
                }
                inbox::Output::Fault { peer, kind } => self.events.push_back(Event::Fault { peer, kind }),
            }
        }
        progress
    }

    fn send(&mut self, peer: PeerId, request: RequestNumber, batch: Batch) {
        match self.inner.send_request(&peer, batch) {
            Some(asked) => drop(self.requests.insert(peer, (asked, request))),
            None => self.tell_outbox(outbox::Input::Failed { peer, request, error: Failure::NotConnected }),
        }
    }

    fn on_inner(&mut self, (lane, event): <Lanes as NetworkBehaviour>::ToSwarm) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request: batch, channel, .. } => {
                    let request = InboundNumber(self.next_inbound);
                    self.next_inbound += 1;
                    self.channels.insert(request, channel);
                    let input = inbox::Input::Batch { peer, request, batch, wall_ms: wall_ms() };
                    if let Err(error) = self.inbox.handle_input(input, now()) {
                        tracing::error!(%error, "a batch is no answer to a token");
                    }
                }
                request_response::Message::Response { request_id, response } => {
                    if let Some(request) = self.take_request(&peer, (lane, request_id)) {
                        self.tell_outbox(outbox::Input::Answered { peer, request, receipts: response.receipts });
                    }
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(request) = self.take_request(&peer, (lane, request_id)) {
                    tracing::debug!(%peer, %error, "a batch was not answered");
                    let error = match error {
                        OutboundFailure::DialFailure => Failure::NotConnected,
                        OutboundFailure::Timeout => Failure::Timeout,
                        OutboundFailure::ConnectionClosed => Failure::LinkLost,
                        OutboundFailure::UnsupportedProtocols => Failure::Unsupported,
                        OutboundFailure::Io(_) => Failure::Stream,
                    };
                    self.tell_outbox(outbox::Input::Failed { peer, request, error });
                }
            }
            // The disk's answer will find the channel closed. A refused request was reported as a fault before.
            request_response::Event::InboundFailure { peer, error, .. } => match error {
                InboundFailure::ResponseOmission => {}
                error => tracing::debug!(%peer, %error, "a batch could not be answered"),
            },
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn take_request(&mut self, peer: &PeerId, id: Asked) -> Option<RequestNumber> {
        let &(_, request) = self.requests.get(peer).filter(|(latest, _)| *latest == id)?;
        self.requests.remove(peer);
        Some(request)
    }

    /// Whether the timer fired. Afterwards it is set to the core's next timeout, and the task will be woken for it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.outbox.poll_timeout() else {
            self.timer = None;
            return false;
        };
        let now = now();
        if at <= now {
            self.outbox.handle_timeout(now);
            return true;
        }
        let delay = match &mut self.timer {
            Some((set_to, delay)) if *set_to == at => delay,
            timer => &mut timer.insert((at, Delay::new(at - now))).1,
        };
        // A delay that ends early is only a reason to look again.
        if delay.poll_unpin(cx).is_ready() {
            self.timer = None;
            return true;
        }
        false
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler =
        <request_response::cbor::Behaviour<Batch, Receipts> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection_id, local_addr, remote_addr)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection_id, peer, local_addr, remote_addr)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        maybe_peer: Option<PeerId>,
        addresses: &[Multiaddr],
        effective_role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection_id, maybe_peer, addresses, effective_role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection_id, peer, addr, role_override, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer_id, connection_id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            if self.drain_cores() {
                continue;
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    self.on_inner(event);
                    continue;
                }
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_out(|_| unreachable!("events were taken above")));
                }
                Poll::Pending => {}
            }
            if self.poll_timer(cx) {
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

/// Milliseconds since 1970 (UTC); 0 for a clock before that.
#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the cores")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
