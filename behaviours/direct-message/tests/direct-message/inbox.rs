use std::time::{Duration, Instant};

use direct_message::inbox::{InboundNumber, Inbox, Input, MAX_AHEAD_MS, MAX_BATCHES, MAX_PEERS, Output};
use direct_message::protocol::{Batch, MAX_BATCH_MESSAGES, Outcome, Receipt, Receipts, Refusal};
use direct_message::{Config, Error, FaultKind, Message, MessageId, NotStored, Stored, Token};
use libp2p::PeerId;
use serde_bytes::ByteBuf;

use crate::common::{WALL_MS, key, message, outgoing, peer, start};

struct Bench {
    inbox: Inbox,
    now: Instant,
    next: u64,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { inbox: Inbox::new(peer(2), config), now: start(), next: 0 }
    }

    fn batch_from(&mut self, peer: PeerId, envelopes: Vec<Vec<u8>>) -> Vec<Output> {
        let batch = Batch { messages: envelopes.into_iter().map(ByteBuf::from).collect() };
        let request = InboundNumber(self.next);
        self.next += 1;
        self.inbox.handle_input(Input::Batch { peer, request, batch, wall_ms: WALL_MS }, self.now).unwrap();
        self.outputs()
    }

    fn batch(&mut self, envelopes: Vec<Vec<u8>>) -> Vec<Output> {
        self.batch_from(peer(1), envelopes)
    }

    fn stored(&mut self, token: u64, outcomes: Vec<(MessageId, Stored)>) -> Vec<Output> {
        self.inbox.handle_input(Input::Stored { token: Token(token), outcomes }, self.now).unwrap();
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.inbox.poll_output()).collect()
    }
}

fn good(seq: u64) -> Vec<u8> {
    outgoing(1, 2, seq, "hello").envelope
}

fn id(seq: u64) -> MessageId {
    message(1, 2, seq, "").id
}

fn respond(request: u64, outcomes: impl IntoIterator<Item = (MessageId, Outcome)>) -> Output {
    let receipts = outcomes.into_iter().map(|(id, outcome)| Receipt { id, outcome }).collect();
    Output::Respond { request: InboundNumber(request), receipts: Receipts { receipts } }
}

fn fault(kind: FaultKind) -> Output {
    Output::Fault { peer: peer(1), kind }
}

fn store(token: u64, seqs: impl IntoIterator<Item = u64>) -> Output {
    let messages = seqs.into_iter().map(|seq| message(1, 2, seq, "hello")).collect();
    Output::Store { peer: peer(1), token: Token(token), messages }
}

#[test]
fn a_batch_is_answered_when_the_disk_has_it() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.batch(vec![good(1), good(2)]), vec![store(0, [1, 2])]);
    let outputs = bench.stored(0, vec![(id(2), Stored::Yes), (id(1), Stored::Yes)]);
    assert_eq!(outputs, vec![respond(0, [(id(1), Outcome::Stored), (id(2), Outcome::Stored)])]);
    let again = Input::Stored { token: Token(0), outcomes: vec![] };
    assert_eq!(bench.inbox.handle_input(again, bench.now), Err(Error::UnknownToken));
}

#[test]
fn a_full_disk_is_busy_from_the_first_message_that_found_no_room() {
    let mut bench = Bench::new(Config::default());
    bench.batch((1..=4).map(good).collect());
    let no_room = Stored::No(NotStored::TryLater);
    let outputs = bench.stored(0, vec![(id(1), Stored::Yes), (id(2), no_room), (id(3), Stored::Yes)]);
    let busy = [2, 3, 4].map(|seq| (id(seq), Outcome::Busy));
    assert_eq!(outputs, vec![respond(0, [(id(1), Outcome::Stored)].into_iter().chain(busy))]);

    bench.batch((1..=2).map(good).collect());
    let unwelcome = Stored::No(NotStored::Refused(Refusal::Unwelcome));
    let outputs = bench.stored(1, vec![(id(1), unwelcome), (id(2), Stored::Yes)]);
    let refused = (id(1), Outcome::Refused(Refusal::Unwelcome));
    assert_eq!(outputs, vec![respond(1, [refused, (id(2), Outcome::Stored)])]);
}

#[test]
fn what_is_wrong_is_refused_by_name_and_the_rest_stored() {
    let sign = |message: Message, seed| message.sign(&key(seed)).unwrap();
    let base = || message(1, 2, 7, "hello");
    let mut forged = good(7);
    *forged.last_mut().unwrap() ^= 1;
    let cases: [(&str, Vec<u8>, Outcome); 5] = [
        ("signature", forged, Outcome::Refused(Refusal::Signature)),
        ("author", sign(Message { from: peer(3), ..base() }, 3), Outcome::Refused(Refusal::Author)),
        ("receiver", sign(Message { to: peer(3), ..base() }, 1), Outcome::Refused(Refusal::Receiver)),
        (
            "time",
            sign(Message { sent_at_ms: WALL_MS + MAX_AHEAD_MS + 1, ..base() }, 1),
            Outcome::Refused(Refusal::Time),
        ),
        ("expired", sign(Message { expires_at_ms: WALL_MS - 1, ..base() }, 1), Outcome::Expired),
    ];
    for (desc, bad, outcome) in cases {
        let mut bench = Bench::new(Config::default());
        let mut outputs = bench.batch(vec![good(1), bad.clone(), good(2)]);
        if let Outcome::Refused(refusal) = outcome {
            assert_eq!(outputs.remove(0), fault(FaultKind::BadMessage(refusal)), "{desc}");
        }
        assert_eq!(outputs, vec![store(0, [1, 2])], "{desc}");
        let outputs = bench.stored(0, vec![(id(1), Stored::Yes), (id(2), Stored::Yes)]);
        let receipts = [(id(1), Outcome::Stored), (id(7), outcome), (id(2), Outcome::Stored)];
        assert_eq!(outputs, vec![respond(0, receipts)], "{desc}");
        // Alone it is answered at once.
        assert_eq!(bench.batch(vec![bad]).last(), Some(&respond(1, [(id(7), outcome)])), "{desc}");
    }
}

#[test]
fn what_cannot_be_read_gets_no_receipt() {
    let mut bench = Bench::new(Config::default());
    let malformed = fault(FaultKind::BadMessage(Refusal::Malformed));
    let outputs = bench.batch(vec![good(1), b"junk".to_vec(), vec![0; 70_000]]);
    assert_eq!(outputs, vec![malformed.clone(), store(0, [1])]);
    assert_eq!(bench.stored(0, vec![(id(1), Stored::Yes)]), vec![respond(0, [(id(1), Outcome::Stored)])]);
    assert_eq!(bench.batch(vec![vec![]]), vec![malformed, Output::Reject { request: InboundNumber(1) }]);
}

#[test]
fn batches_out_of_shape_are_not_looked_at() {
    for (batch, kind) in [
        (vec![], FaultKind::EmptyBatch),
        (vec![good(1); MAX_BATCH_MESSAGES + 1], FaultKind::OversizeBatch),
        (vec![vec![0; 60_000]; 9], FaultKind::OversizeBatch),
    ] {
        let outputs = Bench::new(Config::default()).batch(batch);
        assert_eq!(outputs, vec![fault(kind), Output::Reject { request: InboundNumber(0) }]);
    }
}

#[test]
fn an_id_twice_in_a_batch_is_stored_and_answered_once() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.batch(vec![good(1), good(1)]), vec![store(0, [1])]);
    assert_eq!(bench.stored(0, vec![(id(1), Stored::Yes)]), vec![respond(0, [(id(1), Outcome::Stored)])]);
}

#[test]
fn one_batch_a_peer_and_so_many_in_all() {
    let mut bench = Bench::new(Config::default());
    bench.batch(vec![good(1)]);
    assert_eq!(bench.batch(vec![good(1)]), vec![respond(1, [(id(1), Outcome::Busy)])]);
    for seed in 3..3 + MAX_BATCHES as u8 - 1 {
        let outputs = bench.batch_from(peer(seed), vec![outgoing(seed, 2, 1, "hello").envelope]);
        assert!(matches!(outputs[..], [Output::Store { .. }]));
    }
    let late = outgoing(200, 2, 1, "hello");
    let outputs = bench.batch_from(peer(200), vec![late.envelope.clone()]);
    assert!(
        matches!(&outputs[..], [Output::Respond { receipts, .. }] if receipts.receipts[0].outcome == Outcome::Busy)
    );
    bench.stored(0, vec![(id(1), Stored::Yes)]);
    assert!(matches!(bench.batch_from(peer(200), vec![late.envelope])[..], [Output::Store { .. }]));
}

#[test]
fn a_peer_above_its_rate_is_slowed_down_and_one_that_does_not_care_is_a_flood() {
    let config = Config { messages_per_second: 10, message_burst: 3, ..Config::default() };
    let mut bench = Bench::new(config);
    assert_eq!(bench.batch((1..=4).map(good).collect()), vec![store(0, [1, 2, 3])]);
    let yes = (1..=3).map(|seq| (id(seq), Stored::Yes)).collect();
    let outcomes = (1..=3).map(|seq| (id(seq), Outcome::Stored)).chain([(id(4), Outcome::Busy)]);
    assert_eq!(bench.stored(0, yes), vec![respond(0, outcomes)]);

    let busy = |request| respond(request, [(id(4), Outcome::Busy)]);
    assert_eq!(bench.batch(vec![good(4)]), vec![fault(FaultKind::Flood), busy(1)]);
    bench.now += Duration::from_millis(99);
    assert_eq!(bench.batch(vec![good(4)]), vec![fault(FaultKind::Flood), busy(2)]);
    bench.now += Duration::from_millis(100);
    assert_eq!(bench.batch(vec![good(4)]), vec![store(1, [4])]);

    // Another peer is not affected, and bytes are counted like messages.
    let config = Config { bytes_per_second: 1_000, byte_burst: good(1).len() as u32, ..Config::default() };
    let mut bench = Bench::new(config);
    assert_eq!(bench.batch(vec![good(1), good(2)]), vec![store(0, [1])]);
    let other = outgoing(3, 2, 1, "hello").envelope;
    assert!(matches!(bench.batch_from(peer(3), vec![other])[..], [Output::Store { .. }]));
}

#[test]
fn the_rates_of_so_many_peers_are_remembered() {
    let config = Config { messages_per_second: 1, message_burst: 1, ..Config::default() };
    let mut bench = Bench::new(config);
    for _ in 0..MAX_PEERS {
        // Empty envelopes cost their sender a token, and nobody a signature.
        bench.batch_from(PeerId::random(), vec![vec![]]);
    }
    assert_eq!(bench.batch(vec![good(1)]), vec![respond(MAX_PEERS as u64, [(id(1), Outcome::Busy)])]);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.batch(vec![good(1)]), vec![store(0, [1])]);
}
