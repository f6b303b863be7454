//! The client against the stock server, and against servers that say what they like.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic like tests")]

/// A server that answers whatever the test says.
#[path = "rendezvous-client/hostile.rs"]
mod hostile;
/// The stock server.
#[path = "rendezvous-client/stock.rs"]
mod stock;
/// Test vectors, and hostile bytes without a network.
#[path = "rendezvous-client/wire.rs"]
mod wire;

use std::time::Duration;

use futures::StreamExt;
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use libp2p_swarm_test::SwarmExt;
use rendezvous_client::{Behaviour, Config, Event};

const NAMESPACE: &str = "althing";

/// One field of a protobuf message, which holds bytes.
fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

/// One field of a protobuf message, which holds a number.
fn number(field: u8, number: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(number)].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 128 {
        out.push((number % 128) as u8 | 128);
        number /= 128;
    }
    out.push(number as u8);
    out
}

fn registered(ttl: u64) -> Vec<u8> {
    [number(1, 1), bytes(3, &[number(1, 0), number(3, ttl)].concat())].concat()
}

fn page(registrations: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<u8> = registrations.iter().flat_map(|registration| bytes(1, registration)).collect();
    [number(1, 4), bytes(6, &[list, bytes(2, &[7; 8]), number(3, 0)].concat())].concat()
}

fn registration(namespace: &str, record: &[u8], ttl: u64) -> Vec<u8> {
    [bytes(1, namespace.as_bytes()), bytes(2, record), number(3, ttl)].concat()
}

fn record(key: &Keypair, addresses: Vec<Multiaddr>) -> Vec<u8> {
    PeerRecord::new(key, addresses).unwrap().into_signed_envelope().into_protobuf_encoding()
}

fn key(secret: u8) -> Keypair {
    Keypair::ed25519_from_bytes([secret; 32]).unwrap()
}

fn peer(secret: u8) -> PeerId {
    key(secret).public().to_peer_id()
}

fn address() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/4001".parse().unwrap()
}

async fn client() -> Swarm<Behaviour> {
    client_with(Config::default()).await
}

async fn client_with(config: Config) -> Swarm<Behaviour> {
    let mut swarm = Swarm::new_ephemeral_tokio(|key| Behaviour::with_config(key, config));
    swarm.listen().with_memory_addr_external().await;
    swarm
}

/// The client's next event while both run.
async fn next<S: NetworkBehaviour>(client: &mut Swarm<Behaviour>, server: &mut Swarm<S>) -> Event
where
    S::ToSwarm: std::fmt::Debug,
{
    let found = async {
        loop {
            tokio::select! {
                event = client.select_next_some() => if let SwarmEvent::Behaviour(event) = event { return event },
                _ = server.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("an event of the client")
}
