use std::time::{Duration, Instant};

use direct_message::outbox::{Failure, Input, Outbox, Output, RequestNumber, WINDOW, WINDOW_BYTES};
use direct_message::protocol::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Outcome, Receipt, Refusal};
use direct_message::{Config, FaultKind, MAX_ENVELOPE_BYTES, MessageId, Outgoing, Reason, Requeue, Settled};
use libp2p::PeerId;

use crate::common::{peer, start};

/// The core looks at sizes only, so envelopes need not be signed.
fn fake(seq: u64, bytes: usize) -> Outgoing {
    Outgoing { id: id(seq), seq, envelope: vec![0; bytes] }
}

fn id(seq: u64) -> MessageId {
    MessageId(u128::from(seq).to_be_bytes())
}

fn ids(seqs: impl IntoIterator<Item = u64>) -> Vec<MessageId> {
    seqs.into_iter().map(id).collect()
}

fn receipts(outcomes: impl IntoIterator<Item = (u64, Outcome)>) -> Vec<Receipt> {
    outcomes.into_iter().map(|(seq, outcome)| Receipt { id: id(seq), outcome }).collect()
}

struct Bench {
    outbox: Outbox,
    now: Instant,
    peer: PeerId,
}

impl Bench {
    fn new() -> Self {
        Self { outbox: Outbox::new(Config::default(), 1), now: start(), peer: peer(2) }
    }

    fn up() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.tell(Input::PeerUp { peer: bench.peer }), vec![]);
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.outbox.handle_input(input, self.now);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.outbox.poll_output()).collect()
    }

    fn queue(&mut self, seq: u64) -> Vec<Output> {
        self.tell(Input::Queued { peer: self.peer, message: fake(seq, 100) })
    }

    fn answer(&mut self, request: u64, outcomes: impl IntoIterator<Item = (u64, Outcome)>) -> Vec<Output> {
        self.tell(Input::Answered { peer: self.peer, request: RequestNumber(request), receipts: receipts(outcomes) })
    }

    fn fail(&mut self, request: u64) -> Vec<Output> {
        self.tell(Input::Failed { peer: self.peer, request: RequestNumber(request), error: Failure::Stream })
    }

    /// Jump to the next timeout; how long that took.
    fn wait(&mut self) -> (Duration, Vec<Output>) {
        let at = self.outbox.poll_timeout().expect("a timeout");
        let waited = at.saturating_duration_since(self.now);
        self.now = at;
        self.outbox.handle_timeout(at);
        (waited, self.outputs())
    }
}

/// The request and the ids that were sent, when these outputs are exactly that.
fn sent(outputs: &[Output]) -> Option<(u64, Vec<MessageId>)> {
    match outputs {
        [Output::Send { request, batch, .. }, Output::Sent { ids, .. }] => {
            assert_eq!(batch.messages.len(), ids.len());
            Some((request.0, ids.clone()))
        }
        _ => None,
    }
}

fn all(seqs: std::ops::RangeInclusive<u64>, outcome: Outcome) -> impl Iterator<Item = (u64, Outcome)> {
    seqs.map(move |seq| (seq, outcome))
}

#[test]
fn an_idle_peer_gets_a_message_at_once_and_the_next_ones_together() {
    let mut bench = Bench::up();
    assert_eq!(sent(&bench.queue(1)), Some((0, ids([1]))));
    assert_eq!(bench.queue(2), vec![]);
    assert_eq!(bench.queue(3), vec![]);
    let outputs = bench.answer(0, [(1, Outcome::Stored)]);
    assert_eq!(outputs[0], Output::Settled { peer: bench.peer, receipts: vec![(id(1), Settled::Delivered)] });
    assert_eq!(sent(&outputs[1..]), Some((1, ids([2, 3]))));
}

#[test]
fn nothing_is_kept_for_a_million_messages_to_absent_peers() {
    let mut bench = Bench::new();
    let peers: Vec<PeerId> = (0..100).map(peer).collect();
    let info = allocation_counter::measure(|| {
        for seq in 1..=10_000 {
            for &peer in &peers {
                bench.outbox.handle_input(Input::Queued { peer, message: fake(seq, 0) }, bench.now);
            }
        }
    });
    assert!(info.bytes_current < 64 * 1_024, "{} bytes stay", info.bytes_current);
    assert_eq!(bench.outputs(), vec![]);
    assert_eq!(bench.outbox.poll_timeout(), None);
    let outputs = bench.tell(Input::PeerUp { peer: bench.peer });
    assert_eq!(
        outputs,
        vec![Output::Refill { peer: bench.peer, after_seq: 0, limit: WINDOW, max_bytes: WINDOW_BYTES }]
    );
}

#[test]
fn a_batch_is_bounded_in_count_and_bytes_and_never_empty() {
    let mut bench = Bench::up();
    bench.queue(1);
    for seq in 2..=400 {
        bench.queue(seq);
    }
    let outputs = bench.answer(0, [(1, Outcome::Stored)]);
    assert_eq!(sent(&outputs[1..]), Some((1, ids(2..=257))));

    let mut bench = Bench::up();
    for seq in 1..=16 {
        bench.tell(Input::Queued { peer: bench.peer, message: fake(seq, MAX_ENVELOPE_BYTES) });
    }
    let outputs = bench.answer(0, [(1, Outcome::Stored)]);
    let fitting = (MAX_BATCH_BYTES / MAX_ENVELOPE_BYTES) as u64;
    assert_eq!(sent(&outputs[1..3]), Some((1, ids(2..2 + fitting))));
}

#[test]
fn the_window_is_bounded_and_refilled_when_half_of_it_is_free() {
    let mut bench = Bench::up();
    for seq in 1..=2_000 {
        let outputs = bench.queue(seq);
        assert!(outputs.iter().all(|output| !matches!(output, Output::Refill { .. })));
        assert!(bench.outbox.held(&bench.peer).0 <= WINDOW);
    }
    bench.answer(0, [(1, Outcome::Stored)]);
    // 511 are left, 256 of them in flight.
    let outputs = bench.answer(1, all(2..=257, Outcome::Stored));
    let room = WINDOW - 255;
    assert_eq!(
        outputs.last(),
        Some(&Output::Refill { peer: bench.peer, after_seq: 512, limit: room, max_bytes: WINDOW_BYTES - 255 * 100 })
    );
    // While the refill is under way, nothing asks again, and what is queued is not lost.
    assert_eq!(bench.queue(2_001), vec![]);
    let messages: Vec<_> = (513..513 + room as u64).map(|seq| fake(seq, 100)).collect();
    assert_eq!(bench.tell(Input::Refilled { peer: bench.peer, messages, more: true }), vec![]);
    assert_eq!(bench.outbox.held(&bench.peer).0, WINDOW);
}

#[test]
fn what_is_queued_during_a_refill_is_read_by_the_next_one() {
    let mut bench = Bench::new();
    bench.tell(Input::Pending { peer: bench.peer });
    assert!(matches!(bench.tell(Input::PeerUp { peer: bench.peer })[..], [Output::Refill { after_seq: 0, .. }]));
    bench.queue(2);
    let outputs = bench.tell(Input::Refilled { peer: bench.peer, messages: vec![fake(1, 100)], more: false });
    assert_eq!(sent(&outputs[..2]), Some((0, ids([1]))));
    assert!(matches!(outputs[2], Output::Refill { after_seq: 1, .. }));
    bench.tell(Input::Refilled { peer: bench.peer, messages: vec![fake(2, 100)], more: false });
    assert_eq!(sent(&bench.answer(0, [(1, Outcome::Stored)])[1..]), Some((1, ids([2]))));
}

#[test]
fn a_number_out_of_order_is_read_again_from_the_disk() {
    for refilling in [false, true] {
        let mut bench = Bench::new();
        if refilling {
            bench.tell(Input::Pending { peer: bench.peer });
        }
        bench.tell(Input::PeerUp { peer: bench.peer });
        if refilling {
            let messages = vec![fake(5, 100)];
            bench.tell(Input::Refilled { peer: bench.peer, messages, more: false });
            bench.tell(Input::Pending { peer: bench.peer });
            bench.queue(3);
            let outputs = bench.tell(Input::Refilled { peer: bench.peer, messages: vec![], more: false });
            assert!(matches!(outputs[..], [Output::Refill { after_seq: 2, .. }]), "{outputs:?}");
        } else {
            bench.queue(5);
            let outputs = bench.queue(3);
            assert!(matches!(outputs[..], [Output::Refill { after_seq: 2, .. }]), "{outputs:?}");
        }
        let messages = vec![fake(3, 100), fake(5, 100)];
        assert_eq!(bench.tell(Input::Refilled { peer: bench.peer, messages, more: false }), vec![]);
        assert_eq!(sent(&bench.answer(0, [(5, Outcome::Stored)])[1..]), Some((1, ids([3]))));
    }
}

#[test]
fn a_refill_that_was_asked_for_in_an_earlier_life_of_the_link_is_ignored() {
    let mut bench = Bench::new();
    bench.tell(Input::Pending { peer: bench.peer });
    bench.tell(Input::PeerUp { peer: bench.peer });
    bench.tell(Input::PeerDown { peer: bench.peer });
    let outputs = bench.tell(Input::PeerUp { peer: bench.peer });
    assert!(matches!(outputs[..], [Output::Refill { after_seq: 0, .. }]));
    assert_eq!(bench.tell(Input::Refilled { peer: bench.peer, messages: vec![], more: false }), vec![]);
    let outputs = bench.tell(Input::Refilled { peer: bench.peer, messages: vec![fake(1, 100)], more: false });
    assert_eq!(sent(&outputs), Some((0, ids([1]))));
}

#[test]
fn a_disk_that_fails_is_asked_again_later() {
    let mut bench = Bench::new();
    bench.tell(Input::Pending { peer: bench.peer });
    bench.tell(Input::PeerUp { peer: bench.peer });
    for _ in 0..3 {
        assert_eq!(bench.tell(Input::Refilled { peer: bench.peer, messages: vec![], more: true }), vec![]);
        let (waited, outputs) = bench.wait();
        assert_eq!(waited, Config::default().retry_initial);
        assert!(matches!(outputs[..], [Output::Refill { after_seq: 0, .. }]));
    }
}

#[test]
fn failures_double_the_wait_up_to_its_bound_and_success_or_a_new_link_ends_it() {
    let mut bench = Bench::up();
    bench.queue(1);
    let mut longest = Config::default().retry_initial;
    for request in 0..12 {
        let outputs = bench.fail(request);
        let requeued = Output::Requeued { peer: bench.peer, ids: ids([1]), reason: Requeue::Failed(Failure::Stream) };
        assert_eq!(outputs, vec![requeued]);
        let (waited, outputs) = bench.wait();
        assert!(waited >= longest / 2 && waited <= longest, "{waited:?} of {longest:?}");
        assert_eq!(sent(&outputs), Some((request + 1, ids([1]))));
        longest = (longest * 2).min(Config::default().retry_max);
    }
    assert_eq!(longest, Config::default().retry_max);
    bench.fail(12);
    assert_eq!(sent(&bench.tell(Input::PeerUp { peer: bench.peer })), Some((13, ids([1]))));
    bench.fail(13);
    assert!(bench.wait().0 <= Config::default().retry_initial);
    bench.answer(14, [(1, Outcome::Stored)]);
    bench.queue(2);
    bench.fail(15);
    assert!(bench.wait().0 <= Config::default().retry_initial);
}

#[test]
fn a_request_without_any_answer_is_given_up_and_its_late_answer_ignored() {
    let mut bench = Bench::up();
    bench.queue(1);
    let (waited, outputs) = bench.wait();
    assert!(waited > Config::default().request_timeout);
    assert!(matches!(&outputs[..], [Output::Requeued { reason: Requeue::Failed(Failure::Timeout), .. }]));
    assert_eq!(bench.answer(0, [(1, Outcome::Stored)]), vec![]);
    assert_eq!(bench.fail(0), vec![]);
    assert_eq!(sent(&bench.wait().1), Some((1, ids([1]))));
}

#[test]
fn busy_in_the_middle_puts_everything_behind_it_back() {
    let mut bench = Bench::up();
    bench.queue(1);
    (2..=5).for_each(|seq| drop(bench.queue(seq)));
    bench.answer(0, [(1, Outcome::Stored)]);
    let outcomes =
        [(2, Outcome::Stored), (3, Outcome::Refused(Refusal::Unwelcome)), (4, Outcome::Busy), (5, Outcome::Stored)];
    let outputs = bench.answer(1, outcomes);
    let settled = vec![(id(2), Settled::Delivered), (id(3), Settled::Failed(Reason::Refused(Refusal::Unwelcome)))];
    assert_eq!(
        outputs,
        vec![
            Output::Settled { peer: bench.peer, receipts: settled },
            Output::Requeued { peer: bench.peer, ids: ids([4, 5]), reason: Requeue::Busy },
        ]
    );
    assert_eq!(bench.queue(6), vec![]);
    assert_eq!(sent(&bench.wait().1), Some((2, ids([4, 5, 6]))));
}

#[test]
fn receipts_that_make_no_sense_are_faults_and_settle_nothing_else() {
    let mut bench = Bench::up();
    bench.queue(1);
    (2..=4).for_each(|seq| drop(bench.queue(seq)));
    bench.answer(0, [(1, Outcome::Stored)]);
    let outcomes =
        [(2, Outcome::Expired), (2, Outcome::Stored), (9, Outcome::Stored), (9, Outcome::Stored), (4, Outcome::Stored)];
    let outputs = bench.answer(1, outcomes);
    let fault = |kind| Output::Fault { peer: bench.peer, kind };
    assert_eq!(
        outputs,
        vec![
            Output::Settled { peer: bench.peer, receipts: vec![(id(2), Settled::Failed(Reason::Expired))] },
            Output::Requeued { peer: bench.peer, ids: ids([3, 4]), reason: Requeue::NoReceipt },
            fault(FaultKind::UnknownReceipt),
            fault(FaultKind::DuplicateReceipt),
            fault(FaultKind::MissingReceipt),
        ]
    );
}

#[test]
fn a_forgotten_message_is_not_named_again() {
    let mut bench = Bench::up();
    bench.queue(1);
    (2..=4).for_each(|seq| drop(bench.queue(seq)));
    bench.tell(Input::Forget { peer: bench.peer, id: id(3) });
    bench.tell(Input::Forget { peer: bench.peer, id: id(1) });
    let outputs = bench.answer(0, [(1, Outcome::Stored)]);
    assert_eq!(sent(&outputs), Some((1, ids([2, 4]))));
    bench.tell(Input::Forget { peer: bench.peer, id: id(2) });
    let outputs = bench.fail(1);
    let requeued = Output::Requeued { peer: bench.peer, ids: ids([4]), reason: Requeue::Failed(Failure::Stream) };
    assert_eq!(outputs, vec![requeued]);
    assert_eq!(sent(&bench.wait().1), Some((2, ids([4]))));
    assert_eq!(bench.outbox.held(&bench.peer), (1, 100));
}

#[test]
fn a_lost_link_empties_the_memory_and_the_next_one_reads_the_disk() {
    let mut bench = Bench::up();
    bench.queue(1);
    bench.queue(2);
    let outputs = bench.tell(Input::PeerDown { peer: bench.peer });
    let requeued = Output::Requeued { peer: bench.peer, ids: ids([1]), reason: Requeue::Failed(Failure::LinkLost) };
    assert_eq!(outputs, vec![requeued]);
    assert_eq!(bench.outbox.held(&bench.peer), (0, 0));
    assert_eq!(bench.outbox.poll_timeout(), None);
    assert_eq!(bench.answer(0, [(1, Outcome::Stored)]), vec![]);
    let outputs = bench.tell(Input::PeerUp { peer: bench.peer });
    assert!(matches!(outputs[..], [Output::Refill { after_seq: 0, .. }]));
}

#[test]
fn an_envelope_that_can_never_be_sent_does_not_block_the_others() {
    let mut bench = Bench::up();
    bench.queue(1);
    let message = fake(2, MAX_ENVELOPE_BYTES + 1);
    let outputs = bench.tell(Input::Queued { peer: bench.peer, message });
    let receipts = vec![(id(2), Settled::Failed(Reason::TooLarge))];
    assert_eq!(outputs, vec![Output::Settled { peer: bench.peer, receipts }]);
    bench.queue(3);
    assert_eq!(sent(&bench.answer(0, [(1, Outcome::Stored)])[1..]), Some((1, ids([3]))));
    assert_eq!(MAX_BATCH_MESSAGES * 2, WINDOW);
}
