//! The shell around the cores: connections become links, frames become inputs, outputs become what the swarm does.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionError, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::card::{Goodbye, SignedCard};
use crate::config::Config;
use crate::event::Event;
use crate::exchange::{self, AskToken, Exchange, LookupId};
use crate::handler::{Handler, Message};
use crate::links::{self, LinkId, Links};
use crate::protocol::{Frame, Refusal, Subject};

/// Hello, goodbye, and cards on demand. Dials nobody.
pub struct Behaviour {
    config: Config,
    card: SignedCard,
    goodbye: Option<Goodbye>,
    links: Links,
    exchange: Exchange,
    numbers: BTreeMap<ConnectionId, LinkId>,
    connections: BTreeMap<LinkId, ConnectionId>,
    next_link: u64,
    /// What the swarm is to do. Bounded by what one input or one call brings about, since each poll takes it all.
    pending: VecDeque<ToSwarm<Event, Frame>>,
    timer: Option<(Instant, Delay)>,
}

impl Behaviour {
    /// A behaviour that introduces itself with that card. The seed makes the ids of questions: take it from the
    /// operating system.
    pub fn new(card: SignedCard, config: Config, rng_seed: u64) -> Self {
        Self {
            links: Links::new(card.peer(), config.clone()),
            exchange: Exchange::new(config.clone(), rng_seed),
            config,
            card,
            goodbye: None,
            numbers: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_link: 0,
            pending: VecDeque::new(),
            timer: None,
        }
    }

    /// The own card as it is announced now.
    pub fn card(&self) -> &SignedCard {
        &self.card
    }

    /// Announce a changed own card on every link. It must be newer than the one before (same boot, higher revision):
    /// remotes ignore an older one, and take a different one of the same revision for that of a copied node.
    pub fn set_card(&mut self, card: SignedCard) {
        if card == self.card {
            return;
        }
        self.card = card;
        let hello = self.hello();
        for (peer, link) in self.links.open().collect::<Vec<_>>() {
            self.notify(peer, link, hello.clone());
        }
    }

    /// Ask the neighbours for cards. [`Event::Found`] with this id follows exactly once.
    pub fn lookup(&mut self, subject: Subject) -> LookupId {
        self.exchange.lookup(subject, now())
    }

    /// Ask one neighbour, picked at random, for the cards of a few whom it knows. [`Event::Found`] with this id follows
    /// exactly once; `None`, and nothing follows, when nobody can be asked now.
    pub fn sample(&mut self) -> Option<LookupId> {
        self.exchange.sample(now())
    }

    /// Answer [`Event::Asked`] with what the own directory knows. Cards that do not fit the question are left out; the
    /// own card is added where it fits. Without any card the question is handed on to other neighbours. Does nothing
    /// when the question is over.
    pub fn answer(&mut self, token: AskToken, mut cards: Vec<SignedCard>) {
        cards.push(self.card.clone());
        self.exchange.handle_input(exchange::Input::Known { token, cards }, now());
    }

    /// Say goodbye to one peer and close its links; [`Event::Lost`] follows when it was up. The goodbye is for the own
    /// present boot.
    pub fn disconnect(&mut self, peer: PeerId, goodbye: Goodbye) {
        self.goodbye = Some(goodbye);
        self.links.handle_input(links::Input::Disconnect { peer }, now());
    }

    /// Say goodbye to everybody and close every link, now and for good. [`Event::Quiet`] follows within
    /// [`Config::goodbye_timeout`].
    pub fn shutdown(&mut self, goodbye: Goodbye) {
        self.goodbye = Some(goodbye);
        self.links.handle_input(links::Input::DisconnectAll, now());
    }

    /// Close the links of a peer without a word, for example because it does not answer to pings.
    /// [`Event::Lost`] with this reason follows when it was up.
    pub fn drop_connection(&mut self, peer: PeerId, connection: ConnectionId, reason: &str) {
        if let Some(&link) = self.numbers.get(&connection) {
            self.links.handle_input(links::Input::Failed { peer, link, reason: reason.into() }, now());
        }
    }

    /// Close no link to that peer as a duplicate until then: a second one is for bulk. Both ends must say so, and say it
    /// again for as long as it is true. A later time replaces an earlier one.
    pub fn keep_second(&mut self, peer: PeerId, until: Instant) {
        self.links.handle_input(links::Input::KeepSecond { peer, until }, now());
    }

    /// Whether a peer is between its `Up` and its `Left` or `Lost`.
    pub fn is_up(&self, peer: &PeerId) -> bool {
        self.links.is_up(peer)
    }

    /// The newest card of a peer that is up.
    pub fn card_of(&self, peer: &PeerId) -> Option<&SignedCard> {
        self.links.card(peer)
    }

    /// Everybody who is up, with the newest card.
    pub fn up(&self) -> impl Iterator<Item = (PeerId, &SignedCard)> {
        self.links.up()
    }

    /// How many links there are, in whatever state.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    fn hello(&self) -> Frame {
        Frame::Hello { card: self.card.bytes().to_vec() }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler::new(peer, self.hello(), self.links.card(&peer).cloned(), self.config.hello_timeout)
    }

    fn notify(&mut self, peer: PeerId, link: LinkId, frame: Frame) {
        if let Some(&connection) = self.connections.get(&link) {
            let handler = NotifyHandler::One(connection);
            self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: frame });
        }
    }

    fn event(&mut self, event: Event) {
        self.pending.push_back(ToSwarm::GenerateEvent(event));
    }

    fn carry_out_for_links(&mut self, output: links::Output) {
        match output {
            links::Output::Event(event) => {
                let now = now();
                match &event {
                    Event::Up { peer, .. } => {
                        self.exchange.handle_input(exchange::Input::Joined { peer: *peer }, now);
                    }
                    Event::Left { peer } | Event::Lost { peer, .. } => {
                        self.exchange.handle_input(exchange::Input::Gone { peer: *peer }, now);
                    }
                    _ => {}
                }
                self.event(event);
            }
            links::Output::Close { peer, link } => {
                if let Some(&connection) = self.connections.get(&link) {
                    let connection = CloseConnection::One(connection);
                    self.pending.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
                }
            }
            links::Output::SayGoodbye { peer, link } => {
                if let Some(goodbye) = &self.goodbye {
                    let proof = goodbye.bytes().to_vec();
                    self.notify(peer, link, Frame::Goodbye { proof });
                }
            }
            links::Output::Refuse { peer, link, boot } => {
                self.notify(peer, link, Frame::Refused { reason: Refusal::StaleBoot, boot });
            }
            links::Output::Fault { peer, kind } => self.event(Event::Fault { peer, kind }),
        }
    }

    fn carry_out_for_exchange(&mut self, output: exchange::Output) {
        match output {
            exchange::Output::Send { to, frame } => {
                if let Some(link) = self.links.best(&to) {
                    self.notify(to, link, frame);
                }
            }
            exchange::Output::Event(event) => self.event(event),
            exchange::Output::Fault { peer, kind } => self.event(Event::Fault { peer, kind }),
        }
    }

    /// Set the timer to the next deadline; whether it has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let next = self.links.poll_timeout().into_iter().chain(self.exchange.poll_timeout()).min();
        let Some(next) = next else {
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
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.next_link += 1;
                let link = LinkId(self.next_link);
                self.numbers.insert(connection_id, link);
                self.connections.insert(link, connection_id);
                let address = endpoint.get_remote_address().clone();
                let opened = links::Input::Opened { peer: peer_id, link, dialled: endpoint.is_dialer(), address };
                self.links.handle_input(opened, now());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, cause, .. }) => {
                let Some(link) = self.numbers.remove(&connection_id) else { return };
                self.connections.remove(&link);
                let cause = match cause {
                    None => "closed here".into(),
                    Some(ConnectionError::KeepAliveTimeout) => "idle".into(),
                    Some(ConnectionError::IO(error)) => error.to_string(),
                };
                self.links.handle_input(links::Input::Closed { peer: peer_id, link, cause }, now());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, message: THandlerOutEvent<Self>) {
        let Some(&link) = self.numbers.get(&connection) else { return };
        let now = now();
        // The swarm may hand over a hello and a question without a poll between them, and the exchange knows a neighbour
        // only once its `Up` was carried out.
        while let Some(output) = self.links.poll_output() {
            self.carry_out_for_links(output);
        }
        match message {
            Message::Hello(card) => self.links.handle_input(links::Input::Hello { peer, link, card }, now),
            Message::Goodbye(goodbye) => {
                let boot = goodbye.boot();
                self.links.handle_input(links::Input::Goodbye { peer, link, boot }, now);
            }
            Message::Frame(Frame::Ask { id, query, subject, hops }) => {
                let asked = exchange::Input::Asked { from: peer, id, query, subject, hops };
                self.exchange.handle_input(asked, now);
            }
            Message::Frame(Frame::Answer { id, cards }) => {
                self.exchange.handle_input(exchange::Input::Answered { from: peer, id, cards }, now);
            }
            Message::Frame(Frame::Refused { reason: Refusal::StaleBoot, boot }) => {
                self.links.handle_input(links::Input::Refused { peer, link, boot }, now);
            }
            Message::Frame(Frame::Hello { .. } | Frame::Goodbye { .. }) => {}
            Message::Foreign => self.links.handle_input(links::Input::Foreign { peer, link }, now),
            Message::Fault(kind) => self.event(Event::Fault { peer, kind }),
            Message::Failed { fault, reason } => {
                if let Some(kind) = fault {
                    self.event(Event::Fault { peer, kind });
                }
                self.links.handle_input(links::Input::Failed { peer, link, reason }, now);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.pending.pop_front() {
                return Poll::Ready(action);
            }
            if let Some(output) = self.links.poll_output() {
                self.carry_out_for_links(output);
                continue;
            }
            if let Some(output) = self.exchange.poll_output() {
                self.carry_out_for_exchange(output);
                continue;
            }
            if self.poll_timer(cx) {
                let now = now();
                self.links.handle_timeout(now);
                self.exchange.handle_timeout(now);
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
