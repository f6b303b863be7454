use std::time::Duration;

use file_transfer::{Config, FaultKind, Reason, Record, State};
use rand::Rng as _;
use simulator::Link;

use crate::world::{ID, RECEIVER, SENDER, World, config, manifest};

fn bad() -> Link {
    Link { loss: 0.15, duplicate: 0.15, delay: Duration::from_millis(1)..Duration::from_millis(400) }
}

fn world(seed: u64, link: Link) -> World {
    let mut world = World::new(seed, link, config());
    world.offer();
    world.connect();
    world
}

#[test]
fn a_transfer_completes_and_asks_for_nothing_twice() {
    let mut world = world(1, Link::perfect());
    world.run_until(World::is_completed);
    assert_eq!(world.served, manifest().chunks());
    assert!(world.faults.is_empty() && world.disks[RECEIVER].finished && !world.disks[RECEIVER].discarded);
    assert!(world.disks[SENDER].discarded, "the sources can be closed");
    let snapshot = world.receiver.transfers(world.now()).remove(0);
    assert_eq!((snapshot.bytes, snapshot.chunks), (manifest().bytes(), manifest().chunks()));
    assert_eq!(snapshot.root, world.sender.transfers(world.now())[0].root);
    assert_eq!(snapshot.path.as_deref(), Some("downloads/folder"));
    // Nothing is left to do.
    while world.step() {}
}

#[test]
fn loss_doubling_delay_and_disorder_do_no_harm() {
    for seed in 0..40 {
        let mut world = world(seed, bad());
        world.corrupt = 0.1;
        world.stall = 0.1;
        world.full = 0.05;
        world.run_until(World::is_completed);
        assert!(world.faults.iter().all(|fault| *fault == (RECEIVER, FaultKind::CorruptChunk)), "{:?}", world.faults);
    }
}

#[test]
fn a_crash_of_either_end_at_any_step_costs_at_most_what_was_in_flight() {
    let mut whole = world(3, Link::perfect());
    whole.run_until(World::is_completed);
    let steps = whole.steps;
    assert!(steps > 30, "{steps}");
    for node in [SENDER, RECEIVER] {
        for at in 0..steps {
            let mut world = world(3, Link::perfect());
            for _ in 0..at {
                world.step();
            }
            let asked = world.served;
            world.crash(node);
            world.reconnect_later();
            world.run_until(World::is_completed);
            let window = world.config.in_flight as u64 * 4 + 1 + 5;
            assert!(world.served <= manifest().chunks() + window, "{} after {asked} at step {at}", world.served);
        }
    }
}

#[test]
fn crashes_and_lost_links_again_and_again_on_a_bad_network() {
    for seed in 0..40 {
        let mut world = world(seed, bad());
        world.corrupt = 0.05;
        for _ in 0..12 {
            for _ in 0..world.network.rng().random_range(1..40) {
                world.step();
            }
            match world.network.rng().random_range(0..3) {
                0 => world.crash(SENDER),
                1 => world.crash(RECEIVER),
                _ => world.disconnect(),
            }
            world.reconnect_later();
        }
        world.run_until(World::is_completed);
    }
}

#[test]
fn either_end_pauses_over_a_restart_and_resumes() {
    for node in [SENDER, RECEIVER] {
        let mut world = world(5, Link::perfect());
        world.run_until(|world| world.disks[RECEIVER].verified.len() > 3);
        let now = world.now();
        match node {
            SENDER => world.sender.pause(ID, None, now).unwrap(),
            _ => world.receiver.pause(ID, now).unwrap(),
        }
        world.run_until(|world| world.state(1 - node) == (State::Paused, Some(Reason::Peer)));
        assert_eq!(world.state(node), (State::Paused, Some(Reason::Here)));
        world.crash(node);
        world.reconnect_later();
        let before = world.disks[RECEIVER].verified.len();
        let later = world.now() + Duration::from_secs(30);
        world.run_until(|world| world.now() > later);
        assert_eq!(world.disks[RECEIVER].verified.len(), before, "nothing moves while paused");
        assert_eq!(world.state(1 - node), (State::Paused, Some(Reason::Peer)));
        let now = world.now();
        match node {
            SENDER => world.sender.resume(ID, None, now).unwrap(),
            _ => world.receiver.resume(ID, now).unwrap(),
        }
        world.run_until(World::is_completed);
    }
}

#[test]
fn cancel_and_reject_reach_the_other_end_even_when_it_was_away() {
    for (node, away, end) in [
        (SENDER, false, State::Cancelled),
        (RECEIVER, false, State::Cancelled),
        (SENDER, true, State::Cancelled),
        (RECEIVER, true, State::Cancelled),
        (RECEIVER, false, State::Rejected),
        (RECEIVER, true, State::Rejected),
    ] {
        let mut world = World::new(6, Link::perfect(), config());
        world.auto_accept = end == State::Cancelled;
        world.offer();
        world.connect();
        for _ in 0..12 {
            world.step();
        }
        if away {
            world.disconnect();
        }
        let now = world.now();
        match (node, end) {
            (SENDER, _) => world.sender.cancel(ID, None, now).unwrap(),
            (_, State::Rejected) => world.receiver.reject(ID, now).unwrap(),
            _ => world.receiver.cancel(ID, now).unwrap(),
        }
        world.drain();
        assert!(world.disks[node].discarded);
        if away {
            world.crash(node);
            world.reconnect_later();
        }
        world.run_until(|world| world.state(1 - node).0 == end);
        assert_eq!(world.state(1 - node), (end, Some(Reason::Peer)));
        assert!(world.receiver.accept(ID, now).is_err() && world.sender.pause(ID, None, now).is_err());
        assert!(world.faults.is_empty(), "{:?}", world.faults);
    }
}

#[test]
fn a_source_that_changed_unseen_is_noticed_when_a_chunk_is_read_again() {
    for seed in 0..10 {
        let mut world = world(seed, bad());
        world.change_after = Some(10);
        world.run_until(|world| world.served > 12 || world.state(RECEIVER).0.is_final());
        // The receiver loses what it had.
        world.crash(RECEIVER);
        world.disks[RECEIVER].verified.clear();
        world.crash(RECEIVER);
        world.reconnect_later();
        world.run_until(|world| [SENDER, RECEIVER].into_iter().all(|node| world.state(node).0.is_final()));
        assert_eq!(world.state(SENDER), (State::Failed, Some(Reason::Changed)));
        assert_eq!(world.state(RECEIVER), (State::Failed, Some(Reason::Changed)));
        assert!(world.disks[RECEIVER].discarded && !world.disks[RECEIVER].finished);
    }
}

#[test]
fn a_chunk_that_is_always_bad_fails_the_transfer() {
    let mut world = World::new(8, Link::perfect(), Config::default());
    world.corrupt = 1.0;
    world.offer();
    world.connect();
    world.run_until(|world| [SENDER, RECEIVER].into_iter().all(|node| world.state(node).0.is_final()));
    assert_eq!(world.state(RECEIVER), (State::Failed, Some(Reason::Corrupt)));
    assert_eq!(world.state(SENDER), (State::Failed, Some(Reason::Corrupt)));
    assert!(world.faults.len() >= 3 && world.faults.iter().all(|(_, kind)| *kind == FaultKind::CorruptChunk));
}

#[test]
fn a_sender_that_goes_silent_is_a_stall_and_not_an_end() {
    let mut world = world(9, Link::perfect());
    world.run_until(|world| world.disks[RECEIVER].verified.len() > 3);
    world.network.cut(SENDER, RECEIVER);
    world.run_until(|world| world.state(RECEIVER) == (State::Paused, Some(Reason::Stalled)));
    world.network.heal(SENDER, RECEIVER);
    world.run_until(World::is_completed);
    assert!(world.faults.is_empty());
}

#[test]
fn a_full_disk_pauses_until_there_is_room() {
    let mut world = world(10, Link::perfect());
    world.full = 1.0;
    world.run_until(|world| world.state(SENDER) == (State::Paused, Some(Reason::DiskFull)));
    assert_eq!(world.state(RECEIVER), (State::Paused, Some(Reason::DiskFull)));
    world.full = 0.0;
    world.run_until(World::is_completed);
}

#[test]
fn a_finished_transfer_says_so_to_a_late_asker() {
    let mut world = world(11, Link::perfect());
    world.run_until(|world| world.state(RECEIVER).0 == State::Completed);
    // The sender dies before it hears of it, and its record does not know.
    world.crash(SENDER);
    assert_ne!(world.state(SENDER).0, State::Completed);
    world.reconnect_later();
    world.run_until(World::is_completed);
    assert_eq!(world.served, manifest().chunks());
}

#[test]
fn a_receiver_that_lost_its_last_record_finishes_again() {
    for sender_restarts in [false, true] {
        let mut world = world(12, Link::perfect());
        world.run_until(|world| world.state(RECEIVER).0 == State::Active);
        let old = world.disks[RECEIVER].record.clone();
        world.run_until(World::is_completed);
        world.disks[RECEIVER].record = old;
        if sender_restarts {
            world.crash(SENDER);
        }
        world.crash(RECEIVER);
        assert_eq!(world.state(RECEIVER).0, State::Paused);
        world.reconnect_later();
        world.run_until(World::is_completed);
        assert_eq!(world.served, manifest().chunks());
        assert!(!world.disks[RECEIVER].discarded);
        // With its chunks lost too nobody has them for it any more.
        let record = world.disks[RECEIVER].record.take().map(|record| Record { state: State::Active, ..record });
        world.disks[RECEIVER].record = record;
        world.disks[RECEIVER].verified.clear();
        world.crash(RECEIVER);
        world.reconnect_later();
        world.run_until(|world| world.state(RECEIVER) == (State::Failed, Some(Reason::Unknown)));
    }
}
