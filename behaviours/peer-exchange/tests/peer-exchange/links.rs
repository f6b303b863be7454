use std::time::{Duration, Instant};

use libp2p::PeerId;
use peer_exchange::links::{Input, LinkId, Links, MAX_LINKS_PER_PEER, Output, UPDATE_BURST};
use peer_exchange::{Config, Event, FaultKind, SignedCard};

use crate::cast::{card, named, peer};

/// A core that belongs to the smaller (`decider`) or the larger of two PeerIds, its peer being the other.
struct Bench {
    links: Links,
    now: Instant,
    number: u8,
    peer: PeerId,
}

impl Bench {
    fn new(decider: bool) -> Self {
        let (small, large) = if peer(1) < peer(2) { (1, 2) } else { (2, 1) };
        let (me, number) = if decider { (small, large) } else { (large, small) };
        let links = Links::new(peer(me), Config::default());
        Self { links, now: Instant::now(), number, peer: peer(number) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.links.handle_input(input, self.now);
        self.outputs()
    }

    fn open(&mut self, link: u64) -> Vec<Output> {
        let address = "/memory/1".parse().unwrap();
        self.input(Input::Opened { peer: self.peer, link: LinkId(link), dialled: link % 2 == 1, address })
    }

    fn hello(&mut self, link: u64, boot: u64) -> Vec<Output> {
        self.hello_with(link, card(self.number, boot, 0))
    }

    fn hello_with(&mut self, link: u64, card: SignedCard) -> Vec<Output> {
        self.input(Input::Hello { peer: self.peer, link: LinkId(link), card })
    }

    fn goodbye(&mut self, link: u64, boot: u64) -> Vec<Output> {
        self.input(Input::Goodbye { peer: self.peer, link: LinkId(link), boot })
    }

    fn closed(&mut self, link: u64) -> Vec<Output> {
        self.input(Input::Closed { peer: self.peer, link: LinkId(link), cause: "broken pipe".into() })
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.links.handle_timeout(self.now);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.links.poll_output()).collect()
    }

    /// A peer that is up with boot 5 on link 1.
    fn up(decider: bool) -> Self {
        let mut bench = Self::new(decider);
        assert_eq!(bench.open(1), []);
        let address = "/memory/1".parse().unwrap();
        let up = Event::Up { peer: bench.peer, card: card(bench.number, 5, 0), dialled: true, address };
        assert_eq!(bench.hello(1, 5), [Output::Event(up)]);
        bench
    }

    fn close(&self, link: u64) -> Output {
        Output::Close { peer: self.peer, link: LinkId(link) }
    }

    fn say_goodbye(&self, link: u64) -> Output {
        Output::SayGoodbye { peer: self.peer, link: LinkId(link) }
    }

    fn refuse(&self, link: u64, boot: u64) -> Output {
        Output::Refuse { peer: self.peer, link: LinkId(link), boot }
    }

    fn refused(&mut self, link: u64, boot: u64) -> Vec<Output> {
        self.input(Input::Refused { peer: self.peer, link: LinkId(link), boot })
    }

    fn fault(&self, kind: FaultKind) -> Output {
        Output::Fault { peer: self.peer, kind }
    }

    fn left(&self) -> Output {
        Output::Event(Event::Left { peer: self.peer })
    }

    fn lost(&self, reason: &str, reset: bool) -> Output {
        Output::Event(Event::Lost { peer: self.peer, reason: reason.into(), reset })
    }
}

fn is_up(output: &Output, boot: u64) -> bool {
    matches!(output, Output::Event(Event::Up { card, .. }) if card.card().boot == boot)
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_peer_is_up_once_and_lost_with_its_last_link() {
    let mut bench = Bench::up(true);
    bench.open(2);
    assert_eq!(bench.hello(2, 5), [], "up comes once");
    assert_eq!(bench.closed(1), [], "one link is left");
    assert_eq!(bench.links.best(&bench.peer), Some(LinkId(2)));
    assert_eq!(bench.closed(2), [bench.lost("broken pipe", false)]);
    assert!(!bench.links.is_up(&bench.peer));
    assert!(bench.links.is_empty());
    assert_eq!(bench.links.poll_timeout(), None);
}

#[test]
fn a_link_that_waits_for_its_hello_does_not_hold_back_the_loss() {
    let mut bench = Bench::up(true);
    bench.open(2);
    assert_eq!(bench.closed(1), [bench.lost("broken pipe", false)]);
    assert!(is_up(&bench.hello(2, 5)[0], 5));
}

#[test]
fn without_a_hello_a_link_is_closed_at_the_timeout() {
    let mut bench = Bench::new(true);
    bench.open(1);
    assert_eq!(bench.after(Config::default().hello_timeout - MS), []);
    assert_eq!(bench.after(MS), [bench.fault(FaultKind::NoHello), bench.close(1)]);
    assert_eq!(bench.closed(1), []);
    assert!(bench.links.is_empty());
}

#[test]
fn a_restart_closes_every_link_and_asks_for_a_fresh_one() {
    let mut bench = Bench::up(true);
    bench.open(2);
    let outputs = bench.hello(2, 6);
    let updated = Event::Updated { peer: bench.peer, card: card(bench.number, 6, 0) };
    assert_eq!(outputs, [Output::Event(updated), bench.close(1), bench.close(2)]);
    assert_eq!(bench.open(3), [bench.close(3)], "no link may bridge the reset");
    assert_eq!(bench.closed(1), []);
    assert_eq!(bench.closed(2), []);
    assert_eq!(bench.closed(3), [bench.lost("it has restarted", true)]);
    bench.open(4);
    let outputs = bench.hello(4, 6);
    assert!(outputs.len() == 1 && is_up(&outputs[0], 6));
}

#[test]
fn a_restart_is_a_restart_too_when_the_old_link_closes_before_the_new_hello() {
    let mut bench = Bench::up(true);
    bench.open(2);
    assert_eq!(bench.closed(1), [bench.lost("broken pipe", false)]);
    let outputs = bench.hello(2, 6);
    assert!(is_up(&outputs[0], 6));
    assert_eq!(outputs[1..], [bench.close(2)]);
    assert_eq!(bench.closed(2), [bench.lost("it has restarted", true)]);
}

#[test]
fn a_session_whose_first_link_never_said_hello_is_begun_anew() {
    let mut bench = Bench::new(true);
    bench.open(1);
    bench.open(2);
    assert!(is_up(&bench.hello(2, 6)[0], 6));
    assert_eq!(bench.closed(1), [bench.close(2)]);
    assert_eq!(bench.closed(2), [bench.lost("it has restarted", true)]);
}

#[test]
fn a_restart_without_an_old_link_is_nothing_special() {
    let mut bench = Bench::up(true);
    bench.closed(1);
    bench.open(2);
    let outputs = bench.hello(2, 6);
    assert!(outputs.len() == 1 && is_up(&outputs[0], 6));
}

#[test]
fn a_dead_link_that_does_not_close_holds_a_reset_back_for_a_while_only() {
    let mut bench = Bench::up(true);
    bench.open(2);
    bench.hello(2, 6);
    assert_eq!(bench.closed(2), []);
    assert_eq!(bench.after(Config::default().close_timeout), [bench.lost("it has restarted", true)]);
    bench.open(3);
    let outputs = bench.hello(3, 6);
    assert!(outputs.len() == 1 && is_up(&outputs[0], 6), "no reset could end the session now");
    assert_eq!(bench.closed(1), [bench.close(3)], "but now it can");
    assert_eq!(bench.closed(3), [bench.lost("it has restarted", true)]);
}

#[test]
fn a_stale_node_loses_only_its_own_link() {
    let mut bench = Bench::up(true);
    bench.open(2);
    assert_eq!(bench.hello(2, 4), [bench.fault(FaultKind::StaleBoot), bench.refuse(2, 5)]);
    assert_eq!(bench.hello(2, 4), [], "told once a link");
    bench.closed(2);
    assert!(bench.links.is_up(&bench.peer));
    bench.closed(1);
    bench.open(3);
    let refused = [bench.fault(FaultKind::StaleBoot), bench.refuse(3, 5)];
    assert_eq!(bench.hello(3, 4), refused, "remembered without a link");
    assert_eq!(bench.after(Config::default().goodbye_timeout - MS), [], "it is left to the remote");
    assert_eq!(bench.after(MS), [bench.close(3)]);
}

#[test]
fn a_refusal_is_told_once_a_link_and_ends_it() {
    let mut bench = Bench::up(true);
    let told = Output::Event(Event::Refused { peer: bench.peer, boot: 9 });
    bench.open(2);
    assert_eq!(bench.refused(2, 9), [], "it has not said hello");
    assert_eq!(bench.refused(1, 9), [told, bench.close(1)]);
    assert_eq!(bench.refused(1, 9), [], "once a link");
    assert_eq!(bench.closed(1), [bench.lost("it remembers a later start of this node", false)]);
}

#[test]
fn two_nodes_with_one_key_and_one_boot_count_are_told_apart_by_their_cards() {
    let mut bench = Bench::up(true);
    bench.open(2);
    let copy = named(bench.number, "copy", 5, 0);
    assert_eq!(bench.hello_with(2, copy), [bench.fault(FaultKind::ConflictingCard), bench.close(2)]);
    assert_eq!(bench.links.best(&bench.peer), Some(LinkId(1)));
}

#[test]
fn a_newer_card_is_an_update_and_an_older_one_is_not() {
    let mut bench = Bench::up(true);
    let newer = card(bench.number, 5, 2);
    let updated = Event::Updated { peer: bench.peer, card: newer.clone() };
    assert_eq!(bench.hello_with(1, newer.clone()), [Output::Event(updated)]);
    assert_eq!(bench.hello_with(1, card(bench.number, 5, 1)), []);
    assert_eq!(bench.links.card(&bench.peer), Some(&newer));
    let outputs = bench.hello(1, 6);
    assert_eq!(outputs, [bench.fault(FaultKind::ConflictingCard), bench.close(1)], "no restart within a connection");
}

#[test]
fn a_card_that_changes_all_the_time_is_a_flood() {
    let mut bench = Bench::up(true);
    for revision in 1..=UPDATE_BURST as u64 {
        assert_eq!(bench.hello_with(1, card(bench.number, 5, revision)).len(), 1);
    }
    assert_eq!(bench.hello_with(1, card(bench.number, 5, 100)), [bench.fault(FaultKind::Flood)]);
    bench.now += Duration::from_secs(1);
    let newest = card(bench.number, 5, 101);
    let updated = Event::Updated { peer: bench.peer, card: newest.clone() };
    assert_eq!(bench.hello_with(1, newest), [Output::Event(updated)]);
}

#[test]
fn the_smaller_peer_closes_the_older_link_after_a_while() {
    let mut bench = Bench::up(true);
    bench.open(2);
    bench.hello(2, 5);
    assert_eq!(bench.after(Config::default().prune_after - MS), []);
    assert_eq!(bench.after(MS), [bench.close(1)]);
    assert_eq!(bench.closed(1), []);
    assert_eq!(bench.links.poll_timeout(), None);
}

#[test]
fn the_larger_peer_leaves_the_decision_to_the_other_for_a_long_while() {
    let mut bench = Bench::up(false);
    bench.open(2);
    bench.hello(2, 5);
    assert_eq!(bench.after(3 * Config::default().prune_after - MS), []);
    assert_eq!(bench.after(MS), [bench.close(1)]);
}

#[test]
fn a_second_link_that_is_wanted_stays_until_it_is_not() {
    for smaller in [true, false] {
        let mut bench = Bench::up(smaller);
        let wanted = Duration::from_secs(20);
        bench.links.handle_input(Input::KeepSecond { peer: bench.peer, until: bench.now + wanted }, bench.now);
        bench.open(2);
        bench.hello(2, 5);
        assert_eq!(bench.after(wanted - MS), []);
        assert_eq!(bench.after(MS), [bench.close(1)]);
    }
}

#[test]
fn pruning_never_takes_the_last_link() {
    let mut bench = Bench::up(true);
    bench.open(2);
    bench.hello(2, 5);
    bench.closed(2);
    assert_eq!(bench.after(10 * Config::default().prune_after), []);
    assert_eq!(bench.links.best(&bench.peer), Some(LinkId(1)));
}

#[test]
fn a_goodbye_ends_every_link_and_the_peer_has_left() {
    let mut bench = Bench::up(true);
    bench.open(2);
    bench.hello(2, 5);
    bench.open(3);
    assert_eq!(bench.goodbye(2, 5), [bench.close(1), bench.close(2)]);
    assert_eq!(bench.hello(3, 5), [bench.close(3)], "opened before the goodbye");
    bench.closed(1);
    bench.closed(2);
    assert_eq!(bench.closed(3), [bench.left()]);
    bench.open(4);
    assert!(is_up(&bench.hello(4, 5)[0], 5), "the return clears the goodbye");
}

#[test]
fn a_goodbye_whose_links_do_not_close_still_counts() {
    let mut bench = Bench::up(true);
    bench.goodbye(1, 5);
    assert_eq!(bench.after(Config::default().close_timeout), [bench.left()]);
}

#[test]
fn a_return_before_the_old_link_is_gone_is_left_and_up() {
    let mut bench = Bench::up(true);
    bench.goodbye(1, 5);
    bench.open(2);
    let outputs = bench.hello(2, 5);
    assert_eq!(outputs[0], bench.left());
    assert!(is_up(&outputs[1], 5));
    assert_eq!(outputs.len(), 2);
    assert_eq!(bench.closed(1), []);
}

#[test]
fn a_restart_right_after_a_goodbye_is_left_up_and_reset() {
    let mut bench = Bench::up(true);
    bench.goodbye(1, 5);
    bench.open(2);
    let outputs = bench.hello(2, 6);
    assert_eq!(outputs[0], bench.left());
    assert!(is_up(&outputs[1], 6));
    assert_eq!(outputs[2..], [bench.close(2)]);
    bench.closed(1);
    assert_eq!(bench.closed(2), [bench.lost("it has restarted", true)]);
}

#[test]
fn a_goodbye_of_another_boot_changes_nothing() {
    let mut bench = Bench::up(true);
    assert_eq!(bench.goodbye(1, 4), []);
    assert_eq!(bench.goodbye(1, 6), [bench.fault(FaultKind::InvalidGoodbye)]);
    assert_eq!(bench.closed(1), [bench.lost("broken pipe", false)]);
}

#[test]
fn disconnecting_says_goodbye_and_closes_when_the_remote_does_not() {
    let mut bench = Bench::up(true);
    bench.open(2);
    let outputs = bench.input(Input::Disconnect { peer: bench.peer });
    assert_eq!(outputs, [bench.say_goodbye(1), bench.say_goodbye(2)]);
    assert_eq!(bench.closed(1), [], "link 2 may be closing still");
    assert_eq!(bench.after(Config::default().goodbye_timeout), [bench.close(2)]);
    assert_eq!(bench.closed(2), [bench.lost("disconnected here", false)]);
}

#[test]
fn stopping_is_quiet_when_the_links_are_closed_or_the_time_is_over() {
    let mut bench = Bench::up(true);
    assert_eq!(bench.input(Input::DisconnectAll), [bench.say_goodbye(1)]);
    assert_eq!(bench.open(2), [bench.close(2)]);
    bench.closed(2);
    assert_eq!(bench.closed(1), [bench.lost("disconnected here", false), Output::Event(Event::Quiet)]);

    let mut bench = Bench::up(true);
    bench.input(Input::DisconnectAll);
    let outputs = bench.after(Config::default().goodbye_timeout);
    assert_eq!(outputs, [bench.close(1), Output::Event(Event::Quiet)]);
    assert_eq!(bench.closed(1), [bench.lost("disconnected here", false)], "quiet comes once");

    let mut bench = Bench::new(true);
    assert_eq!(bench.input(Input::DisconnectAll), [Output::Event(Event::Quiet)]);
}

#[test]
fn a_foreign_node_is_reported_once_and_is_no_peer() {
    let mut bench = Bench::new(true);
    bench.open(1);
    bench.open(2);
    let outputs = bench.input(Input::Foreign { peer: bench.peer, link: LinkId(1) });
    assert_eq!(outputs, [Output::Event(Event::Foreign { peer: bench.peer })]);
    assert_eq!(bench.input(Input::Foreign { peer: bench.peer, link: LinkId(2) }), []);
    assert_eq!(bench.links.poll_timeout(), None, "no hello is waited for");
    assert!(!bench.links.is_up(&bench.peer));
    bench.closed(1);
    assert_eq!(bench.closed(2), []);
}

#[test]
fn a_failed_link_is_closed_and_its_reason_told() {
    let mut bench = Bench::up(true);
    let failed = Input::Failed { peer: bench.peer, link: LinkId(1), reason: "malformed-frame".into() };
    assert_eq!(bench.input(failed), [bench.close(1)]);
    assert_eq!(bench.closed(1), [bench.lost("malformed-frame", false)]);
}

#[test]
fn links_of_one_peer_are_bounded() {
    let mut bench = Bench::new(true);
    for link in 1..=MAX_LINKS_PER_PEER as u64 {
        assert_eq!(bench.open(link), []);
    }
    assert_eq!(bench.open(99), [bench.fault(FaultKind::TooManyLinks), bench.close(99)]);
}
