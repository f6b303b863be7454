use std::collections::BTreeMap;
use std::net::IpAddr;

use libp2p::Multiaddr;
use proptest::prelude::*;
use reputation::admission::{Admission, Link};
use reputation::{Limits, Origin, Prefix, Refusal};

use crate::common::{peer, stranger};

fn origin(address: &str) -> Origin {
    Origin::new(address.parse().unwrap())
}

fn link(number: u64, inbound: bool, address: &str) -> Link {
    Link { peer: stranger(number), inbound, origin: Some(origin(address)) }
}

/// Ask and, when it may, open.
fn open(core: &mut Admission<u64>, id: u64, link: Link) -> Option<Refusal> {
    let refusal = core.check(&link).err().map(|refused| refused.refusal);
    if refusal.is_none() {
        core.opened(id, link);
    }
    refusal
}

#[test]
fn ranges_and_what_is_private() {
    let cases = [
        ("/ip4/192.0.2.77/tcp/1", "192.0.2.77/32", "192.0.2.0/24", false),
        ("/ip4/100.128.0.1/tcp/1", "100.128.0.1/32", "100.128.0.0/24", false),
        ("/ip4/127.0.0.1/tcp/1", "127.0.0.1/32", "127.0.0.0/24", true),
        ("/ip4/10.1.2.3/tcp/1", "10.1.2.3/32", "10.1.2.0/24", true),
        ("/ip4/172.31.2.3/tcp/1", "172.31.2.3/32", "172.31.2.0/24", true),
        ("/ip4/192.168.2.3/tcp/1", "192.168.2.3/32", "192.168.2.0/24", true),
        ("/ip4/169.254.2.3/tcp/1", "169.254.2.3/32", "169.254.2.0/24", true),
        ("/ip4/100.64.2.3/tcp/1", "100.64.2.3/32", "100.64.2.0/24", true),
        ("/ip6/2001:db8:1:2:3:4:5:6/tcp/1", "2001:db8:1:2::/64", "2001:db8:1::/48", false),
        ("/ip6/::1/tcp/1", "::/64", "::/48", true),
        ("/ip6/fd00:1:2:3::1/tcp/1", "fd00:1:2:3::/64", "fd00:1:2::/48", true),
        ("/ip6/fe80::1/tcp/1", "fe80::/64", "fe80::/48", true),
        ("/ip6/::ffff:192.0.2.77/tcp/1", "192.0.2.77/32", "192.0.2.0/24", false),
    ];
    for (address, one, many, private) in cases {
        let origin = Origin::of(&address.parse::<Multiaddr>().unwrap()).unwrap();
        let shown = (origin.address.to_string(), origin.network.to_string(), origin.private);
        assert_eq!(shown, (one.to_owned(), many.to_owned(), private), "{address}");
    }
    let relay = format!("/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit", peer(1));
    for address in ["/memory/7", "/dns4/example.org/tcp/1", &relay] {
        assert_eq!(Origin::of(&address.parse().unwrap()), None, "{address}");
    }
    for bits in [0, 1, 32, 64, 128, 255] {
        let _ = (Prefix::new(IpAddr::from([255; 4]), bits), Prefix::new(IpAddr::from([255; 16]), bits));
    }
}

#[test]
fn thirty_percent_of_the_places_are_kept_for_those_that_we_dial() {
    for (places, inbound) in [(1_024, 716), (4_096, 2_867), (10, 7), (4, 2), (1, 0), (u32::MAX, 3_006_477_106)] {
        assert_eq!(Limits::with_places(places).inbound_places(), inbound, "{places}");
    }
    let mut core = Admission::new(Limits::with_places(10));
    for id in 0..7 {
        assert_eq!(open(&mut core, id, link(id, true, "10.0.0.1")), None);
    }
    assert_eq!(open(&mut core, 7, link(7, true, "10.0.0.1")), Some(Refusal::InboundPlaces));
    for id in 7..10 {
        assert_eq!(open(&mut core, id, link(id, false, "10.0.0.1")), None);
    }
    assert_eq!(open(&mut core, 10, link(10, false, "10.0.0.1")), Some(Refusal::Places));
    core.closed(8);
    assert_eq!(open(&mut core, 11, link(11, true, "10.0.0.1")), Some(Refusal::InboundPlaces));
    assert_eq!(open(&mut core, 12, link(12, false, "10.0.0.1")), None);
}

#[test]
fn a_public_address_and_network_have_their_share_and_others_keep_theirs() {
    let limits = Limits::default();
    let mut core = Admission::new(limits.clone());
    let mut id = 0..;
    let mut fill = |core: &mut Admission<u64>, address: &str| {
        let mut opened = 0;
        loop {
            let id = id.next().unwrap();
            match open(core, id, link(id, true, address)) {
                None => opened += 1,
                Some(refusal) => return (opened, refusal),
            }
        }
    };
    assert_eq!(fill(&mut core, "192.0.2.1"), (limits.per_address, Refusal::Address));
    assert_eq!(fill(&mut core, "192.0.2.2"), (limits.per_network - limits.per_address, Refusal::Address));
    assert_eq!(fill(&mut core, "192.0.2.3"), (0, Refusal::Network));
    assert_eq!(fill(&mut core, "2001:db8::1"), (limits.per_address, Refusal::Address));
    assert_eq!(fill(&mut core, "2001:db8:0:1::1"), (limits.per_network - limits.per_address, Refusal::Address));
    assert_eq!(fill(&mut core, "2001:db8:0:2::1"), (0, Refusal::Network));
    // On one host everybody comes from one address.
    assert_eq!(
        fill(&mut core, "127.0.0.1"),
        (limits.inbound_places() - 2 * limits.per_network, Refusal::InboundPlaces)
    );
}

#[test]
fn stalled_handshakes_of_one_address_leave_room_for_newcomers() {
    for (address, near, far) in [("127.0.0.1", "127.0.0.2", "10.0.0.1"), ("192.0.2.1", "192.0.2.2", "198.51.100.1")] {
        let mut core = Admission::new(Limits::default());
        let stalled = (0..2_000).filter(|&id| core.knock(id, Some(origin(address))).is_ok()).count();
        assert!((1..=256).contains(&stalled), "{address}: {stalled}");
        let refused = core.knock(2_000, Some(origin(address))).unwrap_err();
        assert_eq!((refused.refusal, refused.prefix), (Refusal::PendingAddress, Some(origin(address).address)));
        assert_eq!(core.knock(2_001, Some(origin(near))), Ok(()));
        // Its whole network does not suffice either.
        let others = (3_000..9_000).filter(|&id| core.knock(id, Some(origin(near))).is_ok()).count();
        assert!((1..=256).contains(&others));
        assert_eq!(core.knock(9_000, Some(origin(far))), Ok(()));
        // A place that is given back is free.
        core.settled(0);
        assert_eq!(core.knock(9_001, Some(origin(address))), Ok(()));
    }
}

#[test]
fn handshakes_are_bounded_in_all() {
    let mut core = Admission::new(Limits::default());
    let let_in = (0..5_000_u64).filter(|&id| core.knock(id, None).is_ok()).count();
    assert_eq!(let_in, 1_024);
    assert_eq!(core.knock(9_000, Some(origin("10.0.0.1"))).unwrap_err().refusal, Refusal::Pending);
}

#[test]
fn exempt_peers_are_counted_apart_but_not_without_end() {
    let mut core = Admission::new(Limits { places: 2, outbound_percent: 0, ..Limits::default() });
    assert_eq!(open(&mut core, 1, link(1, true, "192.0.2.1")), None);
    assert_eq!(open(&mut core, 2, link(2, true, "192.0.2.1")), None);
    assert_eq!(open(&mut core, 3, link(3, true, "192.0.2.1")), Some(Refusal::Places));
    core.exempt(stranger(3));
    for id in 3..11 {
        assert_eq!(open(&mut core, id, link(3, true, "192.0.2.1")), None);
    }
    assert_eq!(open(&mut core, 11, link(3, true, "192.0.2.1")), Some(Refusal::PerPeer));
    // Who becomes exempt gives its place back, and takes it again afterwards.
    core.exempt(stranger(1));
    assert_eq!(open(&mut core, 12, link(12, true, "192.0.2.1")), None);
    core.unexempt(&stranger(1));
    core.closed(2);
    assert_eq!(open(&mut core, 13, link(13, true, "192.0.2.1")), Some(Refusal::Places));
}

#[test]
fn usage_names_the_fullest_range() {
    let mut core = Admission::new(Limits::default());
    for id in 0..60 {
        core.opened(id, link(id, true, "127.0.0.1"));
        core.opened(id + 100, link(id, false, if id < 30 { "192.0.2.1" } else { "198.51.100.1" }));
    }
    core.closed(100);
    core.knock(500, Some(origin("2001:db8::1"))).unwrap();
    let usage = core.usage();
    let of = |limit| usage.iter().find(|usage| usage.limit == limit).unwrap();
    assert_eq!(usage.len(), Refusal::ALL.len() - 1);
    assert_eq!((of(Refusal::Places).used, of(Refusal::InboundPlaces).used, of(Refusal::PerPeer).used), (119, 60, 2));
    let address = of(Refusal::Address);
    assert_eq!((address.used, address.allowed, address.prefix), (30, 64, Some(origin("198.51.100.1").address)));
    assert_eq!((of(Refusal::PendingNetwork).used, of(Refusal::Pending).used), (1, 1));
}

proptest! {
    /// Whatever happens, what is counted is what stands, and nothing stays when all is closed.
    #[test]
    fn counts_are_what_stands(
        steps in prop::collection::vec((0..7_u8, 0..40_u64, 0..6_u64, any::<bool>(), 0..4_usize), 1..400),
    ) {
        let limits = Limits { places: 12, per_peer: 3, per_address: 4, per_network: 6, pending: 9, pending_per_address: 3,
            pending_per_network: 5, ..Limits::default() };
        let addresses = ["192.0.2.1", "192.0.2.2", "10.0.0.1", "2001:db8::1"];
        let mut core = Admission::new(limits.clone());
        let mut standing = BTreeMap::new();
        for (what, id, who, inbound, address) in steps {
            let wanted = link(who, inbound, addresses[address]);
            match what {
                0 | 1 if open(&mut core, id, wanted).is_none() => {
                    standing.insert(id, wanted);
                }
                2 => {
                    core.closed(id);
                    standing.remove(&id);
                }
                3 => core.exempt(stranger(who)),
                4 => core.unexempt(&stranger(who)),
                5 => { let _ = core.knock(id, wanted.origin); }
                6 => core.settled(id),
                _ => {}
            }
            let usage = core.usage();
            let used = |limit| usage.iter().find(|usage| usage.limit == limit).unwrap().used as usize;
            let counted = standing.values().filter(|link| !core.is_exempt(&link.peer));
            prop_assert_eq!(used(Refusal::Places), counted.clone().count());
            prop_assert_eq!(used(Refusal::InboundPlaces), counted.filter(|link| link.inbound).count());
            prop_assert!(used(Refusal::PerPeer) <= 3 && used(Refusal::Pending) <= 9);
            prop_assert!(usage.iter().filter(|usage| matches!(usage.limit, Refusal::PendingAddress | Refusal::PendingNetwork))
                .all(|usage| usage.used <= usage.allowed));
        }
        (0..40).for_each(|id| { core.closed(id); core.settled(id); });
        prop_assert!(core.usage().iter().all(|usage| usage.used == 0));
        prop_assert!((0..6).all(|who| !core.is_connected(&stranger(who))));
    }
}
