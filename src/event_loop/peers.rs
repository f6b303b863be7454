//! Links, hellos and lookups as people see them, and the commands about people.

use std::time::Instant;

use jiff::Timestamp;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, ping};
use peer_exchange::{Card, Goodbye, SignedCard, Subject};
use reputation::Evidence;

use super::directory::Meaning;
use super::discovery::{split_peer, without_peer};
use super::{Answer, Awaited, Done, EventLoop, MAX_PARKED, PATIENCE, Parked, Purpose, timestamp, wall_ms};
use crate::api::{ApiError, Command, ErrorCode, Event, PeerInfo, PeerState, Reply, Role, Via};
use crate::network;
use crate::network::dialer::{self, Source};
use crate::network::seeds;
use crate::storage::{RESTORED, StoredPeer};

/// Cards in one answer to somebody's question.
const MAX_ANSWER: usize = 8;

impl EventLoop {
    pub(super) fn on_peer_exchange(&mut self, event: peer_exchange::Event, now: Instant) {
        use peer_exchange::Event;
        match event {
            Event::Up { peer, card, dialled, address } => self.on_up(peer, &card, dialled, &address, now),
            Event::Updated { card, .. } => {
                self.learn(&card, Source::Gossip, now);
            }
            Event::Left { peer } => {
                self.dismissed.remove(&peer);
                self.refused.remove(&peer);
                self.on_down(peer, dialer::Down::Left, "", now);
            }
            Event::Lost { peer, reason, reset } => {
                let refused = self.refused.remove(&peer);
                let how = match (self.dismissed.remove(&peer), reset) {
                    (_, true) => dialer::Down::Reset,
                    (true, false) => dialer::Down::Dismissed,
                    (false, false) if refused => dialer::Down::Refused,
                    (false, false) => dialer::Down::Lost,
                };
                self.on_down(peer, how, &reason, now);
            }
            Event::Refused { peer, boot } => self.on_refused(peer, boot, now),
            Event::Foreign { peer } => {
                self.dialer.handle_input(dialer::Input::Foreign(peer), now);
                self.fail_parked(&Awaited::Link(peer), ErrorCode::Unreachable, "what answers there is no Althing node");
            }
            Event::Found { id, cards } => {
                let news = cards.iter().filter(|card| self.learn(card, Source::Gossip, now)).count();
                self.count_learnt(id, news);
                self.resume(&Awaited::Lookup(id));
            }
            Event::Asked { token, subject, .. } => {
                let cards = self.directory.cards(&subject, MAX_ANSWER, &mut self.rng);
                self.swarm.behaviour_mut().peer_exchange.answer(token, cards);
            }
            Event::Fault { peer, kind } => self.fault(peer, &kind),
            Event::Quiet => self.on_quiet(),
        }
    }

    fn on_up(&mut self, peer: PeerId, card: &SignedCard, dialled: bool, address: &Multiaddr, now: Instant) {
        self.learn(card, Source::Gossip, now);
        let via = self.vias.remove(&peer).filter(|_| dialled).unwrap_or(if dialled { Via::Dial } else { Via::Inbound });
        let at = Timestamp::now();
        let entry = self.directory.entry(peer);
        entry.state = PeerState::Up;
        entry.since = Some(at);
        entry.last_seen = Some(at);
        entry.address = Some(without_peer(address));
        entry.via = Some(via);
        let (name, team) = (entry.name().to_owned(), entry.team().to_owned());
        self.save(peer);
        let address = without_peer(address).to_string();
        self.emit(Event::PeerUp { peer: peer.to_base58(), name, team, address, via });
        self.swarm.behaviour_mut().direct_message.peer_up(peer);
        self.swarm.behaviour_mut().file_transfer.peer_up(peer);
        self.swarm.behaviour_mut().broadcast.peer_up(peer);
        let score = self.swarm.behaviour().reputation.app_score(&peer);
        self.swarm.behaviour_mut().broadcast.set_score(peer, score);
        self.watch_alive(peer, card.card().boot);
        if dialled {
            self.saw(peer, Evidence::DialOk, now);
        }
        self.told_up(peer, dialled, now);
    }

    /// Tell the cores and the commands that waited for it that a peer is up.
    pub(super) fn told_up(&mut self, peer: PeerId, dialled: bool, now: Instant) {
        let seed = self.directory.get(&peer).is_some_and(|entry| role(entry.card.as_ref()) == Role::Seed);
        self.dialer.handle_input(dialer::Input::Up { peer, dialled, seed }, now);
        if !self.waiting.contains_key(&peer) {
            self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
        }
        if let Some(seed) = self.seed_dials.remove(&peer).or_else(|| self.seeds.of(&peer)) {
            self.seeds.handle_input(seeds::Input::Linked { seed, peer }, now);
        }
        self.resume(&Awaited::Link(peer));
        self.check_sends(now);
    }

    fn on_down(&mut self, peer: PeerId, how: dialer::Down, reason: &str, now: Instant) {
        let at = Timestamp::now();
        let entry = self.directory.entry(peer);
        // A link that breaks says nothing about who is suspect or dead already.
        let verdict = matches!(entry.state, PeerState::Suspect | PeerState::Dead);
        match how {
            dialer::Down::Left => (entry.state, entry.last_seen) = (PeerState::Left, Some(at)),
            dialer::Down::Lost | dialer::Down::Reset if verdict => {}
            _ => entry.state = PeerState::Known,
        }
        entry.since = Some(at);
        entry.address = None;
        entry.via = None;
        entry.rtt_ms = None;
        let name = entry.name().to_owned();
        self.save(peer);
        self.swarm.behaviour_mut().direct_message.peer_down(peer);
        self.swarm.behaviour_mut().file_transfer.peer_down(peer);
        self.swarm.behaviour_mut().broadcast.peer_down(peer);
        self.watch_down(peer, how);
        if self.ending.is_some() {
            return;
        }
        self.emit(match how {
            dialer::Down::Left => Event::PeerLeft { peer: peer.to_base58(), name },
            _ => Event::PeerLost { peer: peer.to_base58(), name, reason: reason.to_owned() },
        });
        self.dialer.handle_input(dialer::Input::Down { peer, how }, now);
        self.seeds.handle_input(seeds::Input::Unlinked { peer }, now);
        if self.waiting.contains_key(&peer) || self.transfer_wants(&peer) {
            self.chase(peer, now);
        }
        self.resume(&Awaited::Gone(peer));
    }

    /// A peer says that it remembers a later start. It may lie, so the user is told, once, and it alone is left in peace.
    fn on_refused(&mut self, peer: PeerId, boot: u64, now: Instant) {
        if self.swarm.behaviour().peer_exchange.is_up(&peer) {
            self.refused.insert(peer);
        }
        // A seed that does this takes no registration either, and rests as such.
        self.seeds.handle_input(seeds::Input::RegisterFailed { peer, refused: true }, now);
        if boot <= self.boot || self.told_stale {
            return;
        }
        self.told_stale = true;
        let name = match self.directory.entry(peer).name() {
            "" => peer.to_base58(),
            name => name.to_owned(),
        };
        let (own, file) = (self.boot, self.config.paths.database.with_file_name("boot"));
        let message = format!(
            "another start of this identity is remembered by {name} (start {boot}, this is start {own}): the data dir \
             was restored from a copy, or the same key runs on two machines. Stop the other one, or give this one a key \
             of its own; if this is the only one, write the word {RESTORED} into {} and start it again",
            file.display()
        );
        self.emit(Event::Error { code: ErrorCode::Integrity, message });
    }

    pub(super) fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                // A foreign node answers pings as well, but is nobody to list.
                if let Some(entry) = self.directory.get_mut(&event.peer) {
                    entry.rtt_ms = Some(rtt.as_secs_f64() * 1_000.0);
                    entry.last_seen = Some(Timestamp::now());
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                // libp2p's ping only reports. A link that does not answer is dead, and nothing else would ever close it.
                tracing::debug!(peer = %event.peer, "ping failed, closing the link: {error}");
                self.swarm.behaviour_mut().peer_exchange.drop_connection(
                    event.peer,
                    event.connection,
                    "it does not answer",
                );
            }
        }
    }

    /// Take in a card from wherever it came: name, addresses, database.
    /// True when it is news.
    pub(super) fn learn(&mut self, card: &SignedCard, source: Source, now: Instant) -> bool {
        let peer = card.card().peer;
        if peer == self.local {
            return false;
        }
        let news = self.directory.learn(card);
        let entry = self.directory.entry(peer);
        if entry.state == PeerState::Known && (news || entry.since.is_none()) {
            entry.since = Some(Timestamp::now());
        }
        let addresses = card.card().addresses.iter().filter(|address| network::can_be_told(address)).cloned().collect();
        // A seed is dialled through its own core, so it is no candidate, but its address is kept for who wants it.
        self.dialer.handle_input(dialer::Input::Named { peer, addresses, source }, now);
        if role(Some(card)) == Role::Seed {
            self.dialer.handle_input(dialer::Input::Seed(peer), now);
        }
        if news {
            self.save(peer);
        }
        news
    }

    fn save(&mut self, peer: PeerId) {
        let Some(entry) = self.directory.get(&peer) else { return };
        let stored = StoredPeer {
            peer,
            card: entry.card.as_ref().map(|card| card.bytes().to_vec()),
            name: entry.first_name.clone(),
            addresses: self.dialer.addresses(&peer).iter().map(ToString::to_string).collect(),
            boot: entry.card.as_ref().map_or(0, |card| card.card().boot),
            first_met_ms: wall_ms(),
            last_seen_ms: entry.last_seen.map_or(0, |seen| u64::try_from(seen.as_millisecond()).unwrap_or(0)),
            trusted: entry.trusted,
            blocked: entry.blocked,
        };
        self.storage.save_peer(stored, Done::Saved);
    }

    /// What the database knew at the start.
    pub(super) fn remember(&mut self, opened: crate::storage::Opened, now: Instant) {
        let mut peers = opened.peers;
        // Whoever was seen last is dialled before anybody is heard of: a node whose seeds have all been bought meanwhile
        // still meets one that it knew before (the anchor).
        let may_anchor =
            |stored: &&StoredPeer| !stored.blocked && stored.last_seen_ms > 0 && !stored.addresses.is_empty();
        let anchor = peers.iter().filter(may_anchor).max_by_key(|stored| stored.last_seen_ms).map(|stored| stored.peer);
        peers.sort_by_key(|stored| stored.first_met_ms);
        for stored in peers {
            let card = stored.card.as_deref().and_then(|bytes| {
                let decoded = SignedCard::decode(bytes);
                decoded
                    .inspect_err(
                        |error| tracing::warn!(peer = %stored.peer, "a stored card is damaged and not used: {error}"),
                    )
                    .ok()
            });
            let entry = self.directory.entry(stored.peer);
            entry.first_name = stored.name;
            entry.card = card.filter(|card| card.card().peer == stored.peer);
            entry.last_seen = (stored.last_seen_ms > 0).then(|| timestamp(stored.last_seen_ms));
            entry.trusted = stored.trusted;
            entry.blocked = stored.blocked;
            let seed = role(entry.card.as_ref()) == Role::Seed;
            if stored.blocked {
                self.swarm.behaviour_mut().blocked.block_peer(stored.peer);
                self.dialer.handle_input(dialer::Input::Blocked(stored.peer), now);
            }
            let addresses: Vec<Multiaddr> =
                stored.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            if !seed && !addresses.is_empty() {
                let named = dialer::Input::Named { peer: stored.peer, addresses, source: Source::Remembered };
                self.dialer.handle_input(named, now);
            }
        }
        self.restore_standings(opened.standings);
        if let Some(anchor) = anchor {
            self.dialer.handle_input(dialer::Input::Try(anchor), now);
        }
        self.swarm.behaviour_mut().broadcast.restore(opened.broadcasts, opened.newcomer);
        for (peer, messages) in opened.pending {
            self.waiting.insert(peer, usize::try_from(messages).unwrap_or(usize::MAX));
            self.swarm.behaviour_mut().direct_message.pending(peer);
            self.dialer.handle_input(dialer::Input::Wanted(peer), now);
        }
    }

    /// Sign the own card anew and tell everybody.
    pub(super) fn renew_card(&mut self) {
        self.revision += 1;
        match sign_card(&self.key, &self.config, self.boot, self.revision, self.own_addresses()) {
            Ok(card) => self.swarm.behaviour_mut().peer_exchange.set_card(card),
            Err(error) => self.emit(Event::Error { code: error.code, message: error.message }),
        }
    }

    pub(super) fn goodbye(&self) -> Option<Goodbye> {
        let made = Goodbye::sign(&self.key, self.boot, wall_ms());
        made.inspect_err(|error| tracing::error!("the goodbye could not be signed: {error}")).ok()
    }

    /// Whom a command means; the command is parked or failed when that is not known now. With `here_only` nobody else is
    /// asked.
    pub(super) fn resolve(
        &mut self,
        command: Command,
        answer: Answer,
        here_only: bool,
    ) -> Option<(PeerId, Command, Answer)> {
        let word = command.peer().unwrap_or_default().to_owned();
        // An address is news also of somebody who is known, and perhaps known at an older one only.
        if let Ok(address) = word.parse::<Multiaddr>()
            && let (address, Some(peer)) = split_peer(&address)
            && peer != self.local
            && self.directory.get(&peer).is_some()
        {
            let named = dialer::Input::Named { peer, addresses: vec![address], source: Source::Gossip };
            self.dialer.handle_input(named, Instant::now());
        }
        match self.directory.meaning(&word) {
            Meaning::Peer(peer) if peer == self.local => {
                fail(answer, ErrorCode::Usage, "that is this node itself".to_owned());
                None
            }
            Meaning::Peer(peer) => Some((peer, command, answer)),
            Meaning::Unknown(Subject::Peer(peer)) if peer == self.local => {
                fail(answer, ErrorCode::Usage, "that is this node itself".to_owned());
                None
            }
            Meaning::Unknown(Subject::Name(name)) if name == self.config.name => {
                fail(
                    answer,
                    ErrorCode::NoSuchPeer,
                    format!("'{name}' is this node's own name, and nobody else goes by it here"),
                );
                None
            }
            Meaning::Unknown(_) if here_only => {
                fail(answer, ErrorCode::NoSuchPeer, format!("nobody is known as '{word}' here; `peers` lists who is"));
                None
            }
            Meaning::Unknown(subject) => {
                let id = self.swarm.behaviour_mut().peer_exchange.lookup(subject);
                self.seeds.handle_input(seeds::Input::LookNow, Instant::now());
                self.park(Awaited::Lookup(id), command, answer);
                None
            }
            Meaning::Address(_) if here_only => {
                fail(answer, ErrorCode::NoSuchPeer, format!("nobody is known at {word}; `peers` lists who is known"));
                None
            }
            Meaning::Address(address) if matches!(address.iter().last(), Some(Protocol::P2p(_))) => {
                let (address, peer) = split_peer(&address);
                if let Some(peer) = peer {
                    let now = Instant::now();
                    let named = dialer::Input::Named { peer, addresses: vec![address], source: Source::Gossip };
                    self.dialer.handle_input(named, now);
                    self.park(Awaited::Link(peer), command, answer);
                    self.dialer.handle_input(dialer::Input::Wanted(peer), now);
                }
                None
            }
            Meaning::Address(address) => {
                self.park(Awaited::Address(address.clone()), command, answer);
                self.dial(None, vec![address.clone()], Purpose::Command(address), Instant::now());
                None
            }
            Meaning::Ambiguous(several) => {
                let list = several.join(", ");
                fail(
                    answer,
                    ErrorCode::AmbiguousPeer,
                    format!("'{word}' may be {list}; use the PeerId or name~suffix"),
                );
                None
            }
            Meaning::Nonsense(why) => {
                fail(answer, ErrorCode::NoSuchPeer, why);
                None
            }
        }
    }

    pub(super) fn park(&mut self, awaited: Awaited, command: Command, answer: Answer) {
        if self.parked.len() >= MAX_PARKED {
            fail(
                answer,
                ErrorCode::General,
                "too many commands wait for the network already; try again in a moment".to_owned(),
            );
            return;
        }
        self.parked.push(Parked { awaited, deadline: Instant::now() + PATIENCE, command, answer });
    }

    /// Try the commands that waited for this once more.
    pub(super) fn resume(&mut self, awaited: &Awaited) {
        let (ready, parked) =
            std::mem::take(&mut self.parked).into_iter().partition(|parked| parked.awaited == *awaited);
        self.parked = parked;
        let ready: Vec<Parked> = ready;
        for Parked { command, answer, .. } in ready {
            let word = command.peer().unwrap_or_default();
            let known = !matches!(self.directory.meaning(word), Meaning::Unknown(_) | Meaning::Address(_));
            match awaited {
                Awaited::Lookup(_) if !known => {
                    let why = format!("nobody in the network is known as '{word}'; `peers` lists who is known here");
                    fail(answer, ErrorCode::NoSuchPeer, why);
                }
                // The word was an address that the peer does not tell; the link says who answers there.
                Awaited::Link(peer) if !known => self.handle_command(command.about(peer.to_base58()), answer),
                Awaited::Lookup(_) | Awaited::Link(_) | Awaited::Gone(_) | Awaited::Probe(_) | Awaited::Address(_) => {
                    self.handle_command(command, answer);
                }
            }
        }
    }

    pub(super) fn fail_parked(&mut self, awaited: &Awaited, code: ErrorCode, why: &str) {
        let (failed, parked) =
            std::mem::take(&mut self.parked).into_iter().partition(|parked| parked.awaited == *awaited);
        self.parked = parked;
        let failed: Vec<Parked> = failed;
        for parked in failed {
            fail(parked.answer, code, why.to_owned());
        }
    }

    pub(super) fn peers_command(&mut self, command: Command, answer: Answer) {
        let now = Instant::now();
        match command {
            Command::Peers => {
                let shown = self.directory.iter().filter(|(peer, entry)| {
                    !self.is_silent(entry) || self.dialer.is_mandatory(peer) || self.waiting.contains_key(*peer)
                });
                let peers = shown.map(|(peer, _)| *peer).collect::<Vec<_>>();
                let _ = answer.send(Ok(Reply::Peers(peers.iter().map(|peer| self.peer_info(peer)).collect())));
            }
            Command::Blocked => {
                let blocked =
                    self.directory.iter().filter(|(_, entry)| entry.blocked).map(|(peer, _)| *peer).collect::<Vec<_>>();
                let _ = answer.send(Ok(Reply::Peers(blocked.iter().map(|peer| self.peer_info(peer)).collect())));
            }
            Command::Whois { .. } => {
                let Some((peer, _, answer)) = self.resolve(command, answer, false) else { return };
                let _ = answer.send(Ok(Reply::Peer(Box::new(self.peer_info(&peer)))));
            }
            Command::Connect { .. } => {
                let Some((peer, command, answer)) = self.resolve(command, answer, false) else { return };
                if self.swarm.behaviour().peer_exchange.is_up(&peer) {
                    let _ = answer.send(Ok(Reply::Peer(Box::new(self.peer_info(&peer)))));
                } else if let Some(error) = self.refuses(&peer) {
                    let _ = answer.send(Err(error));
                } else {
                    self.seek(peer, command, answer, now);
                }
            }
            Command::Disconnect { .. } => {
                let Some((peer, _, answer)) = self.resolve(command, answer, true) else { return };
                if !self.swarm.behaviour().peer_exchange.is_up(&peer) {
                    let name = self.directory.shown(&peer);
                    fail(answer, ErrorCode::Unreachable, format!("there is no link to {name}"));
                    return;
                }
                self.dismiss(peer, now);
                let _ = answer.send(Ok(Reply::Peer(Box::new(self.peer_info(&peer)))));
            }
            Command::Block { .. } | Command::Unblock { .. } | Command::Trust { .. } => {
                self.access_command(command, answer, now)
            }
            _ => fail(answer, ErrorCode::General, "not a command about people".to_owned()),
        }
    }

    /// Park a command until there is a link to that peer, and make one.
    pub(super) fn seek(&mut self, peer: PeerId, command: Command, answer: Answer, now: Instant) {
        self.park(Awaited::Link(peer), command, answer);
        // The dialler may have forgotten one that was silent for long.
        if let Some(card) = self.directory.get(&peer).and_then(|entry| entry.card.clone()) {
            let addresses =
                card.card().addresses.iter().filter(|address| network::can_be_told(address)).cloned().collect();
            self.dialer.handle_input(dialer::Input::Named { peer, addresses, source: Source::Gossip }, now);
        }
        self.dialer.handle_input(dialer::Input::Wanted(peer), now);
        self.swarm.behaviour_mut().peer_exchange.lookup(Subject::Peer(peer));
    }

    /// Why nothing goes to that peer.
    pub(super) fn refuses(&self, peer: &PeerId) -> Option<ApiError> {
        let name = self.directory.shown(peer);
        if self.is_cut(peer) {
            let why = format!("{name} misbehaved and is refused for a while; `why {name}` says more");
            return Some(ApiError::new(ErrorCode::Refused, why));
        }
        self.directory.get(peer).filter(|entry| entry.blocked)?;
        Some(ApiError::new(ErrorCode::Refused, format!("{name} is blocked here; `unblock {name}` first")))
    }

    pub(super) fn dismiss(&mut self, peer: PeerId, now: Instant) {
        self.dismissed.insert(peer);
        self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
        if let Some(goodbye) = self.goodbye() {
            self.swarm.behaviour_mut().peer_exchange.disconnect(peer, goodbye);
        }
    }

    /// The access list also takes the full id of somebody never met.
    fn access_command(&mut self, command: Command, answer: Answer, now: Instant) {
        let whole_id = command.peer().and_then(|word| word.parse::<PeerId>().ok()).filter(|peer| *peer != self.local);
        let (peer, command, answer) = match whole_id {
            Some(peer) => (peer, command, answer),
            None => match self.resolve(command, answer, false) {
                Some(resolved) => resolved,
                None => return,
            },
        };
        let entry = self.directory.entry(peer);
        match command {
            Command::Block { .. } => {
                entry.blocked = true;
                self.dialer.handle_input(dialer::Input::Blocked(peer), now);
                self.swarm.behaviour_mut().blocked.block_peer(peer);
                self.swarm.behaviour_mut().liveness.forget(peer);
                self.no_verdict(&peer);
            }
            Command::Unblock { .. } => {
                entry.blocked = false;
                self.dialer.handle_input(dialer::Input::Unblocked(peer), now);
                self.swarm.behaviour_mut().blocked.unblock_peer(peer);
                if self.waiting.contains_key(&peer) {
                    self.chase(peer, now);
                }
            }
            _ => entry.trusted = true,
        }
        let info = Box::new(self.peer_info(&peer));
        let (trusted, blocked) = (info.trusted, info.blocked);
        // The answer waits for the disk: an access list that a crash forgets is none.
        let then = move |result: Result<(), _>| Done::Replied { answer, reply: result.map(|()| Reply::Peer(info)) };
        match command {
            Command::Trust { .. } => self.storage.set_trust(peer, trusted, then),
            _ => self.storage.set_block(peer, blocked, then),
        }
    }

    /// One peer as people see it.
    pub(super) fn peer_info(&self, peer: &PeerId) -> PeerInfo {
        let entry = self.directory.get(peer);
        let card = entry.and_then(|entry| entry.card.as_ref()).map(SignedCard::card);
        let addresses: Vec<String> = self.dialer.addresses(peer).iter().map(ToString::to_string).collect();
        PeerInfo {
            peer: peer.to_base58(),
            name: entry.map(|entry| entry.name().to_owned()).unwrap_or_default(),
            team: entry.map(|entry| entry.team().to_owned()).unwrap_or_default(),
            role: role(entry.and_then(|entry| entry.card.as_ref())),
            // Who came in did so from a port that nobody can dial, so what its card says is of more use.
            address: entry
                .filter(|entry| entry.via != Some(Via::Inbound) || addresses.is_empty())
                .and_then(|entry| entry.address.as_ref())
                .map(ToString::to_string)
                .or_else(|| addresses.first().cloned()),
            addresses,
            state: entry.map_or(PeerState::Known, |entry| entry.state),
            via: entry.and_then(|entry| entry.via),
            reliability: self.swarm.behaviour().reputation.reliability(peer),
            rtt_ms: entry.and_then(|entry| entry.rtt_ms),
            failures: self.dialer.failures(peer),
            since: entry.and_then(|entry| entry.since),
            last_seen: entry.and_then(|entry| entry.last_seen),
            mandatory: self.dialer.is_mandatory(peer),
            blocked: entry.is_some_and(|entry| entry.blocked),
            trusted: entry.is_some_and(|entry| entry.trusted),
            boot: card.map_or(0, |card| card.boot),
            version: card.map(|card| card.version.clone()).unwrap_or_default(),
        }
    }
}

/// A card of this node.
pub(crate) fn sign_card(
    key: &libp2p::identity::Keypair,
    config: &crate::config::Config,
    boot: u64,
    revision: u64,
    addresses: Vec<Multiaddr>,
) -> Result<SignedCard, ApiError> {
    let card = Card {
        peer: key.public().to_peer_id(),
        name: config.name.clone(),
        team: config.team.clone(),
        role: match config.role {
            Role::Peer => peer_exchange::Role::Peer,
            Role::Seed => peer_exchange::Role::Seed,
        },
        addresses,
        boot,
        revision,
        version: network::AGENT.to_owned(),
    };
    SignedCard::sign(key, card)
        .map_err(|error| ApiError::new(ErrorCode::General, format!("the own card cannot be signed: {error}")))
}

pub(super) fn fail(answer: Answer, code: ErrorCode, message: String) {
    let _ = answer.send(Err(ApiError::new(code, message)));
}

fn role(card: Option<&SignedCard>) -> Role {
    match card.map(|card| card.card().role) {
        Some(peer_exchange::Role::Seed) => Role::Seed,
        Some(peer_exchange::Role::Peer) | None => Role::Peer,
    }
}
