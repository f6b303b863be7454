//! The dialler against simulated peers.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::*;

fn address(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

fn named(peer: PeerId, source: Source) -> Input {
    Input::Named { peer, addresses: vec![address(4001)], source }
}

fn dials(dialer: &mut Dialer) -> Vec<Target> {
    std::iter::from_fn(|| dialer.poll_output())
        .filter_map(|output| match output {
            Output::Dial { target, .. } => Some(target),
            Output::Hungry(_) => None,
        })
        .collect()
}

/// Dialled peers come up at once; everybody else is silent.
fn bring_up(dialer: &mut Dialer, now: Instant) -> Vec<PeerId> {
    let mut up = Vec::new();
    loop {
        let targets = dials(dialer);
        if targets.is_empty() {
            return up;
        }
        for target in targets {
            let Target::Peer(peer) = target else { continue };
            up.push(peer);
            dialer.handle_input(Input::Up { peer, dialled: true, seed: false }, now);
        }
    }
}

#[test]
fn fanout_links_are_dialled_and_inbound_ones_do_not_count() {
    for rng_seed in 0..50 {
        let now = Instant::now();
        let mut dialer = Dialer::new(4, 1, Vec::new(), rng_seed, now);
        let peers: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
        dialer.handle_input(Input::Up { peer: peers[0], dialled: false, seed: false }, now);
        for peer in &peers {
            dialer.handle_input(named(*peer, Source::Seed), now);
        }
        let up = bring_up(&mut dialer, now);
        assert_eq!(up.len(), 4);
        assert!(!up.contains(&peers[0]), "a peer that is linked already is not dialled");
        dialer.handle_input(Input::Down { peer: up[0], how: Down::Lost }, now);
        assert_eq!(bring_up(&mut dialer, now).len(), 1, "a lost link is replaced");
    }
}

#[test]
fn the_pick_is_random() {
    let peers: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    let picks: BTreeSet<PeerId> = (0..100)
        .flat_map(|rng_seed| {
            let now = Instant::now();
            let mut dialer = Dialer::new(0, 1, Vec::new(), rng_seed, now);
            for peer in &peers {
                dialer.handle_input(named(*peer, Source::Seed), now);
            }
            dialer.handle_input(Input::Fanout(1), now);
            bring_up(&mut dialer, now)
        })
        .collect();
    assert_eq!(picks.len(), 10);
}

#[test]
fn remembered_peers_stand_back_until_nobody_fresh_can_be_had() {
    let now = Instant::now();
    let mut dialer = Dialer::new(1, 1, Vec::new(), 1, now);
    let (old, fresh) = (PeerId::random(), PeerId::random());
    dialer.handle_input(named(old, Source::Remembered), now);
    assert_eq!(dials(&mut dialer), []);
    assert_eq!(dialer.poll_timeout(), Some(now + REMEMBERED_AFTER));
    dialer.handle_input(named(fresh, Source::Seed), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(fresh)]);
    dialer.handle_input(Input::DialFailed(Target::Peer(fresh)), now);
    dialer.handle_timeout(now + REMEMBERED_AFTER + RETRY.cap);
    assert_eq!(dials(&mut dialer).len(), 1);
    dialer.handle_input(Input::DialFailed(Target::Peer(fresh)), now + REMEMBERED_AFTER + RETRY.cap);
    assert_eq!(dials(&mut dialer), [Target::Peer(old)]);
}

#[test]
fn a_mandatory_peer_is_redialled_for_ever_with_backoff() {
    let mut now = Instant::now();
    let start = now;
    let mut dialer = Dialer::new(0, 1, vec![(address(4001), None)], 1, now);
    dialer.handle_timeout(now);
    let mut tries = 0;
    while now < start + Duration::from_secs(600) {
        for target in dials(&mut dialer) {
            assert_eq!(target, Target::Mandatory(0));
            tries += 1;
            dialer.handle_input(Input::DialFailed(target), now);
        }
        now = dialer.poll_timeout().unwrap();
        dialer.handle_timeout(now);
    }
    assert!((40..100).contains(&tries), "{tries} dials in ten minutes");
    let peer = PeerId::random();
    dialer.handle_input(Input::Identified { mandatory: 0, peer }, now);
    dialer.handle_input(Input::Up { peer, dialled: true, seed: false }, now);
    dials(&mut dialer);
    assert!(dialer.is_mandatory(&peer));
    dialer.handle_input(Input::Down { peer, how: Down::Left }, now);
    dialer.handle_timeout(now + RETRY_SOON.first);
    assert_eq!(dials(&mut dialer), [Target::Peer(peer)], "even after a goodbye");
}

#[test]
fn a_wish_is_tried_at_once_and_then_at_most_the_cap_apart() {
    let mut now = Instant::now();
    let mut dialer = Dialer::new(0, 1, Vec::new(), 1, now);
    let peer = PeerId::random();
    dialer.handle_input(Input::Wanted(peer), now);
    assert_eq!(dials(&mut dialer), [], "nobody knows where it is");
    dialer.handle_input(named(peer, Source::Gossip), now);
    for _ in 0..20 {
        assert_eq!(dials(&mut dialer), [Target::Peer(peer)]);
        dialer.handle_input(Input::DialFailed(Target::Peer(peer)), now);
        let next = dialer.poll_timeout().unwrap();
        assert!(next > now && next <= now + RETRY_SOON.cap);
        now = next;
        dialer.handle_timeout(now);
    }
    dialer.handle_input(Input::DialFailed(Target::Peer(peer)), now);
    dials(&mut dialer);
    dialer.handle_input(Input::Unwanted(peer), now);
    assert_eq!(dialer.poll_timeout(), None);
}

#[test]
fn a_restarted_peer_is_dialled_at_once_and_a_dismissed_one_not() {
    let now = Instant::now();
    let mut dialer = Dialer::new(1, 1, Vec::new(), 1, now);
    let peer = PeerId::random();
    dialer.handle_input(named(peer, Source::Seed), now);
    bring_up(&mut dialer, now);
    dialer.handle_input(Input::Down { peer, how: Down::Reset }, now);
    assert_eq!(bring_up(&mut dialer, now), [peer]);
    dialer.handle_input(Input::Down { peer, how: Down::Dismissed }, now);
    dialer.handle_input(named(peer, Source::Seed), now + Duration::from_secs(60));
    assert_eq!(dials(&mut dialer), []);
    dialer.handle_input(Input::Wanted(peer), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(peer)]);
}

#[test]
fn a_peer_that_refuses_us_is_left_alone_for_a_minute() {
    let now = Instant::now();
    let (peer, mandatory) = (PeerId::random(), PeerId::random());
    let mut dialer = Dialer::new(1, 1, vec![(address(4002), Some(mandatory))], 1, now);
    dialer.handle_input(named(peer, Source::Seed), now);
    dials(&mut dialer);
    for peer in [peer, mandatory] {
        dialer.handle_input(Input::Up { peer, dialled: true, seed: false }, now);
        dialer.handle_input(Input::Down { peer, how: Down::Refused }, now);
    }
    dialer.handle_timeout(now + REFUSED_REST - Duration::from_millis(1));
    assert_eq!(dials(&mut dialer), []);
    dialer.handle_timeout(now + REFUSED_REST);
    assert_eq!(dials(&mut dialer).len(), 2);
}

#[test]
fn a_peer_that_left_is_picked_again_once_it_is_named_anew() {
    let now = Instant::now();
    let mut dialer = Dialer::new(1, 1, Vec::new(), 1, now);
    let peer = PeerId::random();
    dialer.handle_input(named(peer, Source::Seed), now);
    bring_up(&mut dialer, now);
    dialer.handle_input(Input::Down { peer, how: Down::Left }, now);
    dialer.handle_input(named(peer, Source::Seed), now + Duration::from_secs(1));
    assert_eq!(dials(&mut dialer), [], "a list that crossed the goodbye");
    dialer.handle_input(named(peer, Source::Seed), now + Duration::from_secs(10));
    assert_eq!(dials(&mut dialer), [Target::Peer(peer)]);
}

#[test]
fn blocked_and_foreign_nodes_are_left_alone() {
    let now = Instant::now();
    let mut dialer = Dialer::new(4, 1, Vec::new(), 1, now);
    let (blocked, foreign) = (PeerId::random(), PeerId::random());
    dialer.handle_input(Input::Blocked(blocked), now);
    dialer.handle_input(named(blocked, Source::Mdns), now);
    dialer.handle_input(named(foreign, Source::Mdns), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(foreign)]);
    dialer.handle_input(Input::Foreign(foreign), now);
    dialer.handle_input(named(foreign, Source::Mdns), now + Duration::from_secs(60));
    dialer.handle_timeout(now + Duration::from_secs(1800));
    assert_eq!(dials(&mut dialer), []);
    dialer.handle_input(Input::Unblocked(blocked), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(blocked)]);
}

#[test]
fn memory_is_bounded() {
    let now = Instant::now();
    let mut dialer = Dialer::new(0, 1, Vec::new(), 1, now);
    for _ in 0..MAX_CANDIDATES / 2 + 100 {
        dialer.handle_input(named(PeerId::random(), Source::Seed), now);
    }
    assert_eq!(dialer.candidates.len(), MAX_CANDIDATES / 2);
    for _ in 0..MAX_WANTED + 100 {
        dialer.handle_input(Input::Wanted(PeerId::random()), now);
    }
    assert_eq!(dialer.wanted.len(), MAX_WANTED);
}

#[test]
fn a_list_of_dead_addresses_is_worked_off_slowly() {
    let mut now = Instant::now();
    let start = now;
    let mut dialer = Dialer::new(4, 1, Vec::new(), 1, now);
    let dead = (0..5_000).map(|_| (PeerId::random(), vec![address(4001)])).collect();
    dialer.handle_input(Input::Listed { by: PeerId::random(), named: dead }, now);
    let mut tried = 0;
    while now < start + Duration::from_secs(60) {
        loop {
            let targets = dials(&mut dialer);
            if targets.is_empty() {
                break;
            }
            for target in targets {
                tried += 1;
                dialer.handle_input(Input::DialFailed(target), now);
            }
        }
        let next = dialer.poll_timeout().unwrap();
        assert!(next > now, "a timer that does not advance would spin");
        now = next;
        dialer.handle_timeout(now);
    }
    assert!((100..140).contains(&tried), "{tried} dials in a minute");
}

#[test]
fn a_lying_seed_fills_no_more_than_its_share_and_does_not_drown_the_others() {
    let now = Instant::now();
    let (liar, honest) = (PeerId::random(), PeerId::random());
    let mut found = 0;
    for rng_seed in 0..25 {
        let mut dialer = Dialer::new(4, 2, Vec::new(), rng_seed, now);
        let made_up = (0..MAX_CANDIDATES).map(|_| (PeerId::random(), vec![address(4001)])).collect();
        let real: Vec<PeerId> = (0..5).map(|_| PeerId::random()).collect();
        // Both were heard before anybody was dialled.
        dialer.fanout = 0;
        dialer.handle_input(Input::Listed { by: liar, named: made_up }, now);
        assert_eq!(dialer.candidates.len(), MAX_CANDIDATES / 3);
        let named = real.iter().map(|peer| (*peer, vec![address(4002)])).collect();
        dialer.handle_input(Input::Listed { by: honest, named }, now);
        dialer.handle_input(Input::Fanout(4), now);
        let mut dialled = Vec::new();
        loop {
            let targets = dials(&mut dialer);
            if targets.is_empty() {
                break;
            }
            for target in targets {
                dialled.push(target);
                dialer.handle_input(Input::DialFailed(target), now);
            }
        }
        assert_eq!(dialled.len(), BURST as usize);
        found += usize::from(real.iter().any(|peer| dialled.contains(&Target::Peer(*peer))));
    }
    assert!(found >= 24, "an honest peer was among the first eight dials in {found} of 25 runs");
}

#[test]
fn one_that_never_answered_makes_room_for_the_next_of_its_namer() {
    let now = Instant::now();
    let seed = PeerId::random();
    let mut dialer = Dialer::new(1, 1, Vec::new(), 1, now);
    let first: Vec<_> = (0..MAX_CANDIDATES / 2).map(|_| (PeerId::random(), vec![address(4001)])).collect();
    dialer.handle_input(Input::Listed { by: seed, named: first }, now);
    let late = PeerId::random();
    let listed = || Input::Listed { by: seed, named: vec![(late, vec![address(4002)])] };
    dialer.handle_input(listed(), now);
    assert!(dialer.addresses(&late).is_empty(), "the share is full");
    let dead = dials(&mut dialer).pop().unwrap();
    dialer.handle_input(Input::DialFailed(dead), now);
    dialer.handle_input(listed(), now);
    assert_eq!(dialer.addresses(&late), [address(4002)]);
    assert_eq!(dialer.candidates.len(), MAX_CANDIDATES / 2);
}

#[test]
fn the_more_reliable_are_dialled_more_often() {
    let now = Instant::now();
    let (good, bad) = (PeerId::random(), PeerId::random());
    let mut times = [0, 0];
    for rng_seed in 0..200 {
        let mut dialer = Dialer::new(0, 1, Vec::new(), rng_seed, now);
        for (peer, value) in [(good, 0.9), (bad, 0.1)] {
            dialer.handle_input(named(peer, Source::Seed), now);
            dialer.handle_input(Input::Reliability { peer, value }, now);
        }
        dialer.handle_input(Input::Fanout(1), now);
        let picked = dials(&mut dialer);
        times[usize::from(picked == [Target::Peer(bad)])] += 1;
    }
    assert!(times[0] > 2 * times[1] && times[1] > 10, "{times:?}");
}

#[test]
fn a_try_is_one_dial_whatever_the_fanout_and_the_backoff_say() {
    let now = Instant::now();
    let peer = PeerId::random();
    let mut dialer = Dialer::new(0, 1, Vec::new(), 1, now);
    dialer.handle_input(named(peer, Source::Seed), now);
    dialer.handle_input(Input::Down { peer, how: Down::Lost }, now);
    dialer.handle_input(Input::Try(peer), now);
    dialer.handle_input(Input::Try(peer), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(peer)]);
    dialer.handle_input(Input::DialFailed(Target::Peer(peer)), now);
    dialer.handle_timeout(now + Duration::from_secs(600));
    assert_eq!(dials(&mut dialer), []);
}

#[test]
fn a_seed_is_no_candidate_for_the_fanout() {
    let now = Instant::now();
    let seed = PeerId::random();
    let mut dialer = Dialer::new(0, 1, Vec::new(), 1, now);
    dialer.handle_input(named(seed, Source::Gossip), now);
    dialer.handle_input(Input::Seed(seed), now);
    dialer.handle_input(Input::Fanout(4), now);
    assert_eq!(dials(&mut dialer), []);
    dialer.handle_input(Input::Wanted(seed), now);
    assert_eq!(dials(&mut dialer), [Target::Peer(seed)]);
}
