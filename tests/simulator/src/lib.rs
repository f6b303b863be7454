//! Virtual time and a seeded network for testing sans-IO cores.
//!
//! A [`Network`] carries messages of any type between nodes that are named by small numbers. It owns the clock:
//! [`Network::next`] jumps to the next thing that happens, so an hour of protocol time costs microseconds and the
//! same seed gives the same run. The powers of the adversary are exactly the fields of [`Link`] and the methods
//! [`Network::cut`], [`Network::heal`] and [`Network::crash`]; nothing else can go wrong, and nothing goes wrong
//! unless it was asked for.
//!
//! ```
//! use std::time::Duration;
//! use simulator::{Happening, Link, Network};
//!
//! let mut network = Network::new(7, Link { loss: 0.0, duplicate: 0.0, delay: Duration::from_millis(1)..Duration::from_millis(5) });
//! network.send(0, 1, "hello");
//! assert_eq!(network.next(), Some(Happening::Arrives { from: 0, to: 1, message: "hello" }));
//! assert_eq!(network.next(), None);
//! ```

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A node of the simulated network.
pub type NodeId = usize;

/// What may happen to a message on its way.
#[derive(Clone, Debug)]
pub struct Link {
    /// Probability that a message is lost, 0.0 to 1.0.
    pub loss: f64,
    /// Probability that a message arrives a second time, 0.0 to 1.0.
    pub duplicate: f64,
    /// Each copy is delayed by a uniform pick from this range, so a wide range reorders.
    pub delay: Range<Duration>,
}

impl Link {
    /// A link that loses, doubles and reorders nothing; every message takes a millisecond.
    pub fn perfect() -> Self {
        Self { loss: 0.0, duplicate: 0.0, delay: Duration::from_millis(1)..Duration::from_millis(1) }
    }
}

/// What happened next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening<M> {
    /// A copy of a message arrives.
    Arrives {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: M,
    },
    /// A time that [`Network::wake_at`] asked for has come.
    Wakes {
        /// The node that asked.
        node: NodeId,
    },
}

enum Entry<M> {
    Message { from: NodeId, to: NodeId, to_life: u64, message: M },
    Wake { node: NodeId, life: u64 },
}

/// The seeded network and its clock.
pub struct Network<M> {
    start: Instant,
    now: Instant,
    rng: StdRng,
    link: Link,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    entries: BTreeMap<u64, Entry<M>>,
    serial: u64,
    lives: BTreeMap<NodeId, u64>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    trace: DefaultHasher,
}

impl<M: Clone> Network<M> {
    /// A network in which every pair of nodes is joined by such a `link`.
    pub fn new(seed: u64, link: Link) -> Self {
        // Only differences between instants are ever looked at, so the real start leaves the run deterministic.
        let start = Instant::now();
        Self {
            start,
            now: start,
            rng: StdRng::seed_from_u64(seed),
            link,
            queue: BinaryHeap::new(),
            entries: BTreeMap::new(),
            serial: 0,
            lives: BTreeMap::new(),
            cuts: BTreeSet::new(),
            trace: DefaultHasher::new(),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the network was made.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The seeded source of randomness, for the test's own choices.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// Change what links do from now on.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Hand a message to the network. It may be lost, doubled and delayed as the link says.
    pub fn send(&mut self, from: NodeId, to: NodeId, message: M) {
        if self.cuts.contains(&(from, to)) || self.rng.random_bool(self.link.loss) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.link.duplicate));
        for _ in 0..copies {
            let Range { start, end } = self.link.delay.clone();
            let delay = if start < end { self.rng.random_range(start..end) } else { start };
            let entry = Entry::Message { from, to, to_life: self.life(to), message: message.clone() };
            self.push(self.now + delay, entry);
        }
    }

    /// Ask for a [`Happening::Wakes`] at that time (at once when it is past). Forgotten when the node crashes.
    pub fn wake_at(&mut self, node: NodeId, at: Instant) {
        let life = self.life(node);
        self.push(at.max(self.now), Entry::Wake { node, life });
    }

    /// Drop everything sent from now on from one node to the other; one direction only.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Undo [`Network::cut`] for one direction.
    pub fn heal(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
    }

    /// The node's memory is gone: what is on the way to it, and its wake-ups, never arrive. What it had sent still does.
    pub fn crash(&mut self, node: NodeId) {
        *self.lives.entry(node).or_default() += 1;
    }

    /// Jump to the next happening; `None` when nothing is left.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would borrow the network that the loop body sends on"
    )]
    pub fn next(&mut self) -> Option<Happening<M>> {
        self.next_before(None)
    }

    /// Like [`Network::next`], but stops at `deadline`, at which the clock then stands.
    pub fn next_until(&mut self, deadline: Instant) -> Option<Happening<M>> {
        let happening = self.next_before(Some(deadline));
        if happening.is_none() {
            self.now = self.now.max(deadline);
        }
        happening
    }

    /// A hash over everything that happened: equal for equal seeds.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    fn next_before(&mut self, deadline: Option<Instant>) -> Option<Happening<M>> {
        while let Some(&Reverse((at, serial))) = self.queue.peek() {
            if deadline.is_some_and(|deadline| at > deadline) {
                return None;
            }
            self.queue.pop();
            let Some(entry) = self.entries.remove(&serial) else { continue };
            self.now = at;
            match entry {
                Entry::Message { from, to, to_life, message } if self.life(to) == to_life => {
                    (self.elapsed(), from, to, serial).hash(&mut self.trace);
                    return Some(Happening::Arrives { from, to, message });
                }
                Entry::Wake { node, life } if self.life(node) == life => {
                    (self.elapsed(), node, serial).hash(&mut self.trace);
                    return Some(Happening::Wakes { node });
                }
                Entry::Message { .. } | Entry::Wake { .. } => {}
            }
        }
        None
    }

    fn push(&mut self, at: Instant, entry: Entry<M>) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.entries.insert(self.serial, entry);
    }

    fn life(&self, node: NodeId) -> u64 {
        self.lives.get(&node).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64) -> (u64, usize) {
        let link = Link { loss: 0.3, duplicate: 0.3, delay: Duration::from_millis(1)..Duration::from_millis(50) };
        let mut network = Network::new(seed, link);
        for i in 0..100 {
            network.send(i % 3, (i + 1) % 3, i);
        }
        let mut arrived = 0;
        while network.next().is_some() {
            arrived += 1;
        }
        (network.trace_hash(), arrived)
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).0, run(2).0);
        assert!((60..130).contains(&run(1).1), "loss and doubling both happen");
    }

    #[test]
    fn a_crash_forgets_what_was_on_the_way_and_a_cut_is_one_way() {
        let mut network = Network::new(1, Link::perfect());
        network.send(0, 1, "lost in the crash");
        network.wake_at(1, network.now());
        network.crash(1);
        network.cut(0, 1);
        network.send(0, 1, "cut");
        network.send(1, 0, "other way");
        assert_eq!(network.next(), Some(Happening::Arrives { from: 1, to: 0, message: "other way" }));
        assert_eq!(network.next(), None);
    }

    #[test]
    fn the_clock_stands_at_the_deadline() {
        let mut network = Network::<()>::new(1, Link::perfect());
        network.wake_at(0, network.now() + Duration::from_secs(10));
        let deadline = network.now() + Duration::from_secs(3);
        assert_eq!(network.next_until(deadline), None);
        assert_eq!(network.elapsed(), Duration::from_secs(3));
        assert_eq!(network.next(), Some(Happening::Wakes { node: 0 }));
        assert_eq!(network.elapsed(), Duration::from_secs(10));
    }
}
