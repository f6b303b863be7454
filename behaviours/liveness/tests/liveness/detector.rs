use std::time::{Duration, Instant};

use liveness::detector::{Detector, Input, Output, ProbeId, RelayToken, Stamps};
use liveness::protocol::Suspicion;
use liveness::{Alive, Config, Event, Incarnation, Reason, State, Status};

use crate::cast::peer;

const STAMPS: Stamps = Stamps { asked: 1_000, received: 6_010, answered: 6_020, heard: 1_050 };
const INTERVAL: Duration = Duration::from_secs(13);

struct Bench {
    detector: Detector,
    now: Instant,
}

impl Bench {
    fn new(linked: &[usize]) -> Self {
        Self::with(Config::default(), linked)
    }

    fn with(config: Config, linked: &[usize]) -> Self {
        let mut bench = Self { detector: Detector::new(7, config, 1), now: Instant::now() };
        for &number in linked {
            bench.input(Input::Up { peer: peer(number), boot: 1 });
        }
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.detector.handle_input(input, self.now);
        self.outputs()
    }

    /// What it wants, without what it only mentions.
    fn outputs(&mut self) -> Vec<Output> {
        let all = std::iter::from_fn(|| self.detector.poll_output());
        all.filter(|output| !matches!(output, Output::Heard { .. } | Output::Missed { .. })).collect()
    }

    fn status(&self, number: usize) -> Status {
        self.detector.status(&peer(number), self.now).unwrap()
    }

    /// Go on to the next thing that it does by itself.
    fn next(&mut self) -> Vec<Output> {
        loop {
            self.now = self.now.max(self.detector.poll_timeout().expect("nothing will happen"));
            self.detector.handle_timeout(self.now);
            let outputs = self.outputs();
            if !outputs.is_empty() {
                return outputs;
            }
        }
    }

    /// Go on until that one is probed; everybody else answers.
    fn until_probe(&mut self, number: usize) -> (ProbeId, Option<Suspicion>) {
        for _ in 0..100 {
            for output in self.next() {
                let Output::Probe { to, probe, suspicion } = output else { continue };
                if to == peer(number) {
                    return (probe, suspicion);
                }
                self.input(answer(to, probe));
            }
        }
        panic!("{number} is not probed");
    }
}

fn answer(peer: libp2p::PeerId, probe: ProbeId) -> Input {
    Input::Answered { peer, probe, incarnation: Incarnation::new(1, 0), stamps: STAMPS, statement: None }
}

fn suspect(number: usize, reason: Reason) -> Output {
    Output::Event(Event::Suspect { peer: peer(number), reason })
}

#[test]
fn incarnations_order_boots_before_refutations() {
    assert!(Incarnation::new(2, 0) > Incarnation::new(1, u16::MAX));
    assert!(Incarnation::new(1, 1) > Incarnation::new(1, 0));
    assert_eq!(Incarnation::new(u64::MAX, 3).boot(), (1 << 48) - 1);
}

#[test]
fn an_answer_gives_round_trip_and_offset() {
    let mut bench = Bench::new(&[1]);
    let (probe, suspicion) = bench.until_probe(1);
    assert_eq!(suspicion, None);
    assert_eq!(bench.status(1).next_probe, None, "one is under way");
    bench.now += Duration::from_millis(50);
    let (offset_ms, rtt) = (4_990, Duration::from_millis(50));
    let offset = Output::Event(Event::Offset { peer: peer(1), offset_ms, rtt });
    assert_eq!(bench.input(answer(peer(1), probe)), [offset]);
    let status = bench.status(1);
    assert_eq!((status.rtt, status.offset_ms, status.failures), (Some(rtt), Some(offset_ms), 0));
    assert_eq!(bench.input(answer(peer(1), probe)), [], "only once");
    let before = bench.now;
    bench.until_probe(1);
    assert!(bench.now - before <= INTERVAL);
}

#[test]
fn stamps_of_any_size_do_no_harm() {
    let worst = Stamps { asked: 0, received: u64::MAX, answered: u64::MAX, heard: 0 };
    assert!(worst.offset_ms() > 0);
    let worst = Stamps { asked: u64::MAX, received: 0, answered: 0, heard: u64::MAX };
    assert!(worst.offset_ms() < 0);
}

#[test]
fn three_misses_make_dead_and_not_before_their_time() {
    let mut bench = Bench::new(&[1]);
    let (probe, _) = bench.until_probe(1);
    bench.input(answer(peer(1), probe));
    let heard = bench.now;
    for round in 1..=3 {
        let (_, suspicion) = bench.until_probe(1);
        assert_eq!(suspicion.is_some(), round > 1);
        if round == 1 {
            assert_eq!(bench.next(), [suspect(1, Reason::NoAnswer)]);
            assert_eq!(bench.status(1).state, State::Suspect);
        }
    }
    let dead = Output::Dead { peer: peer(1), incarnation: Incarnation::new(1, 0), reason: Reason::NoAnswer };
    assert_eq!(bench.next(), [dead]);
    let after = bench.now - heard;
    assert!((3 * INTERVAL..=3 * INTERVAL + Config::default().probe_timeout).contains(&after), "{after:?}");
    assert_eq!(bench.detector.poll_timeout(), None, "the dead are not probed");
    let alive = Output::Event(Event::Alive { peer: peer(1) });
    assert_eq!(bench.input(Input::Up { peer: peer(1), boot: 1 }), [alive]);
    bench.until_probe(1);
}

#[test]
fn early_misses_wait_for_the_time() {
    let mut bench = Bench::new(&[]);
    bench.input(Input::Watch { peer: peer(1), boot: 1 });
    let heard = bench.now;
    let mut dials = 0;
    loop {
        for output in bench.next() {
            match output {
                Output::Dial(to) => {
                    dials += 1;
                    // Refused at once, whenever it is tried.
                    bench.input(Input::DialFailed { peer: to });
                    bench.input(Input::Check { peer: to });
                }
                Output::Dead { reason, .. } => {
                    assert_eq!(reason, Reason::Unreachable);
                    assert!(dials >= 3 && bench.now - heard >= 3 * INTERVAL);
                    return;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_lost_link_is_probed_by_dialling_and_a_link_answers() {
    let mut bench = Bench::new(&[1]);
    bench.until_probe(1);
    assert_eq!(bench.input(Input::Lost { peer: peer(1) }), [Output::Dial(peer(1))], "the probe goes on as a dial");
    assert_eq!(bench.input(Input::Lost { peer: peer(1) }), []);
    assert_eq!(bench.next(), [suspect(1, Reason::Unreachable)]);
    assert_eq!(bench.next(), [Output::Dial(peer(1))]);
    let alive = Output::Event(Event::Alive { peer: peer(1) });
    assert_eq!(bench.input(Input::Up { peer: peer(1), boot: 1 }), [alive]);
    assert_eq!(bench.status(1).failures, 0);
}

#[test]
fn a_goodbye_and_a_loss_alone_are_no_death() {
    let mut bench = Bench::new(&[1, 2]);
    assert_eq!(bench.input(Input::Lost { peer: peer(1) }), []);
    assert_eq!(bench.status(1).state, State::Alive);
    bench.input(Input::Forget { peer: peer(1) });
    bench.input(Input::Forget { peer: peer(2) });
    assert_eq!(bench.detector.poll_timeout(), None);
}

#[test]
fn helpers_are_asked_and_only_a_true_sign_of_life_counts() {
    let mut bench = Bench::new(&[1, 2, 3, 4, 5]);
    bench.until_probe(1);
    let mut outputs = Vec::new();
    let mut asks = Vec::new();
    while asks.is_empty() {
        outputs = bench.next();
        for output in &outputs {
            match output {
                Output::Probe { to, probe, .. } => drop(bench.input(answer(*to, *probe))),
                Output::AskHelper { helper, target, probe, suspicion, .. } if *target == peer(1) => {
                    asks.push((*helper, *probe, *suspicion));
                }
                _ => {}
            }
        }
    }
    assert!(outputs.contains(&suspect(1, Reason::NoAnswer)));
    assert_eq!(asks.len(), 3);
    let (helper, probe, suspicion) = asks[0];
    assert_eq!(suspicion.incarnation, Incarnation::new(1, 0));
    let true_one = Alive { peer: peer(1), incarnation: Incarnation::new(1, 1), challenge: suspicion.challenge };
    let helped = |helper, alive: &Alive| Input::Helped { helper, target: peer(1), probe, alive: Some(alive.clone()) };
    let stranger = (2..6).map(peer).find(|other| asks.iter().all(|ask| ask.0 != *other)).unwrap();
    assert_eq!(bench.input(helped(stranger, &true_one)), [], "was not asked");
    let old = Alive { challenge: [0; 16], ..true_one.clone() };
    // Who cannot help is replaced.
    let refused = bench.input(Input::Unhelpful { helper: asks[2].0, target: peer(1), probe });
    assert!(matches!(refused[..], [Output::AskHelper { helper, .. }] if helper == stranger), "{refused:?}");
    // What does not hold is no sign of life, and no fault of the helper's, who hands on what it was given.
    assert_eq!(bench.input(helped(helper, &old)), []);
    let other = Alive { peer: peer(2), ..true_one.clone() };
    assert_eq!(bench.input(helped(asks[1].0, &other)), []);
    assert_eq!(bench.status(1).state, State::Suspect);
    let alive = Output::Event(Event::Alive { peer: peer(1) });
    assert_eq!(bench.input(helped(stranger, &true_one)), [alive]);
    assert_eq!(bench.status(1).incarnation, Incarnation::new(1, 1));
}

#[test]
fn a_helper_probes_passes_the_answer_on_and_always_answers() {
    let mut bench = Bench::new(&[1, 2]);
    let suspicion = Suspicion { incarnation: Incarnation::new(1, 0), challenge: [9; 16] };
    let ask = |from, token, target| {
        let (token, patience) = (RelayToken(token), Duration::from_secs(4));
        Input::RelayAsked { from: peer(from), token, target: peer(target), suspicion, patience }
    };
    let nothing = |token| Output::RelayAnswer { token: RelayToken(token), statement: None };
    let refusal = |token| Output::RelayRefuse { token: RelayToken(token) };
    assert_eq!(bench.input(ask(1, 1, 3)), [refusal(1)], "no neighbour");
    assert_eq!(bench.input(ask(3, 2, 2)), [refusal(2)], "asked by no neighbour");
    assert_eq!(bench.input(ask(1, 3, 1)), [refusal(3)], "about itself");
    let outputs = bench.input(ask(1, 4, 2));
    let [Output::Probe { to, probe, suspicion: Some(told) }] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((to, told), (peer(2), suspicion));
    let statement = Some(vec![1, 2, 3]);
    let input = Input::Answered {
        peer: peer(2),
        probe,
        incarnation: Incarnation::new(1, 0),
        stamps: STAMPS,
        statement: statement.clone(),
    };
    assert_eq!(bench.input(input), [Output::RelayAnswer { token: RelayToken(4), statement }]);
    bench.input(ask(1, 5, 2));
    let asked = bench.now;
    while !bench.next().contains(&nothing(5)) {}
    assert!(bench.now - asked <= Duration::from_millis(3_200), "before the asker's patience is over");
    let per_peer = Config::default().max_relays_per_peer as u64;
    let refused = (10..10 + per_peer + 1).filter(|token| bench.input(ask(1, *token, 2)) == [refusal(*token)]).count();
    assert_eq!(refused, 1);
}

#[test]
fn a_suspicion_is_refuted_with_a_higher_incarnation() {
    let mut bench = Bench::new(&[1]);
    let probed = |request, incarnation| Input::Probed {
        from: peer(1),
        request,
        incarnation: Incarnation::new(1, 0),
        suspicion: Some(Suspicion { incarnation, challenge: [5; 16] }),
    };
    let incarnation = Incarnation::new(7, 1);
    let answer = |request| Output::Answer { request, incarnation, challenge: Some([5; 16]) };
    let refuted = Output::Event(Event::Refuted { from: peer(1), incarnation });
    assert_eq!(bench.input(probed(1, Incarnation::new(7, 0))), [refuted, answer(1)]);
    assert_eq!(bench.input(probed(2, Incarnation::new(7, 0))), [answer(2)], "that is refuted");
    assert_eq!(bench.input(probed(3, Incarnation(u64::MAX))), [answer(3)], "nobody can know that one");
    assert_eq!(bench.detector.health(), 1);
}

#[test]
fn an_own_freeze_accuses_nobody() {
    let mut bench = Bench::new(&[1, 2]);
    bench.until_probe(1);
    while bench.status(1).failures < 2 {
        bench.next();
    }
    bench.now += Duration::from_secs(60);
    bench.detector.handle_timeout(bench.now);
    assert_eq!(bench.outputs(), []);
    assert_eq!((bench.status(1).failures, bench.detector.health() > 0), (0, true));
    let thawed = bench.now;
    while !bench.next().iter().any(|output| matches!(output, Output::Dead { .. })) {}
    assert!(bench.now - thawed >= 3 * INTERVAL);
}

#[test]
fn a_late_timer_gives_open_probes_their_time_again() {
    let mut bench = Bench::new(&[1]);
    let (probe, _) = bench.until_probe(1);
    bench.now = bench.detector.poll_timeout().unwrap() + Duration::from_secs(1);
    bench.detector.handle_timeout(bench.now);
    assert_eq!(bench.outputs(), []);
    assert_eq!(bench.detector.health(), 1);
    let outputs = bench.input(answer(peer(1), probe));
    assert!(matches!(outputs[..], [Output::Event(Event::Offset { .. })]), "{outputs:?}");
    assert_eq!(bench.detector.health(), 0);
}

#[test]
fn settings_change_while_it_runs() {
    let mut bench = Bench::new(&[1]);
    bench.input(Input::Interval(Duration::from_secs(2)));
    bench.input(Input::Misses(1));
    let from = bench.now;
    let (probe, _) = bench.until_probe(1);
    assert!(bench.now - from <= Duration::from_secs(2));
    bench.input(answer(peer(1), probe));
    let from = bench.now;
    while !bench.next().iter().any(|output| matches!(output, Output::Dead { .. })) {}
    assert!((2..=4).contains(&(bench.now - from).as_secs()));
}

#[test]
fn a_check_is_soon_but_no_flood() {
    let mut bench = Bench::new(&[1]);
    let mut probes = 0;
    let from = bench.now;
    while bench.now - from < Duration::from_secs(26) {
        bench.now += Duration::from_millis(100);
        let mut outputs = bench.input(Input::Check { peer: peer(1) });
        bench.detector.handle_timeout(bench.now);
        outputs.extend(bench.outputs());
        for output in outputs {
            if let Output::Probe { to, probe, .. } = output {
                probes += 1;
                bench.input(answer(to, probe));
            }
        }
    }
    assert!((20..=26).contains(&probes), "{probes} in 26 s: one a second at most");
}

#[test]
fn the_table_is_bounded_and_the_dead_make_room() {
    let config = Config { max_neighbours: 2, ..Config::default() };
    let mut bench = Bench::with(config, &[1, 2]);
    bench.input(Input::Up { peer: peer(3), boot: 1 });
    assert_eq!(bench.detector.statuses(bench.now).count(), 2);
    bench.input(Input::Lost { peer: peer(1) });
    bench.input(Input::Up { peer: peer(3), boot: 1 });
    assert!(bench.detector.status(&peer(1), bench.now).is_none());
    assert!(bench.detector.status(&peer(3), bench.now).is_some());
}
