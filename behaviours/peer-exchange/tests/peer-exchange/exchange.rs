use std::time::{Duration, Instant};

use peer_exchange::exchange::{Exchange, Input, Output};
use peer_exchange::protocol::Frame;
use peer_exchange::{AskToken, Config, Event, FaultKind, MAX_CARDS, SignedCard, Subject};

use crate::cast::{card, named, peer};

struct Bench {
    exchange: Exchange,
    now: Instant,
}

impl Bench {
    /// A node whose neighbours are these.
    fn new(neighbours: &[u8]) -> Self {
        let mut bench = Self { exchange: Exchange::new(Config::default(), 7), now: Instant::now() };
        for &number in neighbours {
            assert_eq!(bench.input(Input::Joined { peer: peer(number) }), []);
        }
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.exchange.handle_input(input, self.now);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.exchange.poll_output()).collect()
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.exchange.handle_timeout(self.now);
        self.outputs()
    }

    fn asked(&mut self, from: u8, id: u64, query: u8, hops: u8) -> Vec<Output> {
        let subject = Subject::Name("node9".into());
        self.input(Input::Asked { from: peer(from), id, query: [query; 16], subject, hops })
    }

    fn answered(&mut self, from: u8, id: u64, cards: &[SignedCard]) -> Vec<Output> {
        let cards = cards.iter().map(|card| card.bytes().to_vec()).collect();
        self.input(Input::Answered { from: peer(from), id, cards })
    }

    fn known(&mut self, token: AskToken, cards: &[SignedCard]) -> Vec<Output> {
        self.input(Input::Known { token, cards: cards.to_vec() })
    }
}

fn token(outputs: &[Output]) -> AskToken {
    let [Output::Event(Event::Asked { token, .. })] = outputs else { panic!("{outputs:?}") };
    *token
}

/// To whom questions go, with their ids and hops.
fn asks(outputs: &[Output]) -> Vec<(libp2p::PeerId, u64, u8)> {
    let ask = |output: &Output| match output {
        Output::Send { to, frame: Frame::Ask { id, hops, .. } } => Some((*to, *id, *hops)),
        _ => None,
    };
    outputs.iter().filter_map(ask).collect()
}

fn found(outputs: &[Output]) -> Vec<SignedCard> {
    let [Output::Event(Event::Found { cards, .. })] = outputs else { panic!("{outputs:?}") };
    cards.clone()
}

fn answer(to: u8, id: u64, cards: &[SignedCard]) -> Output {
    let cards = cards.iter().map(|card| card.bytes().to_vec()).collect();
    Output::Send { to: peer(to), frame: Frame::Answer { id, cards } }
}

fn fault(from: u8, kind: FaultKind) -> Output {
    Output::Fault { peer: peer(from), kind }
}

/// Numbers of the neighbours in the order of their PeerIds.
fn sorted(numbers: &[u8]) -> Vec<u8> {
    let mut numbers = numbers.to_vec();
    numbers.sort_by_key(|number| peer(*number));
    numbers
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_lookup_asks_everybody_and_ends_when_all_have_answered() {
    let mut bench = Bench::new(&[1, 2]);
    bench.exchange.lookup(Subject::Name("node9".into()), bench.now);
    let outputs = bench.outputs();
    let asks = asks(&outputs);
    let [first, second] = sorted(&[1, 2])[..] else { unreachable!() };
    assert_eq!(asks.iter().map(|ask| (ask.0, ask.2)).collect::<Vec<_>>(), [(peer(first), 3), (peer(second), 3)]);
    assert_eq!(bench.answered(first, asks[0].1, &[card(9, 1, 0), named(8, "node9", 1, 0)]), []);
    let cards = found(&bench.answered(second, asks[1].1, &[card(9, 1, 1)]));
    assert_eq!(cards.len(), 2, "two who go by that name");
    assert!(cards.contains(&card(9, 1, 1)) && !cards.contains(&card(9, 1, 0)), "of each the newest card");
    assert_eq!(bench.exchange.poll_timeout(), None);
}

#[test]
fn a_peer_id_is_found_with_the_first_card() {
    let mut bench = Bench::new(&[1, 2]);
    bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
    let outputs = bench.outputs();
    let asks = asks(&outputs);
    let [first, second] = sorted(&[1, 2])[..] else { unreachable!() };
    assert_eq!(found(&bench.answered(first, asks[0].1, &[card(9, 1, 0)])), [card(9, 1, 0)]);
    assert_eq!(bench.answered(second, asks[1].1, &[card(9, 1, 0)]), [], "late, but asked for");
    assert_eq!(bench.answered(second, asks[1].1, &[]), [fault(second, FaultKind::UnaskedAnswer)]);
}

#[test]
fn a_lookup_without_neighbours_finds_nothing_at_once() {
    let mut bench = Bench::new(&[]);
    bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
    assert_eq!(found(&bench.outputs()), []);
}

#[test]
fn a_lookup_ends_with_its_time_or_with_its_neighbours() {
    let mut bench = Bench::new(&[1, 2]);
    bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
    bench.outputs();
    assert_eq!(bench.after(Config::default().lookup_timeout - MS), []);
    assert_eq!(found(&bench.after(MS)), []);

    bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
    bench.outputs();
    assert_eq!(bench.input(Input::Gone { peer: peer(1) }), []);
    assert_eq!(found(&bench.input(Input::Gone { peer: peer(2) })), []);
}

#[test]
fn bad_cards_are_faults_and_do_not_count() {
    let mut bench = Bench::new(&[1]);
    let lookup = |bench: &mut Bench| {
        bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
        let outputs = bench.outputs();
        asks(&outputs)[0].1
    };
    let id = lookup(&mut bench);
    let outputs = bench.answered(1, id, &[card(8, 1, 0)]);
    assert_eq!(outputs[0], fault(1, FaultKind::UnmatchedCard));
    assert_eq!(found(&outputs[1..]), []);

    let id = lookup(&mut bench);
    let mut forged = card(9, 1, 0).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let outputs =
        bench.input(Input::Answered { from: peer(1), id, cards: vec![forged, card(9, 1, 0).bytes().to_vec()] });
    assert_eq!(outputs[0], fault(1, FaultKind::InvalidCard));
    assert_eq!(found(&outputs[1..]), [card(9, 1, 0)]);

    let id = lookup(&mut bench);
    let outputs = bench.answered(1, id, &vec![card(9, 1, 0); MAX_CARDS + 1]);
    assert_eq!(outputs[0], fault(1, FaultKind::SurplusCards));
    assert_eq!(found(&outputs[1..]), []);
}

#[test]
fn only_the_one_who_was_asked_may_answer() {
    let mut bench = Bench::new(&[1, 2]);
    bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
    let outputs = bench.outputs();
    let id = asks(&outputs)[0].1;
    let other = sorted(&[1, 2])[1];
    assert_eq!(bench.answered(other, id, &[card(9, 1, 0)]), [fault(other, FaultKind::UnaskedAnswer)]);
    assert_eq!(bench.answered(3, id, &[]), [], "not a neighbour");
}

#[test]
fn what_is_known_is_answered_and_not_handed_on() {
    let mut bench = Bench::new(&[1, 2]);
    let outputs = bench.asked(1, 5, 1, 3);
    let cards = [card(9, 1, 0), card(8, 1, 0)];
    assert_eq!(bench.known(token(&outputs), &cards), [answer(1, 5, &cards[..1])], "what does not fit is left out");
    assert_eq!(bench.known(token(&outputs), &cards), [], "once");
}

#[test]
fn what_is_not_known_is_handed_on_to_the_others() {
    let mut bench = Bench::new(&[1, 2]);
    let outputs = bench.asked(1, 5, 1, 3);
    let outputs = bench.known(token(&outputs), &[]);
    let asks = asks(&outputs);
    assert!(outputs.len() == 1 && asks[0].0 == peer(2) && asks[0].2 == 2, "{outputs:?}");
    assert_eq!(bench.answered(2, asks[0].1, &[card(9, 1, 0)]), [answer(1, 5, &[card(9, 1, 0)])]);

    let outputs = bench.asked(1, 6, 2, 0);
    assert_eq!(bench.known(token(&outputs), &[]), [answer(1, 6, &[])], "no hops are left");
    let outputs = bench.asked(1, 7, 3, 255);
    let outputs = bench.known(token(&outputs), &[]);
    assert_eq!(self::asks(&outputs)[0].2, 2, "nobody can make us hand it on more often than we would");
}

#[test]
fn a_question_is_handled_once() {
    let mut bench = Bench::new(&[1, 2]);
    token(&bench.asked(1, 5, 1, 3));
    assert_eq!(bench.asked(2, 6, 1, 3), [answer(2, 6, &[])]);
    bench.after(peer_exchange::exchange::SEEN_FOR);
    token(&bench.asked(2, 7, 1, 3));
}

#[test]
fn who_hands_on_gives_up_before_the_asker() {
    let mut bench = Bench::new(&[1, 2]);
    let outputs = bench.asked(1, 5, 1, 2);
    bench.known(token(&outputs), &[]);
    let share = Config::default().lookup_timeout / 2;
    assert_eq!(bench.after(share - MS), []);
    assert_eq!(bench.after(MS), [answer(1, 5, &[])]);
}

#[test]
fn a_directory_that_never_answers_holds_nothing_for_long() {
    let mut bench = Bench::new(&[1]);
    token(&bench.asked(1, 5, 1, 3));
    assert_eq!(bench.after(Config::default().lookup_timeout), [answer(1, 5, &[])]);
    assert_eq!(bench.exchange.pending(), 0);
}

#[test]
fn a_flood_is_dropped_and_told() {
    let mut bench = Bench::new(&[1]);
    let burst = Config::default().ask_burst as u64;
    for id in 0..burst {
        let outputs = bench.asked(1, id, id as u8, 0);
        assert_eq!(bench.known(token(&outputs), &[]), [answer(1, id, &[])]);
    }
    assert_eq!(bench.asked(1, 98, 98, 0), [fault(1, FaultKind::Flood)]);
    assert_eq!(bench.asked(1, 99, 99, 0), [], "told once a second");
    bench.now += Duration::from_millis(200);
    token(&bench.asked(1, 100, 100, 0));
}

#[test]
fn we_never_flood_and_keep_some_questions_for_ourselves() {
    let mut bench = Bench::new(&[1, 2, 3, 4]);
    let mut handed_on = 0;
    for id in 0..40u8 {
        let outputs = bench.asked(1 + id % 3, id.into(), id, 3);
        let Some(Output::Event(Event::Asked { token, .. })) = outputs.first() else { continue };
        let outputs = bench.known(*token, &[]);
        handed_on += asks(&outputs).iter().filter(|ask| ask.0 == peer(4)).count();
    }
    let mut own = 0;
    for _ in 0..40 {
        bench.exchange.lookup(Subject::Peer(peer(9)), bench.now);
        let outputs = bench.outputs();
        own += asks(&outputs).iter().filter(|ask| ask.0 == peer(4)).count();
    }
    assert_eq!((handed_on, own), (8, 8), "together less than the burst of 20 that the neighbour allows");
}

#[test]
fn what_is_at_work_is_bounded() {
    let mut bench = Bench::new(&[1, 2]);
    for id in 0..16 {
        token(&bench.asked(1, id, id as u8, 3));
    }
    assert_eq!(bench.asked(1, 99, 99, 3), [answer(1, 99, &[])], "sixteen of one neighbour");
    assert_eq!(bench.exchange.pending(), 16);
    bench.input(Input::Gone { peer: peer(1) });
    assert_eq!(bench.exchange.pending(), 0);

    let config = Config { max_pending: 0, ..Config::default() };
    let mut exchange = Exchange::new(config, 1);
    exchange.handle_input(Input::Joined { peer: peer(1) }, bench.now);
    exchange.lookup(Subject::Peer(peer(9)), bench.now);
    let outputs: Vec<_> = std::iter::from_fn(|| exchange.poll_output()).collect();
    assert_eq!(found(&outputs), []);
}

#[test]
fn an_answer_never_holds_more_than_a_frame_may() {
    let mut bench = Bench::new(&[1]);
    let outputs = bench.asked(1, 5, 1, 3);
    let cards: Vec<_> = (1..=12).map(|number| named(number, "node9", 1, 0)).collect();
    let outputs = bench.known(token(&outputs), &cards);
    let [Output::Send { frame: Frame::Answer { cards, .. }, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(cards.len(), MAX_CARDS);
}
