use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use peer_exchange::{Card, Role, SignedCard};

/// The key whose 32 secret bytes are all `number`.
pub(crate) fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

pub(crate) fn peer(number: u8) -> PeerId {
    // Simulations ask for these thousands of times.
    static PEERS: LazyLock<Vec<PeerId>> = LazyLock::new(|| (0..16).map(|n| key(n).public().to_peer_id()).collect());
    PEERS[usize::from(number)]
}

/// The card of that key: `node1` of team `test`, listening on one address.
pub(crate) fn card(number: u8, boot: u64, revision: u64) -> SignedCard {
    static CARDS: Mutex<BTreeMap<(u8, u64, u64), SignedCard>> = Mutex::new(BTreeMap::new());
    let mut cards = CARDS.lock().unwrap();
    let signed = || named(number, &format!("node{number}"), boot, revision);
    cards.entry((number, boot, revision)).or_insert_with(signed).clone()
}

pub(crate) fn named(number: u8, name: &str, boot: u64, revision: u64) -> SignedCard {
    let card = Card {
        peer: peer(number),
        name: name.into(),
        team: "test".into(),
        role: Role::Peer,
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".parse().unwrap()],
        boot,
        revision,
        version: "althing 0.1.0".into(),
    };
    SignedCard::sign(&key(number), card).unwrap()
}
