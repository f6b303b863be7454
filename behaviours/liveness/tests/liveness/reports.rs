use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use liveness::reports::{Input, Output, Reports};
use liveness::{Config, Event, FaultKind, Incarnation, MAX_STATEMENTS, Reason, Report, Role, Tombstone};
use proptest::prelude::*;

use crate::cast::{key, peer};

const NOW_MS: u64 = 1_800_000_000_000;
/// The number of the seed.
const SEED: usize = 0;

fn life(boot: u64) -> Incarnation {
    Incarnation::new(boot, 0)
}

struct Bench {
    reports: Reports,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn seed(linked: &[usize]) -> Self {
        let mut bench = Self::new(SEED, Role::Seed, Config::default());
        for &number in linked {
            bench.input(Input::Up { peer: peer(number), incarnation: life(1) });
        }
        bench
    }

    fn client() -> Self {
        let mut bench = Self::new(1, Role::Peer, Config::default());
        bench.input(Input::Seeds(BTreeSet::from([peer(SEED), peer(9)])));
        bench
    }

    fn new(number: usize, role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self { reports: Reports::new(key(number), role, config).unwrap(), start: now, now }
    }

    fn ms(&self) -> u64 {
        NOW_MS + (self.now - self.start).as_millis() as u64
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let ms = self.ms();
        self.reports.handle_input(input, self.now, ms);
        self.outputs()
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        let ms = self.ms();
        self.reports.handle_timeout(self.now, ms);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.reports.poll_output()).collect()
    }

    /// What everybody is told: whom, and what.
    fn news(&mut self) -> Vec<(PeerId, Tombstone)> {
        let outputs = self.after(Duration::from_millis(100));
        let news = outputs.iter().filter_map(|output| match output {
            Output::Tell { to, whole: false, statements } => Some((*to, Tombstone::decode(&statements[0]).unwrap())),
            _ => None,
        });
        news.collect()
    }

    fn missed(&mut self, target: usize, misses: u32) -> Vec<Output> {
        self.input(Input::Missed { peer: peer(target), incarnation: life(1), misses })
    }

    fn report(&mut self, reporter: usize, target: usize) -> Vec<Output> {
        let statement = report(reporter, target, 1, self.ms());
        self.input(Input::Reported { from: peer(reporter), statement })
    }
}

fn report(reporter: usize, target: usize, boot: u64, at_ms: u64) -> Vec<u8> {
    let report = Report { reporter: peer(reporter), target: peer(target), incarnation: life(boot), at_ms };
    report.sign(&key(reporter)).unwrap()
}

fn stone(seed: usize, target: usize, at_ms: u64, stands: bool) -> Vec<u8> {
    let stone = Tombstone { seed: peer(seed), target: peer(target), incarnation: life(3), at_ms, stands };
    stone.sign(&key(seed)).unwrap()
}

fn told(from: usize, whole: bool, statements: Vec<Vec<u8>>) -> Input {
    Input::Told { from: peer(from), whole, statements }
}

fn reported(target: usize, reporter: usize) -> [Output; 2] {
    let event = Event::Reported { target: peer(target), reporter: peer(reporter) };
    [Output::Event(event), Output::Check(peer(target))]
}

fn evicted(outputs: &[Output]) -> Vec<Event> {
    let events = outputs.iter().filter_map(|output| match output {
        Output::Event(event @ Event::Evict { .. }) => Some(event.clone()),
        _ => None,
    });
    events.collect()
}

fn fault(number: usize, kind: FaultKind) -> [Output; 1] {
    [Output::Fault { peer: peer(number), kind }]
}

fn dead(number: usize) -> Input {
    Input::Dead { peer: peer(number), incarnation: life(1), reason: Reason::NoAnswer }
}

#[test]
fn two_reporters_and_own_failed_probes_evict() {
    let mut bench = Bench::seed(&[1, 2, 3, 4]);
    assert_eq!(bench.report(1, 4), reported(4, 1));
    assert_eq!(bench.report(1, 4), [], "told before");
    assert_eq!(bench.missed(4, 1), [Output::Check(peer(4))]);
    assert_eq!(bench.missed(4, 2), [], "of a single reporter");
    let outputs = bench.report(2, 4);
    let mut reporters = vec![peer(1), peer(2)];
    reporters.sort();
    let evict = Event::Evict { target: peer(4), incarnation: life(1), reporters };
    assert_eq!(evicted(&outputs), [evict]);
    let news = bench.news();
    assert!(news.len() == 4 && news.iter().all(|(_, stone)| stone.stands && stone.target == peer(4)), "{news:?}");
    assert_eq!(bench.reports.tombstones().len(), 1);
    assert_eq!(bench.missed(4, 3), []);
    assert_eq!(bench.report(3, 4), [], "known");
}

#[test]
fn reports_without_own_failed_probes_evict_nobody() {
    let mut bench = Bench::seed(&[1, 2, 3, 4]);
    for reporter in 1..4 {
        bench.report(reporter, 4);
    }
    assert_eq!(evicted(&bench.missed(4, 1)), []);
    bench.input(Input::Heard { peer: peer(4), incarnation: life(1) });
    assert_eq!(bench.missed(4, 2), [], "what was said before it was seen alive does not count");
    assert_eq!(bench.reports.tombstones(), []);
}

#[test]
fn own_detection_evicts_and_a_link_raises() {
    let mut bench = Bench::seed(&[1, 4]);
    let outputs = bench.input(dead(4));
    assert!(matches!(&outputs[0], Output::Event(Event::Dead { reporters, .. }) if *reporters == [peer(SEED)]));
    assert_eq!(evicted(&outputs).len(), 1);
    let stone = bench.reports.tombstones().remove(0);
    let mut news = vec![(peer(4), stone.clone()), (peer(1), stone.clone())];
    news.sort_by_key(|(to, _)| *to);
    assert_eq!(bench.news(), news);
    let statement = stone.sign(&key(SEED)).unwrap();
    bench.input(Input::Down { peer: peer(4) });
    let newcomer = bench.input(Input::Up { peer: peer(2), incarnation: life(1) });
    assert_eq!(newcomer, [Output::Tell { to: peer(2), whole: true, statements: vec![statement.clone()] }]);
    let outputs = bench.input(Input::Up { peer: peer(4), incarnation: life(2) });
    let raised = Event::Raised { seed: peer(SEED), target: peer(4), incarnation: life(1) };
    assert_eq!(outputs[0], Output::Event(raised));
    let lifts = bench.news();
    assert_eq!(lifts.len(), 3);
    assert!(
        lifts.iter().all(|(_, lift)| !lift.stands && lift.at_ms > stone.at_ms),
        "later, though the clock stood still"
    );
}

#[test]
fn bad_reports_are_faults_or_nothing() {
    let mut bench = Bench::seed(&[1, 2, 4]);
    let at = bench.ms();
    let sent = |from: usize, statement| Input::Reported { from: peer(from), statement };
    let mut forged = report(1, 4, 1, at);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(bench.input(sent(1, forged)), fault(1, FaultKind::ForgedStatement));
    assert_eq!(bench.input(sent(1, vec![0; 513])), fault(1, FaultKind::ForgedStatement));
    assert_eq!(bench.input(sent(1, stone(1, 4, at, true))), fault(1, FaultKind::ForgedStatement), "another domain");
    assert_eq!(bench.input(sent(1, report(2, 4, 1, at))), fault(1, FaultKind::ForeignStatement), "replayed");
    assert_eq!(bench.input(sent(1, report(1, 1, 1, at))), fault(1, FaultKind::AbsurdReport));
    assert_eq!(bench.input(sent(1, report(1, SEED, 1, at))), fault(1, FaultKind::AbsurdReport));
    assert_eq!(bench.input(sent(1, report(1, 4, 1, at - 60_000))), [], "stale");
    assert_eq!(bench.input(sent(1, report(1, 4, 1, at + 60_001))), [], "from the future");
    assert_eq!(bench.input(sent(1, report(1, 4, 0, at))), [], "an earlier life");
    assert_eq!(bench.input(sent(1, report(1, 7, 1, at))), [], "nobody knows that one");
    assert_eq!(bench.input(sent(1, report(1, 4, 1, at - 59_000))), reported(4, 1));
    let mut client = Bench::client();
    client.input(Input::Up { peer: peer(2), incarnation: life(1) });
    assert_eq!(client.report(2, 4), [], "no seed");
}

#[test]
fn a_report_counts_for_a_minute() {
    let mut bench = Bench::seed(&[1, 2, 4]);
    bench.report(1, 4);
    bench.after(Duration::from_secs(60));
    bench.report(2, 4);
    assert_eq!(evicted(&bench.missed(4, 2)), []);
    assert_eq!(evicted(&bench.report(1, 4)).len(), 1);
}

#[test]
fn a_death_is_reported_to_all_linked_seeds_and_again_where_it_failed() {
    let mut bench = Bench::client();
    bench.input(Input::Up { peer: peer(SEED), incarnation: life(1) });
    let outputs = bench.input(dead(5));
    let [Output::Event(Event::Dead { .. }), Output::Report { to, target, statement }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!((*to, *target), (peer(SEED), peer(5)));
    assert_eq!(Report::decode(statement).unwrap().at_ms, NOW_MS);
    assert_eq!(bench.input(Input::ReportFailed { seed: peer(SEED), target: peer(5) }), []);
    let again = bench.after(Duration::from_secs(5));
    assert!(matches!(again[..], [Output::Report { .. }]), "{again:?}");
    let outputs = bench.input(Input::Up { peer: peer(9), incarnation: life(1) });
    assert!(matches!(outputs[..], [Output::Report { to, .. }] if to == peer(9)), "the other seed came later");
    bench.input(Input::ReportFailed { seed: peer(SEED), target: peer(5) });
    bench.input(Input::Heard { peer: peer(5), incarnation: life(1) });
    assert_eq!(bench.after(Duration::from_secs(5)), [], "it lives");
}

#[test]
fn only_the_own_seeds_bury_and_each_for_itself() {
    let mut bench = Bench::client();
    let at = bench.ms();
    let buried = |seed| Event::Buried { seed: peer(seed), target: peer(5), incarnation: life(3) };
    assert_eq!(bench.input(told(7, true, vec![stone(7, 5, at, true)])), [], "not an own seed");
    let foreign = bench.input(told(SEED, false, vec![stone(9, 5, at, true)]));
    assert_eq!(foreign, fault(SEED, FaultKind::ForeignStatement));
    assert_eq!(bench.input(told(SEED, false, vec![stone(SEED, 5, at - 600_000, true)])), [], "stale");
    assert_eq!(bench.input(told(SEED, false, vec![stone(SEED, 5, at, true)])), [Output::Event(buried(SEED))]);
    assert_eq!(bench.input(told(SEED, false, vec![stone(SEED, 5, at, true)])), [], "known");
    assert_eq!(bench.reports.buried_by(&peer(5), None), BTreeSet::from([peer(SEED)]));
    assert_eq!(bench.reports.buried_by(&peer(5), Some(3)), BTreeSet::from([peer(SEED)]));
    assert_eq!(bench.reports.buried_by(&peer(5), Some(4)), BTreeSet::new(), "a later life");
    let raised = Event::Raised { seed: peer(SEED), target: peer(5), incarnation: life(3) };
    let lifted = bench.input(told(SEED, false, vec![stone(SEED, 5, at + 1, false)]));
    assert_eq!(lifted, [Output::Event(raised.clone())]);
    assert_eq!(bench.input(told(SEED, false, vec![stone(SEED, 5, at, true)])), [], "replayed");
    bench.input(told(SEED, false, vec![stone(SEED, 5, at + 2, true)]));
    assert_eq!(bench.input(told(SEED, true, vec![])), [Output::Event(raised.clone())], "it has forgotten");
    bench.input(told(SEED, false, vec![stone(SEED, 5, at + 3, true)]));
    assert_eq!(bench.after(Duration::from_secs(601)), [Output::Event(raised.clone())], "its time is over");
    let at = bench.ms();
    bench.input(told(SEED, false, vec![stone(SEED, 5, at, true)]));
    assert_eq!(bench.input(Input::Seeds(BTreeSet::new())), [Output::Event(raised)], "no seed of ours any more");
}

#[test]
fn lists_are_bounded_and_cut_into_frames() {
    let config = Config { max_tombstones: MAX_STATEMENTS + 5, ..Config::default() };
    let mut bench = Bench::new(SEED, Role::Seed, config.clone());
    let count = MAX_STATEMENTS + 8;
    for number in 10..10 + count {
        bench.input(Input::Watch { peer: peer(number), incarnation: life(1) });
        bench.input(dead(number));
    }
    bench.after(Duration::from_millis(100));
    assert_eq!(bench.reports.tombstones().len(), MAX_STATEMENTS + 5);
    let outputs = bench.input(Input::Up { peer: peer(1), incarnation: life(1) });
    let lengths = outputs.iter().map(|output| match output {
        Output::Tell { whole, statements, .. } => (*whole, statements.len()),
        other => panic!("{other:?}"),
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [(true, MAX_STATEMENTS), (false, 5)]);
    bench.input(Input::TellFailed { peer: peer(1) });
    assert_eq!(bench.after(Duration::from_secs(5)).len(), 2, "told again");

    let config = Config { max_tombstones: 3, ..Config::default() };
    let mut bench = Bench::new(1, Role::Peer, config);
    bench.input(Input::Seeds(BTreeSet::from([peer(SEED)])));
    let stones = (0..5).map(|n| stone(SEED, 10 + n, NOW_MS + n as u64, true)).collect();
    bench.input(told(SEED, false, stones));
    let buried = (10..15).filter(|number| !bench.reports.buried_by(&peer(*number), None).is_empty());
    assert_eq!(buried.collect::<Vec<_>>(), [12, 13, 14]);
}

/// What liars, chance and time may do to a seed.
#[derive(Clone, Debug)]
enum Step {
    Lie { liar: usize, target: usize, age_ms: u64, boot: u64 },
    Replay { liar: usize, reporter: usize, target: usize },
    Miss { target: usize },
    Answer { target: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let target = 10..14_usize;
    prop_oneof![
        4 => (1..6_usize, target.clone(), 0..130_000_u64, 0..4_u64)
            .prop_map(|(liar, target, age_ms, boot)| Step::Lie { liar, target, age_ms, boot }),
        1 => (1..6_usize, 1..6_usize, target.clone())
            .prop_map(|(liar, reporter, target)| Step::Replay { liar, reporter, target }),
        3 => target.clone().prop_map(|target| Step::Miss { target }),
        2 => target.prop_map(|target| Step::Answer { target }),
        1 => (0..30_000_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Who answers its probes before two of them in a row are lost is never evicted, whatever is said and by how many; and
    /// an eviction always stands on two who said so within the last minute, by their own hand.
    #[test]
    fn slander_evicts_nobody(steps in prop::collection::vec(step(), 0..80)) {
        let mut bench = Bench::seed(&[1, 2, 3, 4, 5, 10, 11, 12, 13]);
        let mut misses = [0_u32; 4];
        let mut said: Vec<(usize, usize, u64)> = Vec::new();
        for step in steps {
            let outputs = match step {
                Step::Lie { liar, target, age_ms, boot } => {
                    let at_ms = bench.ms() - age_ms;
                    if boot >= 1 {
                        said.push((liar, target, at_ms));
                    }
                    let statement = report(liar, target, boot, at_ms);
                    bench.input(Input::Reported { from: peer(liar), statement })
                }
                Step::Replay { liar, reporter, target } if liar != reporter => {
                    let statement = report(reporter, target, 1, bench.ms());
                    bench.input(Input::Reported { from: peer(liar), statement })
                }
                Step::Replay { .. } => Vec::new(),
                Step::Miss { target } => {
                    misses[target - 10] += 1;
                    bench.missed(target, misses[target - 10])
                }
                Step::Answer { target } => {
                    misses[target - 10] = 0;
                    said.retain(|(_, of, _)| *of != target);
                    bench.input(Input::Heard { peer: peer(target), incarnation: life(1) })
                }
                Step::Wait { ms } => bench.after(Duration::from_millis(ms)),
            };
            for event in evicted(&outputs) {
                let Event::Evict { target, reporters, .. } = event else { unreachable!() };
                let number = (10..14).find(|number| peer(*number) == target).unwrap();
                prop_assert!(misses[number - 10] >= 2);
                let now = bench.ms();
                let fresh = said.iter().filter(|(_, of, at)| *of == number && now - at < 60_000);
                let fresh = fresh.map(|(by, ..)| peer(*by)).collect::<BTreeSet<_>>();
                prop_assert!(reporters.len() >= 2 && reporters.iter().all(|by| fresh.contains(by)));
            }
        }
    }
}
