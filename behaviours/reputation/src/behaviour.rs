//! The shell: it asks the cores whether a connection may stand, and closes those of peers that are cut.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::admission::{Admission, Link, Refusal, Refused, Usage};
use crate::config::Config;
use crate::evidence::{Evidence, Subject};
use crate::fact::{Fact, Number};
use crate::faults::{self, Faults};
use crate::prefix::{Origin, Prefix};
use crate::reliability::{self, Reliability};
use crate::stored::Stored;
use crate::tally::Tally;

/// What the application hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer's faults are too many. Its connections are being closed, and it is refused until [`Event::Readmitted`].
    Cut {
        /// Who.
        peer: PeerId,
        /// Until about when, on the wall clock, in milliseconds since the epoch.
        until_ms: u64,
        /// The fault that was one too many.
        kind: String,
    },
    /// A cut is over, or was pardoned. It follows each [`Event::Cut`], and each cut that was restored.
    Readmitted {
        /// Who.
        peer: PeerId,
    },
    /// Connections were refused. The first of a kind is told at once, the rest at most once in
    /// [`Config::refusal_report`].
    Denied {
        /// Which limit they met.
        refusal: Refusal,
        /// How many since this limit was told of last.
        count: u64,
        /// How much the limit allows; 0 for cut peers.
        limit: u32,
        /// The range of the newest of them, where it is a limit of ranges.
        prefix: Option<Prefix>,
    },
}

/// Reliability, faults and admission of all peers. It speaks no protocol and dials nobody.
pub struct Behaviour {
    reliability: Reliability,
    faults: Faults,
    admission: Admission<ConnectionId>,
    tally: Tally,
    /// What the swarm is to do. Bounded by what one call brings about, since each poll takes it all.
    pending: VecDeque<ToSwarm<Event, Infallible>>,
    timer: Option<(Instant, Delay)>,
}

impl Behaviour {
    /// Knows nobody. The seed varies how long cuts last: take it from the operating system.
    pub fn new(config: Config, rng_seed: u64) -> Self {
        Self {
            reliability: Reliability::new(&config),
            faults: Faults::new(&config, rng_seed),
            admission: Admission::new(config.limits.clone()),
            tally: Tally::new(config.refusal_report),
            pending: VecDeque::new(),
            timer: None,
        }
    }

    /// We saw this of the peer ourselves, at that time on the wall clock, in milliseconds since the epoch. What others
    /// say is no evidence and must not come here, nor what follows from a peer being known as dead or as gone.
    pub fn saw(&mut self, peer: PeerId, evidence: Evidence, now_ms: u64) {
        self.reliability.handle_input(reliability::Input::Saw { peer, evidence, at_ms: now_ms }, now());
    }

    /// The peer provably misbehaved towards us; `kind` is a word of the [table](crate::penalties::TABLE), or any other.
    /// [`Event::Cut`] follows when it was one too many.
    pub fn fault(&mut self, peer: PeerId, kind: &str, now_ms: u64) {
        self.faults.handle_input(faults::Input::Fault { peer, kind: kind.to_owned(), at_ms: now_ms }, now());
    }

    /// The owner forgives the peer every fault. [`Event::Readmitted`] follows when it was cut.
    pub fn pardon(&mut self, peer: PeerId, now_ms: u64) {
        self.faults.handle_input(faults::Input::Pardon { peer, at_ms: now_ms }, now());
    }

    /// How well the peer served us, 0 to 1; [`PRIOR`](crate::reliability::PRIOR) for a stranger.
    pub fn reliability(&self, peer: &PeerId) -> f64 {
        self.reliability.value(peer, now())
    }

    /// The same, looking at one subject only: whom to dial, or from whom to fetch.
    pub fn reliability_of(&self, peer: &PeerId, subject: Subject) -> f64 {
        self.reliability.value_of(peer, subject, now())
    }

    /// The fault score, 0 to [`MAX_SCORE`](crate::faults::MAX_SCORE); the peer is cut at
    /// [`CUT_AT`](crate::penalties::CUT_AT).
    pub fn faults(&self, peer: &PeerId) -> f64 {
        self.faults.score(peer, now())
    }

    /// What gossipsub may use as its application score (P5): 0 without faults, otherwise the negative fault score, so
    /// −100 at the cut.
    pub fn app_score(&self, peer: &PeerId) -> f64 {
        // Without a fault it is 0, and not the -0 that a negation makes of it.
        0.0 - self.faults(peer)
    }

    /// The facts behind both numbers, oldest first.
    pub fn why(&self, peer: &PeerId) -> Vec<Fact> {
        let mut facts = self.reliability.facts(peer).chain(self.faults.facts(peer)).cloned().collect::<Vec<_>>();
        facts.sort_by_key(|fact| (fact.at_ms, fact.since_ms));
        facts
    }

    /// Whether the peer is refused at the moment.
    pub fn is_cut(&self, peer: &PeerId) -> bool {
        self.faults.is_cut(peer)
    }

    /// Count the peer's connections apart from now on (mandatory peers, members of the committee): they take no place
    /// and no limit holds for them but that of connections of one peer. Faults count for them like for anybody. Their
    /// handshakes are limited too, since nobody knows yet whose they are.
    pub fn exempt(&mut self, peer: PeerId) {
        self.admission.exempt(peer);
    }

    /// The peer is like any other again. No connection is closed for that.
    pub fn unexempt(&mut self, peer: &PeerId) {
        self.admission.unexempt(peer);
    }

    /// How full each limit is.
    pub fn usage(&self) -> Vec<Usage> {
        self.admission.usage()
    }

    /// What there is to store of a peer at that time on the wall clock; `None` for a stranger.
    pub fn snapshot(&self, peer: &PeerId, now_ms: u64) -> Option<Stored> {
        let now = now();
        let values = self.reliability.values(peer, now);
        let state = self.faults.state(peer, now);
        if values.is_none() && state.is_none() {
            return None;
        }
        let facts = self.reliability.facts(peer).chain(self.faults.facts(peer)).cloned().collect();
        let cut_left = state.as_ref().and_then(|state| state.cut_left);
        Some(Stored {
            peer: *peer,
            at_ms: now_ms,
            reliability: values.map_or(Vec::new(), |values| values.to_vec()),
            faults: state.as_ref().map_or(0.0, |state| state.score),
            cuts: state.as_ref().map_or(0, |state| state.cuts),
            calm_ms: state.as_ref().map_or(0, |state| faults::millis(state.calm)),
            cut_until_ms: cut_left.map(|left| now_ms.saturating_add(faults::millis(left))),
            facts,
        })
    }

    /// Everybody who changed since this was asked last: what to store of them, or `None` when they are forgotten here
    /// and should be there. Ask now and then, and at the end.
    pub fn take_changed(&mut self, now_ms: u64) -> Vec<(PeerId, Option<Stored>)> {
        let mut changed = self.reliability.take_changed();
        changed.append(&mut self.faults.take_changed());
        changed.into_iter().map(|peer| (peer, self.snapshot(&peer, now_ms))).collect()
    }

    /// Put back what was stored; call it before the first connection. The time since then counts as passed, as far as
    /// the wall clock tells it: where the clock was set back none has passed, and no cut lasts longer than
    /// [`Config::longest_cut`]. Beyond [`Config::max_peers`] the least informative are left out.
    pub fn restore(&mut self, stored: Vec<Stored>, now_ms: u64) {
        let now = now();
        for stored in stored {
            let Stored { peer, at_ms, reliability, faults, cuts, calm_ms, cut_until_ms, facts } = stored;
            let ago = Duration::from_millis(now_ms.saturating_sub(at_ms));
            let (mine, other) = facts.into_iter().partition::<Vec<_>, _>(|fact| fact.number == Number::Reliability);
            if !reliability.is_empty() {
                self.reliability.restore(peer, &reliability, mine, ago, now);
            }
            let cut_left = cut_until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms)));
            let blank = faults == 0.0 && cuts == 0 && cut_left.is_none() && other.is_empty();
            if !blank {
                let state = faults::State { score: faults, cuts, calm: Duration::from_millis(calm_ms), cut_left };
                self.faults.restore(peer, state, other, ago, (now, now_ms));
            }
            if self.faults.is_cut(&peer) {
                self.disconnect(peer);
            }
        }
    }

    fn disconnect(&mut self, peer_id: PeerId) {
        if self.admission.is_connected(&peer_id) {
            self.pending.push_back(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
    }

    fn admit(&mut self, link: &Link) -> Result<THandler<Self>, ConnectionDenied> {
        let cut = self.refuse_cut(&link.peer);
        let admitted = cut.and_then(|()| self.admission.check(link));
        self.count(admitted).map(|()| dummy::ConnectionHandler)
    }

    fn refuse_cut(&self, peer: &PeerId) -> Result<(), Refused> {
        if self.is_cut(peer) { Err(Refused { refusal: Refusal::Cut, limit: 0, prefix: None }) } else { Ok(()) }
    }

    fn count<T>(&mut self, answer: Result<T, Refused>) -> Result<T, ConnectionDenied> {
        answer.map_err(|refused| {
            self.tally.handle_input(refused, now());
            ConnectionDenied::new(refused)
        })
    }

    fn carry_out(&mut self, output: faults::Output) {
        match output {
            faults::Output::Cut { peer, until_ms, kind } => {
                self.pending.push_back(ToSwarm::GenerateEvent(Event::Cut { peer, until_ms, kind }));
                self.disconnect(peer);
            }
            faults::Output::Readmitted { peer } => {
                self.pending.push_back(ToSwarm::GenerateEvent(Event::Readmitted { peer }));
            }
        }
    }

    /// Whether the timer fired.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = [self.faults.poll_timeout(), self.tally.poll_timeout()].into_iter().flatten().min() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(at, _)| *at != due) {
            self.timer = Some((due, Delay::new(due.saturating_duration_since(now()))));
        }
        let fired = self.timer.as_mut().is_some_and(|(_, delay)| Pin::new(delay).poll(cx).is_ready());
        if fired {
            self.timer = None;
        }
        fired
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        _: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let answer = self.admission.knock(connection_id, Origin::of(remote_addr));
        self.count(answer)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admission.settled(connection_id);
        self.admit(&Link { peer, inbound: true, origin: Origin::of(remote_addr) })
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let answer = peer.map_or(Ok(()), |peer| self.refuse_cut(&peer));
        self.count(answer).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&Link { peer, inbound: false, origin: Origin::of(addr) })
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let origin = Origin::of(endpoint.get_remote_address());
                let link = Link { peer: peer_id, inbound: endpoint.is_listener(), origin };
                self.admission.settled(connection_id);
                self.admission.opened(connection_id, link);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.admission.closed(connection_id);
            }
            // Also when a sibling refused it: whatever ends a handshake comes here.
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.admission.settled(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.pending.pop_front() {
                return Poll::Ready(action);
            }
            if let Some(output) = self.faults.poll_output() {
                self.carry_out(output);
                continue;
            }
            if let Some(told) = self.tally.poll_output() {
                let Refused { refusal, limit, prefix } = told.refused;
                let denied = Event::Denied { refusal, count: told.count, limit, prefix };
                self.pending.push_back(ToSwarm::GenerateEvent(denied));
                continue;
            }
            if self.poll_timer(cx) {
                let now = now();
                self.faults.handle_timeout(now);
                self.tally.handle_timeout(now);
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
