//! The shell around the cores: it owns the clocks, the one timer and the inner request-response protocol.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::{Config, Role};
use crate::detector::{self, Detector, Incarnation, ProbeId, RelayToken, Stamps, Status};
use crate::event::Event;
use crate::fault::FaultKind;
use crate::limits::{Kind, Limits};
use crate::protocol::{Codec, PROTOCOL, Request, Response};
use crate::reports::{self, Reports};
use crate::statement::{Alive, StatementError, Tombstone};

/// Streams of this protocol on one connection, both directions together. Further inbound ones are closed at once.
const MAX_STREAMS: usize = 64;
/// Frames of tombstones that wait for one peer. Beyond it the peer is told the whole list again later.
const MAX_TELLS: usize = 32;

type Inner = request_response::Behaviour<Codec>;

/// Which question an answer belongs to.
#[derive(Clone, Copy)]
enum Asked {
    Probe { probe: ProbeId, asked_ms: u64 },
    Help { target: PeerId, probe: ProbeId },
    Report { target: PeerId },
    Tell,
}

/// A frame of tombstones: whether it is the first of the whole list, and what is in it.
type Tell = (bool, Vec<Vec<u8>>);

/// Liveness over libp2p. See the crate's documentation for who calls what when. It never dials.
pub struct Behaviour {
    inner: Inner,
    key: Keypair,
    local: PeerId,
    detector: Detector,
    reports: Reports,
    inbound: Limits,
    outbound: Limits,
    /// Bounded by what the cores have under way, for each request ends within [`Config::request_timeout`].
    asked: BTreeMap<OutboundRequestId, Asked>,
    /// Probes of others that the detector is about to answer.
    probes: BTreeMap<u64, (u64, ResponseChannel<Response>)>,
    /// Questions for help; as many as the detector admits.
    relays: BTreeMap<RelayToken, ResponseChannel<Response>>,
    /// Tombstones for each peer, in order. The first is on its way.
    tells: BTreeMap<PeerId, VecDeque<Tell>>,
    next_inbound: u64,
    /// Drained by each poll before anything is added.
    events: VecDeque<Event>,
    timer: Option<(Instant, Delay)>,
}

impl Behaviour {
    /// The behaviour of the node with that key in that boot (its start count). Take the seed from the operating system: it
    /// makes challenges that nobody may guess.
    ///
    /// # Errors
    /// A key that is not Ed25519.
    pub fn new(key: Keypair, role: Role, boot: u64, config: Config, rng_seed: u64) -> Result<Self, StatementError> {
        let inner_config = request_response::Config::default()
            .with_request_timeout(config.request_timeout)
            .with_max_concurrent_streams(MAX_STREAMS);
        Ok(Self {
            inner: Inner::with_codec(Codec, [(PROTOCOL, ProtocolSupport::Full)], inner_config),
            local: key.public().to_peer_id(),
            detector: Detector::new(boot, config.clone(), rng_seed),
            reports: Reports::new(key.clone(), role, config)?,
            key,
            inbound: Limits::inbound(),
            outbound: Limits::outbound(),
            asked: BTreeMap::new(),
            probes: BTreeMap::new(),
            relays: BTreeMap::new(),
            tells: BTreeMap::new(),
            next_inbound: 0,
            events: VecDeque::new(),
            timer: None,
        })
    }

    /// Change the probe interval. It holds from the next probes on; a verdict is reckoned with the new one.
    pub fn set_interval(&mut self, interval: Duration) {
        self.tell_detector(detector::Input::Interval(interval));
    }

    /// Change the number of misses that make a neighbour dead. Who has missed as many is judged at once.
    pub fn set_misses(&mut self, misses: u32) {
        self.tell_detector(detector::Input::Misses(misses));
    }

    /// Which peers are the configured seeds: reports go to them, and their tombstones count. Call it before the link to a
    /// seed is up, or say so with [`Behaviour::peer_up`]: what a peer told before it was known as a seed is lost.
    pub fn set_seeds(&mut self, seeds: Vec<PeerId>) {
        let local = self.local;
        let seeds = seeds.into_iter().filter(|seed| *seed != local).collect();
        self.tell_reports(reports::Input::Seeds(seeds));
    }

    /// A link to the peer stands and its hello, with that boot count, has passed. `is_seed` adds it to the configured
    /// seeds. Called again for a peer that is up it is a sign of life.
    pub fn peer_up(&mut self, peer: PeerId, boot: u64, is_seed: bool) {
        if is_seed && !self.reports.seeds().contains(&peer) {
            let mut seeds = self.reports.seeds().clone();
            seeds.insert(peer);
            self.tell_reports(reports::Input::Seeds(seeds));
        }
        self.tell_detector(detector::Input::Up { peer, boot });
        self.tell_reports(reports::Input::Up { peer, incarnation: Incarnation::new(boot, 0) });
    }

    /// The peer said goodbye. It is no neighbour any more.
    pub fn peer_left(&mut self, peer: PeerId) {
        self.forget(peer);
    }

    /// The last link to the peer is gone without a goodbye. It is probed by [`Event::Dial`] from now on.
    pub fn peer_lost(&mut self, peer: PeerId) {
        self.tells.remove(&peer);
        self.tell_detector(detector::Input::Lost { peer });
        self.tell_reports(reports::Input::Down { peer });
    }

    /// A dial to the peer has failed. Only makes the miss known earlier.
    pub fn dial_failed(&mut self, peer: PeerId) {
        self.tell_detector(detector::Input::DialFailed { peer });
    }

    /// Any other sign of life over the peer's link, such as an answered ping. Not needed, and never harmful.
    pub fn seen(&mut self, peer: PeerId) {
        self.tell_detector(detector::Input::Seen { peer });
    }

    /// Watch a peer that has no link, for example one that is remembered from an earlier start.
    pub fn watch(&mut self, peer: PeerId, boot: u64) {
        self.tell_detector(detector::Input::Watch { peer, boot });
        self.tell_reports(reports::Input::Watch { peer, incarnation: Incarnation::new(boot, 0) });
    }

    /// Nobody is interested in that peer any more: it is neither probed nor listed.
    pub fn forget(&mut self, peer: PeerId) {
        self.tells.remove(&peer);
        self.tell_detector(detector::Input::Forget { peer });
        self.tell_reports(reports::Input::Forget { peer });
    }

    /// Probe it now instead of at its next turn; nothing happens when a probe is under way, and it waits a moment when
    /// there was a sign of life just now. For the health check.
    pub fn check(&mut self, peer: PeerId) {
        self.tell_detector(detector::Input::Check { peer });
    }

    /// What is thought of everybody who is watched, in the order of their PeerIds.
    pub fn statuses(&self) -> Vec<Status> {
        self.detector.statuses(now()).collect()
    }

    /// What is thought of one peer; none when it is not watched.
    pub fn status(&self, peer: &PeerId) -> Option<Status> {
        self.detector.status(peer, now())
    }

    /// The own incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.detector.incarnation()
    }

    /// Lifeguard's local health: 0 is good, up to [`Config::max_health`] for a starved process.
    pub fn health(&self) -> u32 {
        self.detector.health()
    }

    /// Whether this seed says that the peer is dead: leave it out of what that seed lists. With a boot count: that life or
    /// a later one.
    pub fn is_buried_by(&self, seed: &PeerId, peer: &PeerId, boot: Option<u64>) -> bool {
        self.reports.buried_by(peer, boot).contains(seed)
    }

    /// Whether more than half of the configured seeds say that the peer is dead. For what no single seed has listed.
    pub fn is_buried(&self, peer: &PeerId, boot: Option<u64>) -> bool {
        2 * self.reports.buried_by(peer, boot).len() > self.reports.seeds().len()
    }

    /// At a seed: its own standing tombstones.
    pub fn tombstones(&self) -> Vec<Tombstone> {
        self.reports.tombstones()
    }

    fn tell_detector(&mut self, input: detector::Input) {
        self.detector.handle_input(input, now());
    }

    fn tell_reports(&mut self, input: reports::Input) {
        self.reports.handle_input(input, now(), wall_ms());
    }

    /// Do what the cores want; whether there was anything.
    fn drain_cores(&mut self) -> bool {
        let mut progress = false;
        loop {
            if let Some(output) = self.detector.poll_output() {
                self.carry_out_for_detector(output);
            } else if let Some(output) = self.reports.poll_output() {
                self.carry_out_for_reports(output);
            } else {
                return progress;
            }
            progress = true;
        }
    }

    fn carry_out_for_detector(&mut self, output: detector::Output) {
        use detector::Output;
        match output {
            Output::Probe { to, probe, suspicion } => {
                let asked_ms = wall_ms();
                let incarnation = self.detector.incarnation();
                // A probe that is not sent counts as one that was not answered: the link is going.
                let request = Request::Probe { sent_ms: asked_ms, incarnation, suspicion };
                self.send(to, Kind::Probe, request, Asked::Probe { probe, asked_ms });
            }
            Output::AskHelper { helper, target, probe, suspicion, patience } => {
                let request = Request::Relay { target, suspicion, patience };
                if !self.send(helper, Kind::Relay, request, Asked::Help { target, probe }) {
                    self.tell_detector(detector::Input::Unhelpful { helper, target, probe });
                }
            }
            Output::Answer { request, incarnation, challenge } => {
                let Some((received_ms, channel)) = self.probes.remove(&request) else { return };
                let sign = |challenge| Alive { peer: self.local, incarnation, challenge }.sign(&self.key).ok();
                let statement = challenge.and_then(sign);
                let answer = Response::Alive { received_ms, sent_ms: wall_ms(), incarnation, statement };
                // The link may be gone by now.
                let _ = self.inner.send_response(channel, answer);
            }
            Output::RelayAnswer { token, statement } => {
                if let Some(channel) = self.relays.remove(&token) {
                    let _ = self.inner.send_response(channel, Response::Relayed { statement });
                }
            }
            Output::RelayRefuse { token } => {
                if let Some(channel) = self.relays.remove(&token) {
                    let _ = self.inner.send_response(channel, Response::Refused);
                }
            }
            Output::Dial(peer) => self.events.push_back(Event::Dial(peer)),
            Output::Heard { peer, incarnation } => self.tell_reports(reports::Input::Heard { peer, incarnation }),
            Output::Missed { peer, incarnation, misses } => {
                self.tell_reports(reports::Input::Missed { peer, incarnation, misses });
            }
            Output::Dead { peer, incarnation, reason } => {
                self.tell_reports(reports::Input::Dead { peer, incarnation, reason });
            }
            Output::Event(event) => self.events.push_back(event),
            Output::Fault { peer, kind } => self.events.push_back(Event::Fault { peer, kind }),
        }
    }

    fn carry_out_for_reports(&mut self, output: reports::Output) {
        use reports::Output;
        match output {
            Output::Report { to, target, statement } => {
                if !self.send(to, Kind::Report, Request::Report { statement }, Asked::Report { target }) {
                    self.tell_reports(reports::Input::ReportFailed { seed: to, target });
                }
            }
            Output::Tell { to, whole, statements } => {
                let queue = self.tells.entry(to).or_default();
                if queue.len() >= MAX_TELLS {
                    self.tell_reports(reports::Input::TellFailed { peer: to });
                    return;
                }
                queue.push_back((whole, statements));
                if queue.len() == 1 {
                    self.send_tell(to);
                }
            }
            Output::Check(peer) => self.tell_detector(detector::Input::Check { peer }),
            Output::Event(event) => self.events.push_back(event),
            Output::Fault { peer, kind } => self.events.push_back(Event::Fault { peer, kind }),
        }
    }

    /// Send the first of what waits for a peer. One at a time, for streams overtake each other.
    fn send_tell(&mut self, to: PeerId) {
        let Some((whole, statements)) = self.tells.get(&to).and_then(|queue| queue.front()).cloned() else {
            self.tells.remove(&to);
            return;
        };
        if !self.send(to, Kind::Tombstones, Request::Tombstones { whole, statements }, Asked::Tell) {
            self.end_tell(to, false);
        }
    }

    fn end_tell(&mut self, to: PeerId, taken: bool) {
        if taken {
            if let Some(queue) = self.tells.get_mut(&to) {
                queue.pop_front();
                self.send_tell(to);
            }
        } else if self.tells.remove(&to).is_some() {
            self.tell_reports(reports::Input::TellFailed { peer: to });
        }
    }

    /// Whether it was sent. The inner protocol would dial, and a remote would take too much for a flood.
    fn send(&mut self, to: PeerId, kind: Kind, request: Request, asked: Asked) -> bool {
        if !self.inner.is_connected(&to) || !self.outbound.admits(to, kind, now()) {
            return false;
        }
        let id = self.inner.send_request(&to, request);
        self.asked.insert(id, asked);
        true
    }

    fn on_inner(&mut self, event: request_response::Event<Request, Response>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => self.on_request(peer, request, channel),
                Message::Response { request_id, response } => {
                    if let Some(asked) = self.asked.remove(&request_id) {
                        self.on_response(peer, asked, response);
                    }
                }
            },
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let Some(asked) = self.asked.remove(&request_id) else { return };
                tracing::debug!(%peer, %error, "a question was not answered");
                self.on_failure(peer, asked, &error);
            }
            Event::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "a question was not answered"),
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(&mut self, peer: PeerId, request: Request, channel: ResponseChannel<Response>) {
        let now = now();
        let kind = match &request {
            Request::Probe { .. } | Request::Nonsense(_) => Kind::Probe,
            Request::Relay { .. } => Kind::Relay,
            Request::Report { .. } => Kind::Report,
            Request::Tombstones { .. } => Kind::Tombstones,
        };
        if !self.inbound.admits(peer, kind, now) {
            if self.inbound.is_news(peer, now) {
                self.fault(peer, FaultKind::Flood);
            }
            let _ = self.inner.send_response(channel, Response::Refused);
            return;
        }
        let is_up = self.detector.status(&peer, now).is_some_and(|status| status.linked);
        self.next_inbound += 1;
        let number = self.next_inbound;
        match request {
            Request::Probe { incarnation, suspicion, .. } => {
                self.probes.insert(number, (wall_ms(), channel));
                self.tell_detector(detector::Input::Probed { from: peer, request: number, incarnation, suspicion });
            }
            Request::Relay { target, suspicion, patience } => {
                let token = RelayToken(number);
                self.relays.insert(token, channel);
                let asked = detector::Input::RelayAsked { from: peer, token, target, suspicion, patience };
                self.tell_detector(asked);
            }
            Request::Report { statement } if is_up => {
                self.tell_reports(reports::Input::Reported { from: peer, statement });
                let _ = self.inner.send_response(channel, Response::Taken);
            }
            Request::Tombstones { whole, statements } if is_up => {
                self.tell_reports(reports::Input::Told { from: peer, whole, statements });
                let _ = self.inner.send_response(channel, Response::Taken);
            }
            // Its hello has not come yet; it will say so again.
            Request::Report { .. } | Request::Tombstones { .. } => {
                let _ = self.inner.send_response(channel, Response::Refused);
            }
            Request::Nonsense(kind) => {
                self.fault(peer, kind);
                let _ = self.inner.send_response(channel, Response::Refused);
            }
        }
    }

    fn on_response(&mut self, peer: PeerId, asked: Asked, response: Response) {
        match (asked, response) {
            (Asked::Probe { probe, asked_ms }, Response::Alive { received_ms, sent_ms, incarnation, statement }) => {
                // Heard from itself, so what is wrong with it is its own fault; handed on it would be a helper's.
                let forged = |bytes: &Vec<u8>| !Alive::decode(bytes).is_ok_and(|alive| alive.peer == peer);
                let statement = if statement.as_ref().is_some_and(forged) {
                    self.fault(peer, FaultKind::ForgedStatement);
                    None
                } else {
                    statement
                };
                let stamps = Stamps { asked: asked_ms, received: received_ms, answered: sent_ms, heard: wall_ms() };
                self.tell_detector(detector::Input::Answered { peer, probe, incarnation, stamps, statement });
            }
            (Asked::Help { target, probe }, Response::Relayed { statement }) => {
                // What cannot be read is what the target gave the helper, and no answer.
                let alive = statement.and_then(|bytes| Alive::decode(&bytes).ok());
                self.tell_detector(detector::Input::Helped { helper: peer, target, probe, alive });
            }
            (Asked::Help { target, probe }, Response::Refused) => {
                self.tell_detector(detector::Input::Unhelpful { helper: peer, target, probe });
            }
            (Asked::Report { .. }, Response::Taken) => {}
            (Asked::Tell, Response::Taken) => self.end_tell(peer, true),
            (asked, response) => {
                match response {
                    Response::Refused => {}
                    Response::Nonsense(kind) => self.fault(peer, kind),
                    _ => self.fault(peer, FaultKind::WrongAnswer),
                }
                // Whatever it said, it lives.
                self.tell_detector(detector::Input::Seen { peer });
                self.give_up(peer, asked);
            }
        }
    }

    fn on_failure(&mut self, peer: PeerId, asked: Asked, error: &OutboundFailure) {
        match error {
            // It has answered that it does not know the protocol, so it lives.
            OutboundFailure::UnsupportedProtocols => self.tell_detector(detector::Input::Seen { peer }),
            // A link that goes is no miss yet: the probe goes on as a dial, or over another link.
            OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure
                if matches!(asked, Asked::Probe { .. }) =>
            {
                return;
            }
            _ => {}
        }
        self.give_up(peer, asked);
    }

    fn give_up(&mut self, peer: PeerId, asked: Asked) {
        match asked {
            Asked::Probe { probe, .. } => self.tell_detector(detector::Input::Failed { peer, probe }),
            Asked::Report { target } => self.tell_reports(reports::Input::ReportFailed { seed: peer, target }),
            Asked::Tell => self.end_tell(peer, false),
            // Not even a helper's refusal: it is missed.
            Asked::Help { .. } => {}
        }
    }

    fn fault(&mut self, peer: PeerId, kind: FaultKind) {
        self.events.push_back(Event::Fault { peer, kind });
    }

    /// Whether the timer fired. Afterwards it is set to the cores' next timeout, and the task will be woken for it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let next = self.detector.poll_timeout().into_iter().chain(self.reports.poll_timeout()).min();
        let Some(at) = next else {
            self.timer = None;
            return false;
        };
        let now = now();
        if at <= now {
            self.detector.handle_timeout(now);
            self.reports.handle_timeout(now, wall_ms());
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
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
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
            if !self.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the cores")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the cores")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
