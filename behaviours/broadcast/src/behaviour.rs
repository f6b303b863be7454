//! The shell around the core: it owns the clocks, the one timer, gossipsub and the inner request-response protocol.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{
    self, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity, PublishError, ValidationMode,
    WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, InboundFailure, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandlerSelect, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::Config;
use crate::envelope::{BroadcastId, Envelope, EnvelopeError, Kind, hash};
use crate::log::{self, Stats, Verdict};
use crate::protocol::{
    Answer, FaultKind, MAX_ANSWER_BYTES, MAX_FRAME_BYTES, MAX_QUESTION_BYTES, PROTOCOL, Question, StreamId, TOPIC,
};
use crate::score;
use crate::sync::{InboundNumber, Input, Output, QuestionNumber, Sync};

/// Streams of the sync protocol on one connection, both directions together; a further one is closed at once.
const MAX_STREAMS: usize = 4;

/// Most own broadcasts that wait for a subscriber. When it is full the oldest leaves the queue; neighbours get it by
/// sync all the same.
const MAX_WAITING: usize = 1_024;

/// How often the waiting ones are tried again; a new subscriber is a reason to try at once.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);

/// How long a broadcast may wait for a slow link before gossipsub gives it up. By default it gives up after one second what
/// it only hands on, and a busy machine then loses what the neighbour has to fetch. Relation: not above
/// [`Config::request_timeout`], and short enough that a link that stands still holds some seconds of traffic only.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;
type Exchange = request_response::cbor::Behaviour<Question, Answer>;

/// What the application must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A broadcast, told once in the life of this behaviour and in its author's order, but for one that fills an
    /// [`Event::Gap`] after all. Store the bytes by author, epoch and sequence; show it if that was new to the disk.
    Received {
        /// The broadcast, verified. Texts and names are unescaped. The author may be this node, in an earlier life.
        envelope: Envelope,
        /// For the disk and [`Behaviour::restore`].
        bytes: Arc<[u8]>,
        /// The neighbour that handed it over.
        via: PeerId,
        /// Sent before this node ran for the first time: store it, do not print it.
        backlog: bool,
    },
    /// These were not to be had in time; told once, before what follows them.
    Gap {
        /// Which author and epoch.
        stream: StreamId,
        /// The first missing sequence number.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// A peer broke the protocol. Nothing was done about it, but that its lie was not handed on.
    Fault {
        /// Who: the neighbour, or the author for [`FaultKind::Equivocation`].
        peer: PeerId,
        /// How.
        kind: FaultKind,
        /// The envelopes that prove it, where there are any.
        evidence: Vec<Arc<[u8]>>,
    },
}

/// Broadcasts over gossipsub. See the crate's documentation for who calls what when.
pub struct Behaviour {
    inner: Inner,
    topic: IdentTopic,
    core: Sync,
    /// The latest question to each peer, as the inner protocol calls it.
    questions: BTreeMap<PeerId, (OutboundRequestId, QuestionNumber)>,
    /// Questions of others; each is answered before the next poll of the inner protocol.
    channels: BTreeMap<InboundNumber, ResponseChannel<Answer>>,
    next_inbound: u64,
    /// Own broadcasts that found no subscriber yet.
    waiting: VecDeque<Arc<[u8]>>,
    publish_again_at: Option<Instant>,
    /// Drained by each poll before anything is added.
    events: VecDeque<Event>,
    timer: Option<(Instant, Delay)>,
}

#[derive(NetworkBehaviour)]
struct Inner {
    gossip: Gossip,
    exchange: Exchange,
}

/// gossipsub refused its configuration, which is fixed but for the heartbeat.
#[derive(Clone, Debug, thiserror::Error)]
#[error("gossipsub: {0}")]
pub struct SetupError(String);

impl Behaviour {
    /// The behaviour of the node with that key, in its life number `epoch`: never twice the same number with one key.
    /// The seed decides the jitter of sync only.
    ///
    /// # Errors
    /// gossipsub refuses to start; not with the libp2p this was built for.
    pub fn new(keypair: Keypair, epoch: u64, config: Config, rng_seed: u64) -> Result<Self, SetupError> {
        let topic = IdentTopic::new(TOPIC);
        let gossip_config = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::Anonymous)
            .validate_messages()
            .max_transmit_size(MAX_FRAME_BYTES)
            .publish_queue_duration(QUEUE_PATIENCE)
            .forward_queue_duration(QUEUE_PATIENCE)
            .message_id_fn(|message| gossipsub::MessageId::new(&hash(&message.data)))
            .build()
            .map_err(|error| SetupError(error.to_string()))?;
        // Whoever subscribes to anything else is not remembered for it.
        let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
        let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, gossip_config, filter)
            .map_err(|error| SetupError(error.to_owned()))?;
        gossip.with_peer_score(score::params(topic.hash()), score::thresholds()).map_err(SetupError)?;
        gossip.subscribe(&topic).map_err(|error| SetupError(error.to_string()))?;

        let codec = request_response::cbor::codec::Codec::default()
            .set_request_size_maximum(MAX_QUESTION_BYTES as u64)
            .set_response_size_maximum(MAX_ANSWER_BYTES as u64);
        let exchange_config = request_response::Config::default()
            .with_request_timeout(config.request_timeout)
            .with_max_concurrent_streams(MAX_STREAMS);
        let exchange = Exchange::with_codec(codec, [(PROTOCOL, ProtocolSupport::Full)], exchange_config);
        Ok(Self {
            inner: Inner { gossip, exchange },
            topic,
            core: Sync::new(keypair, epoch, config, rng_seed),
            questions: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_inbound: 0,
            waiting: VecDeque::new(),
            publish_again_at: None,
            events: VecDeque::new(),
            timer: None,
        })
    }

    /// What the host thinks of a peer with a link: 0 for nothing bad, and the further below, the less it is listened to.
    pub fn set_score(&mut self, peer: PeerId, score: f64) {
        self.inner.gossip.set_application_score(&peer, score);
    }

    /// At start, before the first link: what is on the own disk and still in retention, in any order, own broadcasts
    /// included. Signatures are not looked at again: what is on disk was verified before it was written. A `newcomer`
    /// has never heard anything: what neighbours hand over from before now is then flagged as backlog.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = Vec<u8>>, newcomer: bool) {
        self.core.restore(rows, newcomer, wall_ms());
    }

    /// Say something to everybody. It goes out at once, or as soon as somebody listens. It is not told as an event;
    /// store the bytes like a received one.
    ///
    /// # Errors
    /// A text, a name or a team label that is too long; nothing has changed then.
    pub fn publish(
        &mut self,
        kind: Kind,
        text: String,
        name: String,
        team: String,
        now_ms: u64,
    ) -> Result<(BroadcastId, Arc<[u8]>), EnvelopeError> {
        let (id, bytes) = self.core.publish(kind, text, name, team, now_ms, now())?;
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(bytes.clone());
        self.publish_waiting();
        Ok((id, bytes))
    }

    /// The number that the next [`Behaviour::publish`] will give.
    pub fn next_sequence(&self) -> u64 {
        self.core.next_sequence()
    }

    /// A link to the peer stands and its hello has passed: compare with it, now and every so often.
    pub fn peer_up(&mut self, peer: PeerId) {
        self.core.handle_input(Input::PeerUp { peer }, wall_ms(), now());
    }

    /// The last link to the peer is gone.
    pub fn peer_down(&mut self, peer: PeerId) {
        self.questions.remove(&peer);
        self.core.handle_input(Input::PeerDown { peer }, wall_ms(), now());
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// How many own broadcasts wait for a first subscriber.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many peers take part in the topic, as far as gossipsub knows.
    pub fn subscribers(&self) -> usize {
        let topic = self.topic.hash();
        self.inner.gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).count()
    }

    /// Hand to gossipsub what waits.
    fn publish_waiting(&mut self) {
        self.publish_again_at = None;
        while let Some(bytes) = self.waiting.front() {
            match self.inner.gossip.publish(self.topic.clone(), bytes.to_vec()) {
                Ok(_) | Err(PublishError::Duplicate) => {}
                Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {
                    self.publish_again_at = Some(now() + PUBLISH_AGAIN);
                    return;
                }
                // Neighbours get it by sync.
                Err(error) => tracing::warn!(%error, "a broadcast cannot be published"),
            }
            self.waiting.pop_front();
        }
    }

    /// Do what the core wants; whether there was anything.
    fn drain_core(&mut self) -> bool {
        let mut progress = false;
        while let Some(output) = self.core.poll_output() {
            progress = true;
            match output {
                Output::Ask { peer, number, question } => self.ask(peer, number, question),
                Output::Answer { request, answer } => {
                    if let Some(channel) = self.channels.remove(&request) {
                        // The link may be gone by now; the peer will ask again.
                        let _ = self.inner.exchange.send_response(channel, answer);
                    }
                }
                Output::Refuse { request } => {
                    self.channels.remove(&request);
                }
                Output::Log(log::Output::Received { envelope, bytes, via, backlog }) => {
                    self.events.push_back(Event::Received { envelope, bytes, via, backlog });
                }
                Output::Log(log::Output::Gap { stream, from, to }) => {
                    self.events.push_back(Event::Gap { stream, from, to });
                }
                Output::Log(log::Output::Fault { peer, kind, evidence }) => {
                    self.events.push_back(Event::Fault { peer, kind, evidence });
                }
                // The core keeps it to itself.
                Output::Log(log::Output::Waiting { .. }) => {}
            }
        }
        progress
    }

    fn ask(&mut self, peer: PeerId, number: QuestionNumber, question: Question) {
        // The inner protocol would dial.
        if self.inner.exchange.is_connected(&peer) {
            let id = self.inner.exchange.send_request(&peer, question);
            self.questions.insert(peer, (id, number));
        } else {
            self.core.handle_input(Input::Failed { peer, number }, wall_ms(), now());
        }
    }

    fn on_inner(&mut self, event: InnerEvent) {
        match event {
            InnerEvent::Gossip(event) => self.on_gossip(event),
            InnerEvent::Exchange(event) => self.on_exchange(event),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = match self.core.heard(propagation_source, &message.data, wall_ms(), now()) {
                    Verdict::Accept => MessageAcceptance::Accept,
                    Verdict::Ignore => MessageAcceptance::Ignore,
                    Verdict::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.inner.gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            gossipsub::Event::Subscribed { .. } => self.publish_waiting(),
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "too slow for gossip; it will ask for what it missed");
            }
            gossipsub::Event::Unsubscribed { .. } | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn on_exchange(&mut self, event: request_response::Event<Question, Answer>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request: question, channel, .. } => {
                    let request = InboundNumber(self.next_inbound);
                    self.next_inbound += 1;
                    self.channels.insert(request, channel);
                    self.core.handle_input(Input::Asked { peer, request, question }, wall_ms(), now());
                }
                request_response::Message::Response { request_id, response: answer } => {
                    if let Some(number) = self.take_question(&peer, request_id) {
                        self.core.handle_input(Input::Answered { peer, number, answer }, wall_ms(), now());
                    }
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(number) = self.take_question(&peer, request_id) {
                    tracing::debug!(%peer, %error, "a question was not answered");
                    self.core.handle_input(Input::Failed { peer, number }, wall_ms(), now());
                }
            }
            request_response::Event::InboundFailure { peer, error, .. } => match error {
                InboundFailure::ResponseOmission => {}
                error => tracing::debug!(%peer, %error, "a question could not be answered"),
            },
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn take_question(&mut self, peer: &PeerId, id: OutboundRequestId) -> Option<QuestionNumber> {
        let &(_, number) = self.questions.get(peer).filter(|(latest, _)| *latest == id)?;
        self.questions.remove(peer);
        Some(number)
    }

    /// Whether the timer fired. Afterwards it is set to the next timeout, and the task will be woken for it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.core.poll_timeout().into_iter().chain(self.publish_again_at).min() else {
            self.timer = None;
            return false;
        };
        let now = now();
        if at <= now {
            self.core.handle_timeout(wall_ms(), now);
            if self.publish_again_at.is_some_and(|at| at <= now) {
                self.publish_waiting();
            }
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
    type ConnectionHandler = ConnectionHandlerSelect<
        <Gossip as NetworkBehaviour>::ConnectionHandler,
        <Exchange as NetworkBehaviour>::ConnectionHandler,
    >;
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
            if self.drain_core() {
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

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the core")]
fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970 (UTC); 0 for a clock before that.
#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the core")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
