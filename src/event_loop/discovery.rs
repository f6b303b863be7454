//! Drives the cores that pick seeds and peers to dial, and tells them what came of it.

use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::rendezvous;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, mdns};
use reputation::Evidence;

use super::{Awaited, Done, EventLoop, Purpose};
use crate::api::{ErrorCode, Event, Role, SeedState, Via};
use crate::config::Config;
use crate::network::behaviour::NAMESPACE;
use crate::network::dialer::{self, Dialer, Source, Target};
use crate::network::seeds::{self, PAGE, REGISTRATION_TTL, Seeds, State};
use crate::network::{can_be_told, is_loopback};
use crate::storage::{Opened, StorageError};

/// Registrations of one peer in a minute; an honest one makes one or two, and one more for each change of its addresses.
const MAX_REGISTERING: u32 = 60;

/// A signed record in a registration, in bytes: 16 addresses take less than a tenth of it. Whoever registers a longer one is
/// sent away at once, for the stock server would keep it.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// Addresses told to others; a machine with more interfaces tells the first ones.
const MAX_OWN_ADDRESSES: usize = 16;

/// The two cores as the configuration and the database want them. A seed registers nowhere and dials nobody for a
/// fanout; other seeds that it was given are its mandatory peers, so that all of them know each other's visitors.
pub(super) fn cores(config: &Config, opened: &Opened, rng_seed: u64, now: Instant) -> (Seeds, Dialer) {
    let pinned = |text: &str| opened.seed_pins.iter().find(|(address, _)| address == text).map(|(_, peer)| *peer);
    let identity = |seed: &crate::config::SeedAddress| seed.peer.or_else(|| pinned(&seed.text));
    let mut mandatory: Vec<(Multiaddr, Option<PeerId>)> = config.peers.iter().map(split_peer).collect();
    let is_seed = config.role == Role::Seed;
    if is_seed {
        mandatory.extend(config.seeds.iter().map(|seed| (seed.dial.clone(), identity(seed))));
    }
    let seeds = if is_seed { Vec::new() } else { config.seeds.iter().map(identity).collect() };
    let fanout = if is_seed { 0 } else { config.fanout };
    (
        Seeds::new(seeds, rng_seed, now),
        Dialer::new(fanout, config.seeds.len(), mandatory, rng_seed.wrapping_add(1), now),
    )
}

impl EventLoop {
    /// Hand the cores' wishes to the Swarm until they have none.
    pub(super) fn drive(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.seeds.poll_output() {
                self.seeds_output(output, now);
            } else if let Some(output) = self.dialer.poll_output() {
                match output {
                    dialer::Output::Dial { target, addresses, via } => {
                        let peer = match target {
                            Target::Peer(peer) => Some(peer),
                            Target::Mandatory(_) => None,
                        };
                        self.dial(peer, addresses, Purpose::Dialer(target, via), now);
                    }
                    dialer::Output::Hungry(hungry) => self.seeds.handle_input(seeds::Input::Hungry(hungry), now),
                }
            } else {
                return;
            }
        }
    }

    pub(super) fn discovery_timeout(&mut self, now: Instant) {
        self.seeds.handle_timeout(now);
        self.dialer.handle_timeout(now);
    }

    /// Dial, and remember why.
    pub(super) fn dial(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, purpose: Purpose, now: Instant) {
        // From a port of its own: two nodes that dial each other from their listening ports at the same moment would meet in
        // one TCP connection (simultaneous open) with two initiators.
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .allocate_new_port()
                .build(),
            None => match addresses.into_iter().next() {
                Some(address) => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
                None => return,
            },
        };
        let connection = options.connection_id();
        self.dials.insert(connection, purpose);
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_error(connection, &error, now);
        }
    }

    fn seeds_output(&mut self, output: seeds::Output, now: Instant) {
        match output {
            seeds::Output::Dial(seed) => {
                let configured = &self.config.seeds[seed];
                let peer = configured.peer.or_else(|| self.seeds.view().nth(seed).and_then(|view| view.peer));
                let address = configured.dial.clone();
                // A link may stand already, dialled by the seed or for another reason.
                if let Some(peer) = peer
                    && self.swarm.behaviour().peer_exchange.is_up(&peer)
                {
                    self.seeds.handle_input(seeds::Input::Linked { seed, peer }, now);
                } else {
                    self.dial(peer, vec![address], Purpose::Seed(seed), now);
                }
            }
            seeds::Output::Register(peer) => {
                let ttl = Some(REGISTRATION_TTL.as_secs());
                if let Err(error) = self.swarm.behaviour_mut().rendezvous.register(NAMESPACE, peer, ttl) {
                    tracing::debug!(%peer, "cannot register: {error}");
                    self.seeds.handle_input(seeds::Input::RegisterFailed { peer, refused: false }, now);
                }
            }
            seeds::Output::List { peer, first } => {
                let cookie = if first {
                    self.cookies.remove(&peer);
                    None
                } else {
                    self.cookies.get(&peer).cloned()
                };
                self.swarm.behaviour_mut().rendezvous.discover(NAMESPACE, cookie, PAGE as u64, peer);
            }
            // At the end every link is closed; that says nothing about the seeds.
            seeds::Output::State { .. } if self.ending.is_some() => {}
            seeds::Output::State { seed, state, peers } => {
                let address = self.config.seeds[seed].text.clone();
                let peer = self.seeds.view().nth(seed).and_then(|view| view.peer);
                if let (State::Registered, Some(peer)) = (state, peer) {
                    self.pin_seed(address.clone(), peer);
                }
                let peer_id = peer.map(|peer| peer.to_base58());
                self.emit(Event::Seed { address, peer_id, state: seed_state(state), peers });
            }
        }
    }

    /// Remember who a seed is, so that nobody else can take its place.
    fn pin_seed(&mut self, address: String, peer: PeerId) {
        let pinned = address.clone();
        self.storage.pin_seed(address, peer, |result| Done::Pinned { address: pinned, result });
    }

    pub(super) fn on_pinned(&mut self, address: &str, result: Result<PeerId, StorageError>) {
        match result {
            Ok(peer) => tracing::debug!(%peer, "the seed {address} is pinned"),
            Err(error) => tracing::warn!("the identity of the seed {address} could not be remembered: {error}"),
        }
    }

    pub(super) fn on_connection(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) {
        let Some(purpose) = self.dials.remove(&connection) else { return };
        let address = endpoint.get_remote_address().clone();
        match purpose {
            Purpose::Dialer(target, via) => {
                if let Target::Mandatory(mandatory) = target {
                    self.dialer.handle_input(dialer::Input::Identified { mandatory, peer }, now);
                    self.swarm.behaviour_mut().reputation.exempt(peer);
                }
                self.vias.insert(peer, via);
            }
            Purpose::Seed(seed) => {
                self.vias.insert(peer, Via::Dial);
                self.seed_dials.insert(peer, seed);
            }
            Purpose::Command(asked) => {
                self.vias.insert(peer, Via::Dial);
                let named =
                    dialer::Input::Named { peer, addresses: vec![without_peer(&address)], source: Source::Gossip };
                self.dialer.handle_input(named, now);
                for parked in self.parked.iter_mut().filter(|parked| parked.awaited == Awaited::Address(asked.clone()))
                {
                    parked.awaited = Awaited::Link(peer);
                }
            }
        }
        // A second link of a peer that is up already brings no second `Up`, so whoever waited for it is told here.
        if self.swarm.behaviour().peer_exchange.is_up(&peer) {
            self.told_up(peer, true, now);
        }
    }

    /// The last connection to a peer is gone. If it never was up, whoever dialled it hears that it was in vain.
    pub(super) fn on_connection_gone(&mut self, peer: PeerId, now: Instant) {
        self.vias.remove(&peer);
        if let Some(seed) = self.seed_dials.remove(&peer) {
            self.seeds.handle_input(seeds::Input::DialFailed { seed, wrong_identity: false }, now);
        }
        self.dialer.handle_input(dialer::Input::DialFailed(Target::Peer(peer)), now);
    }

    pub(super) fn on_dial_error(&mut self, connection: ConnectionId, error: &DialError, now: Instant) {
        let Some(purpose) = self.dials.remove(&connection) else { return };
        tracing::debug!(?purpose, "dial failed: {error}");
        match purpose {
            // The link that made the condition false, or its hello, is on its way to the core by itself.
            Purpose::Dialer(target, _) => {
                self.dialer.handle_input(dialer::Input::DialFailed(target), now);
                if let Target::Peer(peer) = target
                    && matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. })
                {
                    self.swarm.behaviour_mut().liveness.dial_failed(peer);
                    self.saw(peer, Evidence::DialFailed, now);
                }
                if let Target::Peer(peer) = target
                    && self.dialer.failures(&peer) > self.config.max_retries
                {
                    let name = self.directory.shown(&peer);
                    let why = format!("{name} could not be reached; is it running, and is the address right?");
                    self.fail_parked(&Awaited::Link(peer), ErrorCode::Unreachable, &why);
                    // Nobody waits for it any more but, perhaps, a message.
                    if !self.waiting.contains_key(&peer) {
                        self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
                    }
                }
            }
            Purpose::Seed(seed) => {
                if matches!(error, DialError::DialPeerConditionFalse(_)) {
                    // Connected without a hello yet; the hello tells the core, or its deadline does.
                    if let Some(peer) = self.seeds.view().nth(seed).and_then(|view| view.peer) {
                        self.seed_dials.insert(peer, seed);
                    }
                    return;
                }
                let wrong_identity = matches!(error, DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. });
                if let DialError::WrongPeerId { obtained, .. } = error {
                    let seed = &self.config.seeds[seed].text;
                    let message =
                        format!("the seed {seed} has another identity than before ({obtained}), so it is not used");
                    tracing::warn!("{message}");
                }
                self.seeds.handle_input(seeds::Input::DialFailed { seed, wrong_identity }, now);
            }
            Purpose::Command(address) => {
                let why = match error {
                    DialError::LocalPeerId { .. } => "that is this node itself".to_owned(),
                    DialError::WrongPeerId { obtained, .. } => format!("somebody else answers there: {obtained}"),
                    DialError::Denied { .. } => "it is blocked, or there are too many links".to_owned(),
                    _ => "nobody answers there; is the node running, and is the address right?".to_owned(),
                };
                self.fail_parked(
                    &Awaited::Address(address.clone()),
                    ErrorCode::Unreachable,
                    &format!("cannot reach {address}: {why}"),
                );
            }
        }
    }

    pub(super) fn on_rendezvous(&mut self, event: rendezvous_client::Event, now: Instant) {
        use rendezvous_client::Event::{DiscoverFailed, Discovered, Fault, RegisterFailed, Registered};
        match event {
            Registered { peer, ttl } => {
                self.saw(peer, Evidence::ListServed, now);
                self.seeds.handle_input(seeds::Input::Registered { peer, ttl: Duration::from_secs(ttl) }, now);
            }
            RegisterFailed { peer, refused } => {
                self.seeds.handle_input(seeds::Input::RegisterFailed { peer, refused }, now);
            }
            Discovered { peer, registrations, cookie } => {
                self.cookies.insert(peer, cookie);
                let full = registrations.len() >= PAGE;
                let told = |addresses: Vec<Multiaddr>| addresses.iter().map(without_peer).filter(can_be_told).collect();
                let liveness = &self.swarm.behaviour().liveness;
                let others = registrations
                    .into_iter()
                    .filter(|(other, _)| *other != self.local && !liveness.is_buried_by(&peer, other, None));
                let named: Vec<(PeerId, Vec<Multiaddr>)> =
                    others.map(|(other, addresses)| (other, told(addresses))).collect();
                let peers = named.iter().map(|(peer, _)| *peer).collect();
                self.dialer.handle_input(dialer::Input::Listed { by: peer, named }, now);
                self.seeds.handle_input(seeds::Input::Listed { peer, peers, full }, now);
            }
            DiscoverFailed { peer } => {
                self.saw(peer, Evidence::ListFailed, now);
                self.cookies.remove(&peer);
                self.seeds.handle_input(seeds::Input::ListFailed { peer }, now);
            }
            Fault { peer, kind } => self.fault(peer, &kind),
        }
    }

    pub(super) fn on_rendezvous_server(&mut self, event: rendezvous::server::Event, now: Instant) {
        use rendezvous::server::Event::{PeerRegistered, PeerUnregistered};
        match event {
            PeerRegistered { peer, registration } => {
                self.registrations.insert(peer, now + Duration::from_secs(registration.ttl));
                // The stock server keeps each registration until its time is over, replaced or not, so a peer that registers
                // without end is sent away before it fills the memory.
                if registration.record.to_signed_envelope().into_protobuf_encoding().len() > MAX_RECORD_BYTES {
                    self.fault(peer, &"oversized-record");
                }
                let times = self.registering.entry(peer).or_default();
                *times += 1;
                if *times > MAX_REGISTERING {
                    self.fault(peer, &"register-flood");
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            PeerUnregistered { peer, .. } => {
                self.registrations.remove(&peer);
            }
            // An expiry is also told of a registration that was renewed since, so the own clock decides.
            _ => self.registrations.retain(|_, expires| *expires > now),
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event, now: Instant) {
        let mdns::Event::Discovered(found) = event else { return };
        for (peer, address) in found {
            let addresses = vec![without_peer(&address)];
            self.dialer.handle_input(dialer::Input::Named { peer, addresses, source: Source::Mdns }, now);
        }
    }

    /// A new listening address: print it, tell it to others.
    pub(super) fn on_own_address(&mut self, address: Multiaddr, now: Instant) {
        let whole = address.clone().with(Protocol::P2p(self.local));
        self.emit(Event::Listening { address: whole.to_string() });
        if can_be_told(&address) {
            self.tell_addresses();
            self.seeds.handle_input(seeds::Input::Ready, now);
        }
    }

    /// Tell the seeds and the neighbours where this node can be reached now.
    pub(super) fn tell_addresses(&mut self) {
        let told: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        let own = self.own_addresses();
        for address in own.iter().filter(|address| !told.contains(address)) {
            self.swarm.add_external_address(address.clone());
        }
        for address in told.iter().filter(|address| !own.contains(address)) {
            self.swarm.remove_external_address(address);
        }
        if told.len() != own.len() || told.iter().any(|address| !own.contains(address)) {
            self.renew_registrations();
        }
        self.renew_card();
    }

    /// Tell the seeds that hold a registration what is in it now. Where there is no link, the next one brings it.
    fn renew_registrations(&mut self) {
        let linked = |peer: &PeerId| self.swarm.behaviour().peer_exchange.is_up(peer);
        let held = self.seeds.view().filter(|view| view.state == Some(State::Registered));
        let peers: Vec<PeerId> = held.filter_map(|view| view.peer).filter(linked).collect();
        for peer in peers.into_iter().filter(|_| self.ending.is_none()) {
            let ttl = Some(REGISTRATION_TTL.as_secs());
            if let Err(error) = self.swarm.behaviour_mut().rendezvous.register(NAMESPACE, peer, ttl) {
                tracing::debug!(%peer, "cannot register anew: {error}");
            }
        }
    }

    /// The addresses that others are told: loopback only where there is nothing else.
    pub(super) fn own_addresses(&self) -> Vec<Multiaddr> {
        let told: Vec<Multiaddr> = self.swarm.listeners().filter(|address| can_be_told(address)).cloned().collect();
        let (loopback, mut outside): (Vec<_>, Vec<_>) = told.into_iter().partition(is_loopback);
        if outside.is_empty() {
            outside = loopback;
        }
        outside.truncate(MAX_OWN_ADDRESSES);
        outside
    }
}

/// The address without a trailing `/p2p/…`, and the identity that stood there.
pub(super) fn split_peer(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let peer = match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    };
    (without_peer(address), peer)
}

pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

pub(super) fn seed_state(state: State) -> SeedState {
    match state {
        State::Registered => SeedState::Registered,
        State::Unreachable => SeedState::Unreachable,
        State::Refused => SeedState::Refused,
    }
}
