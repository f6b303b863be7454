//! Everybody this node knows, in memory: who goes by which name, who is up, what is known of them.
//!
//! The database holds the same over restarts; this is the copy that every command and every event looks at. A nickname
//! belongs to the PeerId it was first met with. When somebody else comes along under the same name, the name alone
//! means nobody any more and is an error that lists them all: a message never goes to a namesake.

use std::collections::BTreeMap;

use jiff::Timestamp;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use peer_exchange::SignedCard;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;

use crate::api::{PeerState, Via};

/// Most peers held; beyond, the one without a link that was met last goes.
const MAX_PEERS: usize = 10_000;

/// Characters of a PeerId that tell namesakes apart.
const SUFFIX: usize = 5;

/// What is known of one peer.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) card: Option<SignedCard>,
    /// The nickname it was first met with.
    pub(super) first_name: Option<String>,
    /// Rises from one peer to the next in the order in which they were met.
    order: u64,
    pub(super) state: PeerState,
    pub(super) since: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
    pub(super) address: Option<Multiaddr>,
    pub(super) via: Option<Via>,
    pub(super) rtt_ms: Option<f64>,
    pub(super) trusted: bool,
    pub(super) blocked: bool,
}

impl Entry {
    fn new(order: u64) -> Self {
        Self {
            card: None,
            first_name: None,
            order,
            state: PeerState::Known,
            since: None,
            last_seen: None,
            address: None,
            via: None,
            rtt_ms: None,
            trusted: false,
            blocked: false,
        }
    }

    /// The present nickname, else the first one, else nothing.
    pub(super) fn name(&self) -> &str {
        self.card.as_ref().map(|card| card.card().name.as_str()).or(self.first_name.as_deref()).unwrap_or_default()
    }

    /// The present team label.
    pub(super) fn team(&self) -> &str {
        self.card.as_ref().map(|card| card.card().team.as_str()).unwrap_or_default()
    }
}

/// What a person's word for a peer means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// This peer, known here.
    Peer(PeerId),
    /// Nobody known here; ask the others.
    Unknown(peer_exchange::Subject),
    /// An address; who answers there is not known.
    Address(Multiaddr),
    /// Several, as `name (PeerId)`.
    Ambiguous(Vec<String>),
    /// It is neither a name nor an id nor an address.
    Nonsense(String),
}

/// Everybody.
#[derive(Debug, Default)]
pub(super) struct Directory {
    peers: BTreeMap<PeerId, Entry>,
    met: u64,
}

impl Directory {
    /// That peer, if it is known.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.peers.get(peer)
    }

    /// That peer to be changed, if it is known.
    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        self.peers.get_mut(peer)
    }

    /// That peer, made known if it was not.
    pub(super) fn entry(&mut self, peer: PeerId) -> &mut Entry {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.make_room();
        }
        self.peers.entry(peer).or_insert_with(|| {
            self.met += 1;
            Entry::new(self.met)
        })
    }

    /// Take in a card. True when it is news.
    pub(super) fn learn(&mut self, card: &SignedCard) -> bool {
        let entry = self.entry(card.card().peer);
        let news = entry.card.as_ref().is_none_or(|held| card.is_newer_than(held));
        if news {
            entry.first_name.get_or_insert_with(|| card.card().name.clone());
            entry.card = Some(card.clone());
        }
        news
    }

    /// Everybody, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Entry)> {
        self.peers.iter()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The cards that answer somebody's question, at most `limit`.
    pub(super) fn cards(&self, subject: &peer_exchange::Subject, limit: usize, rng: &mut StdRng) -> Vec<SignedCard> {
        match subject {
            // Only whom this node is linked with: of all others it knows no more than what it was told.
            peer_exchange::Subject::Anybody => {
                let up = self.peers.values().filter(|entry| entry.state == PeerState::Up && !entry.blocked);
                let cards = up.filter_map(|entry| entry.card.as_ref());
                cards.choose_multiple(rng, limit).into_iter().cloned().collect()
            }
            peer_exchange::Subject::Peer(peer) => {
                self.get(peer).and_then(|entry| entry.card.clone()).into_iter().collect()
            }
            peer_exchange::Subject::Name(name) => {
                let of_that_name = self
                    .peers
                    .values()
                    .filter_map(|entry| entry.card.as_ref())
                    .filter(|card| card.card().name == *name);
                of_that_name.take(limit).cloned().collect()
            }
        }
    }

    /// The name a person is shown: with the end of the PeerId where several go by it.
    pub(super) fn shown(&self, peer: &PeerId) -> String {
        let id = peer.to_base58();
        let suffix = &id[id.len().saturating_sub(SUFFIX)..];
        match self.get(peer).map(Entry::name).filter(|name| !name.is_empty()) {
            Some(name) if self.of_name(name).len() > 1 => format!("{name}~{suffix}"),
            Some(name) => name.to_owned(),
            None => format!("…{suffix}"),
        }
    }

    /// Whether somebody else than `peer` goes by that name, or was met under it.
    pub(super) fn is_taken(&self, name: &str, peer: &PeerId) -> bool {
        let bears = |entry: &Entry| entry.name() == name || entry.first_name.as_deref() == Some(name);
        self.peers.iter().any(|(other, entry)| other != peer && bears(entry))
    }

    /// What a person means by `word`: nickname, PeerId, unique prefix of one, `name~suffix`, multiaddr or `host:port`.
    pub(super) fn meaning(&self, word: &str) -> Meaning {
        if let Ok(peer) = word.parse::<PeerId>() {
            return if self.peers.contains_key(&peer) {
                Meaning::Peer(peer)
            } else {
                Meaning::Unknown(peer_exchange::Subject::Peer(peer))
            };
        }
        if word.starts_with('/') {
            return match word.parse::<Multiaddr>() {
                Ok(address) => self.meaning_of_address(address),
                Err(_) => {
                    Meaning::Nonsense(format!("'{word}' is no multiaddr; an example is /ip4/192.168.1.7/tcp/4001"))
                }
            };
        }
        if let Some((host, port)) = word.rsplit_once(':') {
            return match host_and_port(host, port) {
                Some(address) => self.meaning_of_address(address),
                None => Meaning::Nonsense(format!("'{word}' is no address; an example is 192.168.1.7:4001")),
            };
        }
        if let Some((name, suffix)) = word.rsplit_once('~') {
            let fits = |peer: &&PeerId| peer.to_base58().ends_with(suffix);
            return self.one_of(word, self.of_name(name).iter().filter(fits).copied().collect());
        }
        let named = self.of_name(word);
        if !named.is_empty() {
            return self.one_of(word, named);
        }
        // A PeerId begins with a multihash header that all have in common, so a prefix must say more than that.
        let by_prefix: Vec<PeerId> = if word.len() > 8 && word.starts_with("12D3Koo") {
            self.peers.keys().filter(|peer| peer.to_base58().starts_with(word)).copied().collect()
        } else {
            Vec::new()
        };
        self.one_of(word, by_prefix)
    }

    fn one_of(&self, word: &str, found: Vec<PeerId>) -> Meaning {
        match found.as_slice() {
            [peer] => Meaning::Peer(*peer),
            [] if peer_exchange::check_name(word).is_ok() => {
                Meaning::Unknown(peer_exchange::Subject::Name(word.to_owned()))
            }
            [] => Meaning::Nonsense(format!("nobody is known as '{word}'")),
            several => {
                let list = several.iter().map(|peer| format!("{} ({peer})", self.shown(peer)));
                Meaning::Ambiguous(list.take(8).collect())
            }
        }
    }

    /// Whom that name may mean. It belongs to the one who was met first under it: while that one, and nobody else, goes by
    /// it, it means that one, whatever others were once called. In every other case all of them come into question.
    fn of_name(&self, name: &str) -> Vec<PeerId> {
        let now = |entry: &Entry| entry.name() == name;
        let met = |entry: &Entry| entry.first_name.as_deref() == Some(name);
        let owner = self
            .peers
            .iter()
            .filter(|(_, entry)| met(entry))
            .min_by_key(|(_, entry)| entry.order)
            .map(|(peer, _)| *peer);
        let bearers: Vec<PeerId> = self.peers.iter().filter(|(_, entry)| now(entry)).map(|(peer, _)| *peer).collect();
        match (bearers.as_slice(), owner) {
            ([only], Some(owner)) if *only == owner => vec![owner],
            _ => self.peers.iter().filter(|(_, entry)| now(entry) || met(entry)).map(|(peer, _)| *peer).collect(),
        }
    }

    fn meaning_of_address(&self, address: Multiaddr) -> Meaning {
        if let Some(Protocol::P2p(peer)) = address.iter().last() {
            return if self.peers.contains_key(&peer) { Meaning::Peer(peer) } else { Meaning::Address(address) };
        }
        let is_tcp = address.iter().any(|part| matches!(part, Protocol::Tcp(port) if port != 0));
        if !is_tcp {
            return Meaning::Nonsense(format!(
                "'{address}' names no TCP port; an example is /ip4/192.168.1.7/tcp/4001"
            ));
        }
        let at = self.peers.iter().filter(|(_, entry)| entry.state == PeerState::Up).find(|(_, entry)| {
            let told = entry.card.iter().any(|card| card.card().addresses.contains(&address));
            told || entry.address.as_ref() == Some(&address)
        });
        at.map_or(Meaning::Address(address), |(peer, _)| Meaning::Peer(*peer))
    }

    fn make_room(&mut self) {
        let spare = |entry: &&Entry| entry.state != PeerState::Up && !entry.trusted && !entry.blocked;
        // Whoever was met last goes first, so that a crowd of strangers cannot push out who bears a name since long.
        let newest = self.peers.iter().filter(|(_, entry)| spare(entry)).max_by_key(|(_, entry)| entry.order);
        if let Some(peer) = newest.map(|(peer, _)| *peer) {
            self.peers.remove(&peer);
        }
    }
}

fn host_and_port(host: &str, port: &str) -> Option<Multiaddr> {
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let first = match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => Protocol::Ip4(ip),
        Ok(std::net::IpAddr::V6(ip)) => Protocol::Ip6(ip),
        Err(_)
            if !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) =>
        {
            Protocol::Dns(host.to_owned().into())
        }
        Err(_) => return None,
    };
    Some(Multiaddr::empty().with(first).with(Protocol::Tcp(port)))
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use peer_exchange::{Card, Role};

    use super::*;

    fn meet(directory: &mut Directory, key: &Keypair, name: &str, revision: u64) -> PeerId {
        let peer = key.public().to_peer_id();
        let card = Card {
            peer,
            name: name.to_owned(),
            team: "althing".to_owned(),
            role: Role::Peer,
            addresses: Vec::new(),
            boot: 1,
            revision,
            version: String::new(),
        };
        directory.learn(&SignedCard::sign(key, card).unwrap());
        peer
    }

    #[test]
    fn a_name_means_whom_it_was_met_with_and_never_a_namesake() {
        let mut directory = Directory::default();
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let first = meet(&mut directory, &one, "bob", 1);
        assert_eq!(directory.meaning("bob"), Meaning::Peer(first));
        let second = meet(&mut directory, &two, "bob", 1);
        assert!(matches!(directory.meaning("bob"), Meaning::Ambiguous(both) if both.len() == 2));
        let suffixed = directory.shown(&second);
        assert_eq!(directory.meaning(&suffixed), Meaning::Peer(second));
        // The second calls itself otherwise: the name is the first one's again.
        meet(&mut directory, &two, "cleo", 2);
        assert_eq!(directory.meaning("bob"), Meaning::Peer(first));
        assert_eq!(directory.meaning("cleo"), Meaning::Peer(second));
        // The first calls itself otherwise and another takes the name: that is a question for the person.
        meet(&mut directory, &one, "robert", 2);
        let third = meet(&mut directory, &Keypair::generate_ed25519(), "bob", 1);
        assert!(matches!(directory.meaning("bob"), Meaning::Ambiguous(all) if all.len() == 3));
        assert_eq!(directory.meaning(&third.to_base58()), Meaning::Peer(third));
        assert_eq!(directory.meaning("robert"), Meaning::Peer(first));
    }

    #[test]
    fn words_are_names_ids_prefixes_or_addresses() {
        let mut directory = Directory::default();
        let peer = meet(&mut directory, &Keypair::generate_ed25519(), "bob", 1);
        let id = peer.to_base58();
        assert_eq!(directory.meaning(&id), Meaning::Peer(peer));
        assert_eq!(directory.meaning(&id[..20]), Meaning::Peer(peer));
        assert_eq!(directory.meaning("nobody"), Meaning::Unknown(peer_exchange::Subject::Name("nobody".to_owned())));
        for (word, address) in [
            ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
            ("[::1]:4001", "/ip6/::1/tcp/4001"),
            ("host.example:4001", "/dns/host.example/tcp/4001"),
            ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"),
        ] {
            assert_eq!(directory.meaning(word), Meaning::Address(address.parse().unwrap()), "{word}");
        }
        for word in ["127.0.0.1:0", "127.0.0.1:99999", "a b:1", "/ip4/1.2.3.4", "/nonsense", "two words"] {
            assert!(matches!(directory.meaning(word), Meaning::Nonsense(_)), "{word}");
        }
    }

    #[test]
    fn strangers_make_room_and_friends_stay() {
        let mut directory = Directory::default();
        let friend = PeerId::random();
        directory.entry(friend).trusted = true;
        for _ in 0..MAX_PEERS + 10 {
            directory.entry(PeerId::random());
        }
        assert_eq!(directory.len(), MAX_PEERS);
        assert!(directory.get(&friend).is_some());
    }
}
