use std::time::{Duration, Instant};

use broadcast::log::{self, Verdict};
use broadcast::protocol::{Answer, Question, Range, StreamDigest};
use broadcast::sync::{InboundNumber, Input, Output, QuestionNumber, Sync};
use broadcast::{Config, FaultKind, Kind};
use libp2p::PeerId;
use serde_bytes::ByteBuf;

use crate::common::{WALL_MS, forged, key, peer, signed, start};

/// The node under test; peer 9 is the neighbour through which it hears.
struct Node {
    core: Sync,
    now: Instant,
    wall_ms: u64,
}

/// A question to a neighbour.
type Asked = (PeerId, QuestionNumber, Question);

/// What the user saw, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(u64),
    Backlog(u64),
    Gap(u64, u64),
    Fault(FaultKind),
}

impl Node {
    fn new(config: Config) -> Self {
        Self { core: Sync::new(key(1), 1, config, 7), now: start(), wall_ms: WALL_MS }
    }

    fn hear(&mut self, bytes: &[u8]) -> Verdict {
        self.core.heard(peer(9), bytes, self.wall_ms, self.now)
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(input, self.wall_ms, self.now);
    }

    /// Let time pass, stopping wherever the core wants to be called.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.poll_timeout().filter(|&at| at <= end) {
            let at = at.max(self.now);
            self.wall_ms += (at - self.now).as_millis() as u64;
            self.now = at;
            self.core.handle_timeout(self.wall_ms, self.now);
        }
        self.wall_ms += (end - self.now).as_millis() as u64;
        self.now = end;
    }

    fn outputs(&mut self) -> (Vec<Seen>, Vec<Asked>, Vec<Answer>) {
        let (mut seen, mut questions, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Ask { peer, number, question } => questions.push((peer, number, question)),
                Output::Answer { answer, .. } => answers.push(answer),
                Output::Refuse { .. } => {}
                Output::Log(log::Output::Received { envelope, backlog: false, .. }) => {
                    seen.push(Seen::Text(envelope.sequence));
                }
                Output::Log(log::Output::Received { envelope, .. }) => seen.push(Seen::Backlog(envelope.sequence)),
                Output::Log(log::Output::Gap { from, to, .. }) => seen.push(Seen::Gap(from, to)),
                Output::Log(log::Output::Fault { kind, .. }) => seen.push(Seen::Fault(kind)),
                Output::Log(log::Output::Waiting { .. }) => panic!("the core keeps that to itself"),
            }
        }
        (seen, questions, answers)
    }

    fn seen(&mut self) -> Vec<Seen> {
        self.outputs().0
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        self.input(Input::Asked { peer: peer(9), request: InboundNumber(0), question });
        self.outputs().2.pop()
    }

    fn has(&mut self) -> Vec<(u64, u64)> {
        match self.ask(Question::Digest { after: None }) {
            Some(Answer::Digest { streams, .. }) => streams.into_iter().flat_map(|stream| stream.have).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn broadcasts_are_shown_in_order_and_once() {
    let mut node = Node::new(Config::default());
    for sequence in [1, 3, 2, 2, 1, 3] {
        node.hear(&signed(2, 1, sequence, "hello"));
    }
    assert_eq!(node.seen(), [Seen::Text(1), Seen::Text(2), Seen::Text(3)]);
    let stats = node.core.stats();
    assert_eq!((stats.verified, stats.duplicates, stats.delivered, stats.rejected), (3, 3, 3, 0));
    node.pass(Duration::from_secs(60));
    assert!(node.seen().is_empty());
}

#[test]
fn a_gap_is_shown_once_after_patience_and_what_fills_it_later_is_shown_all_the_same() {
    let mut node = Node::new(Config::default());
    for sequence in [1, 4, 5, 8] {
        assert_eq!(node.hear(&signed(2, 1, sequence, "hello")), Verdict::Accept, "handed on at once");
    }
    assert_eq!(node.seen(), [Seen::Text(1)]);
    node.pass(Duration::from_millis(4_900));
    assert!(node.seen().is_empty());
    node.pass(Duration::from_millis(200));
    let gap = [Seen::Gap(2, 3), Seen::Text(4), Seen::Text(5), Seen::Gap(6, 7), Seen::Text(8)];
    assert_eq!(node.seen(), gap);
    node.pass(Duration::from_secs(60));
    assert!(node.seen().is_empty());
    for sequence in [3, 3, 9, 6] {
        node.hear(&signed(2, 1, sequence, "hello"));
    }
    assert_eq!(node.seen(), [Seen::Text(3), Seen::Text(9), Seen::Text(6)]);
    assert_eq!(node.has(), [(1, 1), (3, 6), (8, 9)]);
}

#[test]
fn what_arrives_extends_the_patience() {
    let mut node = Node::new(Config::default());
    node.hear(&signed(2, 1, 1, "hello"));
    node.hear(&signed(2, 1, 9, "hello"));
    for sequence in 2..=8 {
        node.pass(Duration::from_secs(4));
        node.hear(&signed(2, 1, sequence, "hello"));
    }
    let all: Vec<_> = (1..=9).map(Seen::Text).collect();
    assert_eq!(node.seen(), all);
}

#[test]
fn a_lie_is_rejected_and_does_not_shadow_the_truth() {
    let mut node = Node::new(Config::default());
    assert_eq!(node.hear(&forged(2, 1, 1)), Verdict::Reject);
    assert_eq!(node.hear(b"rubbish"), Verdict::Reject);
    assert_eq!(node.hear(&signed(2, 1, 1, "true words")), Verdict::Accept);
    assert_eq!(node.hear(&forged(2, 1, 1)), Verdict::Reject, "and afterwards it is still a lie");
    assert_eq!(
        node.seen(),
        [
            Seen::Fault(FaultKind::Signature),
            Seen::Fault(FaultKind::Malformed),
            Seen::Text(1),
            Seen::Fault(FaultKind::Signature),
        ]
    );
}

#[test]
fn an_author_who_says_two_things_at_once_is_told_with_evidence_and_nobody_else_is_blamed() {
    let mut node = Node::new(Config::default());
    let (one, other) = (signed(2, 1, 1, "yes"), signed(2, 1, 1, "no"));
    assert_eq!(node.hear(&one), Verdict::Accept);
    assert_eq!(node.hear(&other), Verdict::Ignore);
    assert_eq!(node.hear(&signed(2, 1, 1, "perhaps")), Verdict::Ignore);
    let mut faults = Vec::new();
    while let Some(output) = node.core.poll_output() {
        if let Output::Log(log::Output::Fault { peer, kind, evidence }) = output {
            faults.push((peer, kind, evidence.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()));
        }
    }
    assert_eq!(faults, [(peer(2), FaultKind::Equivocation, vec![one, other])]);
}

#[test]
fn a_jump_is_ignored_in_gossip_and_followed_in_sync() {
    let mut node = Node::new(Config { max_jump: 10, ..Config::default() });
    node.hear(&signed(2, 1, 1, "hello"));
    assert_eq!(node.hear(&signed(2, 1, 12, "far")), Verdict::Ignore);
    assert_eq!(node.core.stats().verified, 1, "no signature is looked at for that");
    assert_eq!(node.hear(&signed(2, 1, 11, "near")), Verdict::Accept);
    node.seen();
    node.input(Input::PeerUp { peer: peer(9) });
    let (_, mut questions, _) = node.outputs();
    let (_, number, _) = questions.pop().unwrap();
    let digest = StreamDigest { author: peer(2), epoch: 1, have: vec![(40, 40)] };
    let answer = Answer::Digest { streams: vec![digest], more: false };
    node.input(Input::Answered { peer: peer(9), number, answer });
    let (_, mut questions, _) = node.outputs();
    let (_, number, question) = questions.pop().unwrap();
    let range = Range { author: peer(2), epoch: 1, from: 40, to: 40 };
    assert_eq!(question, Question::Fetch { ranges: vec![range] });
    let envelopes = vec![ByteBuf::from(signed(2, 1, 40, "hello"))];
    node.input(Input::Answered { peer: peer(9), number, answer: Answer::Fetch { envelopes, more: false } });
    assert_eq!(node.seen(), [Seen::Gap(2, 10), Seen::Text(11), Seen::Gap(12, 29)]);
    node.pass(Duration::from_secs(6));
    assert_eq!(node.seen(), [Seen::Gap(30, 39), Seen::Text(40)]);
}

#[test]
fn what_is_kept_is_bounded_in_number_bytes_and_age_oldest_first_out() {
    let config = Config { retained_messages: 5, ..Config::default() };
    let mut node = Node::new(config);
    for sequence in 1..=8 {
        node.hear(&signed(2, 1, sequence, "hello"));
    }
    assert_eq!(node.has(), [(4, 8)]);
    assert_eq!(node.hear(&signed(2, 1, 1, "hello")), Verdict::Ignore, "passed, and never shown again");
    assert_eq!(node.core.stats().verified, 8);

    let one = signed(2, 1, 1, "hello").len();
    let mut node = Node::new(Config { retained_bytes: 3 * one + 1, ..Config::default() });
    for sequence in 1..=8 {
        node.hear(&signed(2, 1, sequence, "hello"));
        assert!(node.core.stats().held_bytes <= 3 * one + 1);
    }
    assert_eq!(node.has(), [(6, 8)]);

    let mut node = Node::new(Config { retention: Duration::from_secs(60), ..Config::default() });
    node.input(Input::PeerUp { peer: peer(9) });
    node.hear(&signed(2, 1, 1, "hello"));
    assert_eq!(node.has(), [(1, 1)]);
    node.pass(Duration::from_secs(75));
    assert_eq!(node.has(), []);
    assert_eq!(node.core.stats().held_bytes, 0);
}

#[test]
fn the_memory_of_waiting_ones_is_bounded_too_and_they_are_shown_rather_than_lost() {
    let mut node = Node::new(Config { retained_messages: 5, ..Config::default() });
    for sequence in 0..8 {
        node.hear(&signed(2, 1, 2 + 2 * sequence, "hello"));
        assert!(node.core.stats().held <= 5);
    }
    node.pass(Duration::from_secs(10));
    let texts: Vec<_> = node.seen().into_iter().filter(|seen| matches!(seen, Seen::Text(_))).collect();
    assert_eq!(texts, (1..=8).map(|n| Seen::Text(2 * n)).collect::<Vec<_>>());
}

#[test]
fn streams_are_bounded() {
    let mut node = Node::new(Config { max_streams: 4, ..Config::default() });
    for author in 10..30 {
        node.hear(&signed(author, 1, 1, "hello"));
    }
    assert_eq!(node.has().len(), 4);
    assert_eq!(node.core.stats().held, 4);
    assert_eq!(node.core.stats().delivered, 20);
}

#[test]
fn the_rate_of_a_neighbour_is_bounded_without_calling_it_a_liar() {
    let mut node = Node::new(Config { messages_per_second: 1, message_burst: 3, ..Config::default() });
    let verdicts: Vec<_> = (1..=5).map(|sequence| node.hear(&signed(2, 1, sequence, "hello"))).collect();
    let (yes, no) = (Verdict::Accept, Verdict::Ignore);
    assert_eq!(verdicts, [yes, yes, yes, no, no]);
    assert_eq!(node.core.stats().verified, 3);
    assert_eq!(node.seen().last(), Some(&Seen::Fault(FaultKind::Flood)));
    node.pass(Duration::from_secs(2));
    assert_eq!(node.hear(&signed(2, 1, 4, "hello")), Verdict::Accept);
}

#[test]
fn a_restart_shows_nothing_twice_and_an_own_number_is_never_given_twice() {
    let mut node = Node::new(Config::default());
    let rows = [3, 1, 5].map(|sequence| signed(2, 1, sequence, "hello"));
    node.core.restore(rows, false, WALL_MS);
    for sequence in 1..=6 {
        node.hear(&signed(2, 1, sequence, "hello"));
    }
    assert_eq!(node.seen(), [Seen::Text(2), Seen::Text(4), Seen::Text(6)]);
    assert_eq!(node.has(), [(1, 6)]);
    assert_eq!(node.core.next_sequence(), 1);
    // Somebody remembers an own broadcast that the disk does not.
    node.hear(&signed(1, 1, 1, "from an earlier life"));
    let publish = |node: &mut Node| {
        let (text, name, team) = ("hello".to_owned(), "ada".to_owned(), "althing".to_owned());
        node.core.publish(Kind::Text, text, name, team, WALL_MS, node.now).unwrap().0.sequence
    };
    assert_eq!((publish(&mut node), publish(&mut node)), (2, 3));
    assert_eq!(node.seen(), [Seen::Text(1)]);
}

#[test]
fn answers_are_bounded() {
    let mut node = Node::new(Config::default());
    for sequence in 1..=20 {
        node.hear(&signed(2, 1, sequence, &"x".repeat(60_000)));
    }
    for sequence in 1..=400 {
        node.hear(&signed(3, 1, sequence, "hello"));
    }
    for (author, count) in [(2, 4), (3, 128)] {
        let ranges = vec![Range { author: peer(author), epoch: 1, from: 1, to: u64::MAX }];
        let Some(Answer::Fetch { envelopes, more }) = node.ask(Question::Fetch { ranges }) else { panic!("no answer") };
        assert_eq!((envelopes.len(), more), (count, true));
    }
    let range = Range { author: peer(3), epoch: 1, from: 5, to: 4 };
    let none = node.ask(Question::Fetch { ranges: vec![range] });
    assert_eq!(none, Some(Answer::Fetch { envelopes: vec![], more: false }));
    assert_eq!(node.ask(Question::Fetch { ranges: vec![range; 257] }), None);
    assert_eq!(node.seen(), []);
}

#[test]
fn a_neighbour_that_answers_what_was_not_asked_is_left_alone_for_a_while() {
    let mut node = Node::new(Config::default());
    node.input(Input::PeerUp { peer: peer(9) });
    let (_, mut questions, _) = node.outputs();
    let (_, number, _) = questions.pop().unwrap();
    let answer = Answer::Fetch { envelopes: vec![ByteBuf::from(signed(2, 1, 1, "unasked"))], more: false };
    node.input(Input::Answered { peer: peer(9), number, answer: answer.clone() });
    // An answer that comes twice is none.
    node.input(Input::Answered { peer: peer(9), number, answer });
    let (seen, questions, _) = node.outputs();
    assert_eq!(seen, [Seen::Fault(FaultKind::BadAnswer)]);
    assert!(questions.is_empty());
    node.pass(Duration::from_secs(2));
    assert_eq!(node.outputs().1.len(), 1, "it is asked again later");
}

#[test]
fn a_gap_makes_the_neighbour_that_showed_it_be_asked_soon() {
    let mut node = Node::new(Config::default());
    node.input(Input::PeerUp { peer: peer(9) });
    let (_, mut questions, _) = node.outputs();
    let (_, number, _) = questions.pop().unwrap();
    node.input(Input::Answered { peer: peer(9), number, answer: Answer::Digest { streams: vec![], more: false } });
    node.pass(Duration::from_secs(1));
    node.hear(&signed(2, 1, 2, "hello"));
    assert!(node.outputs().1.is_empty(), "gossip overtakes itself all the time");
    node.pass(Duration::from_millis(200));
    let (_, questions, _) = node.outputs();
    assert!(matches!(questions[..], [(_, _, Question::Digest { after: None })]), "{questions:?}");
}
