//! Everything the node speaks, as one list.

use std::sync::Arc;
use std::time::Duration;

use file_transfer::ChunkStore;
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{identify, mdns, ping, rendezvous};
use peer_exchange::SignedCard;

use super::seeds::REGISTRATION_TTL;
use crate::api::Role;
use crate::config::Config;

/// The namespace under which peers register at seeds.
pub(crate) const NAMESPACE: &str = "althing";

/// What identify says that we speak; the behaviours' own protocol names carry their versions.
const IDENTIFY_PROTOCOL: &str = "/althing/1";

/// Interval and timeout of the ping. libp2p keeps the first failure to itself and tries once more on a new stream, whose
/// negotiation has ten seconds: a link whose other end is silent is closed after at most 3 + 3 + 3 + 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Links of a peer and of a seed, which everybody visits.
const LINKS_OF_A_PEER: u32 = 1_024;
const LINKS_OF_A_SEED: u32 = 4_096;

/// Longest life of a registration that a seed grants.
const LONGEST_REGISTRATION: Duration = Duration::from_secs(300);

/// Registrations that a seed holds.
const REGISTRATIONS: usize = 10_000;

/// The list.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits stand first: what they deny reaches nobody else.
    pub(crate) reputation: reputation::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) rendezvous: rendezvous_client::Behaviour,
    pub(crate) rendezvous_server: Toggle<rendezvous::server::Behaviour>,
    pub(crate) peer_exchange: peer_exchange::Behaviour,
    pub(crate) liveness: liveness::Behaviour,
    pub(crate) direct_message: direct_message::Behaviour,
    pub(crate) broadcast: broadcast::Behaviour,
    pub(crate) file_transfer: file_transfer::Behaviour,
}

impl Behaviour {
    /// All of it for this node. The random seeds make the cores of two nodes behave differently.
    pub(crate) fn new(
        key: &Keypair,
        config: &Config,
        card: SignedCard,
        disk: Arc<dyn ChunkStore>,
        rng_seed: u64,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let local = key.public().to_peer_id();
        let seed = config.role == Role::Seed;
        let links = if seed { LINKS_OF_A_SEED } else { LINKS_OF_A_PEER };
        let limits = reputation::Limits::with_places(links);
        let mut reputation =
            reputation::Behaviour::new(reputation::Config { limits, ..reputation::Config::default() }, rng_seed);
        let mandatory = config.peers.iter().filter_map(|address| match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        });
        mandatory.for_each(|peer| reputation.exempt(peer));
        let alive = liveness::Config {
            interval: config.liveness_interval,
            misses: config.liveness_misses,
            ..liveness::Config::default()
        };
        // A probe may be a dial, and none is over before a dial may be.
        let probe_timeout = alive.probe_timeout.max(config.dial_timeout + Duration::from_secs(1));
        let request_timeout = alive.request_timeout.max(probe_timeout + Duration::from_secs(1));
        let alive = liveness::Config { probe_timeout, request_timeout, ..alive };
        let known_seeds = config.seeds.iter().filter_map(|seed| seed.peer).collect();
        let role = if seed { liveness::Role::Seed } else { liveness::Role::Peer };
        let mut liveness = liveness::Behaviour::new(key.clone(), role, card.card().boot, alive, rng_seed)?;
        liveness.set_seeds(known_seeds);
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local)).and_then(|made| {
            made.inspect_err(|error| {
                tracing::warn!("LAN discovery does not work here, the node goes on without it: {error}")
            })
            .ok()
        });
        let server = seed.then(|| {
            let config = rendezvous::server::Config::default()
                .with_min_ttl(REGISTRATION_TTL.as_secs())
                .with_max_ttl(LONGEST_REGISTRATION.as_secs())
                // One namespace and room for another: the stock server counts before it replaces, so with 1 it would refuse
                // every renewal.
                .with_max_registration_per_peer(2)
                .with_max_registration_total(REGISTRATIONS);
            rendezvous::server::Behaviour::new(config)
        });
        // The card's boot count is the author's epoch.
        let epoch = card.card().boot;
        let stock = broadcast::Config::default();
        let kept = broadcast::Config {
            retention: config.keep_broadcasts_for,
            retained_messages: config.keep_broadcasts,
            max_jump: stock.max_jump.max(config.keep_broadcasts as u64),
            ..stock
        };
        let broadcast = broadcast::Behaviour::new(key.clone(), epoch, kept, rng_seed)?;
        let limits = file_transfer::Config {
            upload_limit: config.upload_limit,
            download_limit: config.download_limit,
            ..file_transfer::Config::default()
        };
        Ok(Self {
            file_transfer: file_transfer::Behaviour::new(key.clone(), limits, disk, rng_seed),
            reputation,
            liveness,
            blocked: allow_block_list::Behaviour::default(),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), key.public())
                    .with_agent_version(super::AGENT.to_owned()),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
            mdns: mdns.into(),
            rendezvous: rendezvous_client::Behaviour::new(key.clone()),
            rendezvous_server: server.into(),
            peer_exchange: peer_exchange::Behaviour::new(card, peer_exchange::Config::default(), rng_seed),
            broadcast,
            direct_message: direct_message::Behaviour::new(local, direct_message::Config::default(), rng_seed),
        })
    }
}
