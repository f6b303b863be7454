//! Our broadcasts beside stock gossipsub with signatures, in one process and in turns: `scripts/bench broadcast` runs it.
//!
//! ```text
//! cargo run --release -p broadcast --example bench [NODES [MESSAGES [A_SECOND [ROUNDS]]]]     100 100 10 5
//! ```
//!
//! A round is a network of its own: each node dials six others at random over memory, Noise and Yamux; when everybody
//! is in the mesh, nodes picked at random say 256 bytes each. A delivery is one message at one node that did not say
//! it. Latency is from the call that publishes to the event at the application; CPU is that of the whole process
//! between the first message and the last delivery, heartbeats and sync included.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and it measures time")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broadcast::{Config, Event, Kind};
use futures::StreamExt;
use libp2p::core::transport::{MemoryTransport, Transport};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::identity::Keypair;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, noise, yamux};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Others that each node dials.
const DIALS: usize = 6;

/// Bytes of text, the message's number in front.
const TEXT_BYTES: usize = 256;

/// Longest wait for stragglers behind the last message.
const PATIENCE: Duration = Duration::from_secs(20);

/// Addresses of nodes; none is used twice, since the links of an earlier round may still be closing.
static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(1);

/// One way to say something to everybody.
trait Way: NetworkBehaviour + Send + Sized {
    const NAME: &'static str;

    fn new(key: Keypair) -> Self;

    /// Say it to everybody.
    fn say(&mut self, text: String);

    /// How many others are on the topic, as far as it knows.
    fn neighbours(&self) -> usize;

    /// A link has come up.
    fn up(&mut self, peer: libp2p::PeerId);

    /// The text, if the event is one that was heard.
    fn heard(event: Self::ToSwarm) -> Option<String>;
}

impl Way for broadcast::Behaviour {
    const NAME: &'static str = "ours";

    fn new(key: Keypair) -> Self {
        // Any number that differs from node to node: it decides whose turn it is to be compared with.
        let seed =
            key.public().to_peer_id().to_bytes().iter().fold(0u64, |seed, &byte| seed.rotate_left(7) ^ u64::from(byte));
        Self::new(key, 1, Config::default(), seed).unwrap()
    }

    fn say(&mut self, text: String) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        self.publish(Kind::Text, text, "ada".to_owned(), "althing".to_owned(), now_ms).unwrap();
    }

    fn neighbours(&self) -> usize {
        self.subscribers()
    }

    fn up(&mut self, peer: libp2p::PeerId) {
        self.peer_up(peer);
    }

    fn heard(event: Event) -> Option<String> {
        match event {
            Event::Received { envelope, .. } => Some(envelope.text),
            Event::Gap { .. } | Event::Fault { .. } => None,
        }
    }
}

/// gossipsub as it comes: signed by it, and every copy verified by it.
impl Way for gossipsub::Behaviour {
    const NAME: &'static str = "stock";

    fn new(key: Keypair) -> Self {
        let mut stock = Self::new(MessageAuthenticity::Signed(key), gossipsub::Config::default()).unwrap();
        stock.subscribe(&IdentTopic::new("stock")).unwrap();
        stock
    }

    fn say(&mut self, text: String) {
        self.publish(IdentTopic::new("stock"), text.into_bytes()).unwrap();
    }

    fn neighbours(&self) -> usize {
        self.all_peers().filter(|(_, topics)| !topics.is_empty()).count()
    }

    fn up(&mut self, _peer: libp2p::PeerId) {}

    fn heard(event: gossipsub::Event) -> Option<String> {
        match event {
            gossipsub::Event::Message { message, .. } => String::from_utf8(message.data).ok(),
            _ => None,
        }
    }
}

/// What the task of a node is told.
enum Order {
    Dial(Vec<Multiaddr>),
    Say(usize),
}

/// What it tells: that it has enough neighbours, or that it has heard that message after so long.
enum News {
    Ready,
    Heard(usize, Duration),
}

/// When each message was said.
type Said = Arc<Vec<OnceLock<Instant>>>;

async fn live<W: Way>(
    mut swarm: Swarm<W>,
    mut orders: mpsc::Receiver<Order>,
    news: mpsc::UnboundedSender<News>,
    said: Said,
    neighbours: usize,
) {
    let mut ready = false;
    loop {
        if !ready && swarm.behaviour().neighbours() >= neighbours {
            ready = true;
            let _ = news.send(News::Ready);
        }
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Dial(addresses)) => addresses.into_iter().for_each(|address| swarm.dial(address).unwrap()),
                Some(Order::Say(number)) => {
                    said[number].set(Instant::now()).unwrap();
                    swarm.behaviour_mut().say(format!("{number:0>TEXT_BYTES$}"));
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(event) => if let Some(text) = W::heard(event) {
                    let number = text.parse().unwrap();
                    let _ = news.send(News::Heard(number, said[number].get().unwrap().elapsed()));
                },
                SwarmEvent::ConnectionEstablished { peer_id, .. } => swarm.behaviour_mut().up(peer_id),
                _ => {}
            },
            // Not every step towards the mesh is an event.
            () = tokio::time::sleep(Duration::from_millis(50)), if !ready => {}
        }
    }
}

struct Round {
    delivered: usize,
    twice: usize,
    latencies: Vec<Duration>,
    cpu_per_delivery: f64,
}

async fn round<W: Way>(nodes: usize, messages: usize, a_second: f64, seed: u64) -> Round {
    let mut rng = StdRng::seed_from_u64(seed);
    let said: Said = Arc::new((0..messages).map(|_| OnceLock::new()).collect());
    let (tell, mut news) = mpsc::unbounded_channel();
    let (mut tasks, mut orders, mut addresses) = (JoinSet::new(), Vec::new(), Vec::new());
    for _ in 0..nodes {
        let key = Keypair::generate_ed25519();
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3_600));
        let peer = key.public().to_peer_id();
        let mut swarm = Swarm::new(transport, W::new(key), peer, config);
        let address: Multiaddr = format!("/memory/{}", NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        swarm.listen_on(address.clone()).unwrap();
        addresses.push(address);
        let (order, next_order) = mpsc::channel(64);
        orders.push(order);
        tasks.spawn(live(swarm, next_order, tell.clone(), said.clone(), DIALS.min(nodes - 1)));
    }
    for (place, order) in orders.iter().enumerate() {
        let others = rand::seq::index::sample(&mut rng, nodes - 1, DIALS.min(nodes - 1));
        let others = others.into_iter().map(|other| if other < place { other } else { other + 1 });
        order.send(Order::Dial(others.map(|other| addresses[other].clone()).collect())).await.unwrap();
    }
    let mut ready = 0;
    while ready < nodes {
        ready += usize::from(matches!(news.recv().await, Some(News::Ready)));
    }
    // Three heartbeats, in which the mesh is made.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let wanted = messages * (nodes - 1);
    let speakers: Vec<usize> = (0..messages).map(|_| rng.random_range(0..nodes)).collect();
    let cpu = cpu_seconds();
    let talk = tokio::spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_secs_f64(1.0 / a_second));
        for (number, speaker) in speakers.into_iter().enumerate() {
            clock.tick().await;
            orders[speaker].send(Order::Say(number)).await.unwrap();
        }
        orders
    });
    let (mut heard, mut latencies, mut twice) = (vec![0; messages], Vec::with_capacity(wanted), 0);
    let mut deadline = tokio::time::Instant::now() + Duration::from_secs_f64(messages as f64 / a_second) + PATIENCE;
    while let Ok(Some(news)) = tokio::time::timeout_at(deadline, news.recv()).await {
        let News::Heard(number, latency) = news else { continue };
        heard[number] += 1;
        twice += usize::from(heard[number] >= nodes);
        latencies.push(latency);
        if latencies.len() == wanted {
            // What comes now comes twice.
            deadline = tokio::time::Instant::now() + Duration::from_millis(200);
        }
    }
    let cpu_per_delivery = (cpu_seconds() - cpu) * 1e6 / latencies.len() as f64;
    drop(talk.await.unwrap());
    tasks.shutdown().await;
    latencies.sort();
    let delivered = latencies.len() - twice;
    Round { delivered, twice, latencies, cpu_per_delivery }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In ticks, a hundred a second on every Linux.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// All rounds of one way.
#[derive(Default)]
struct Rounds {
    delivered: usize,
    twice: usize,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, round: Round) {
        let last = round.latencies.len() - 1;
        let at = |share: f64| round.latencies[(last as f64 * share) as usize].as_secs_f64() * 1e3;
        self.delivered += round.delivered;
        self.twice += round.twice;
        self.cpu.push(round.cpu_per_delivery);
        self.p50.push(at(0.5));
        self.p99.push(at(0.99));
        self.max.push(at(1.0));
    }

    fn print(&self, name: &str, wanted: usize) {
        println!("{name}: {} of {wanted} delivered, {} twice", self.delivered, self.twice);
        println!("  latency p50 {} ms, p99 {} ms, max {} ms", of(&self.p50), of(&self.p99), of(&self.max));
        println!("  CPU {} µs a delivery, n = {}", of(&self.cpu), self.cpu.len());
    }
}

/// Median, least and most.
fn of(values: &[f64]) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    format!("{:.1} [{:.1}–{:.1}]", values[values.len() / 2], values[0], values[values.len() - 1])
}

#[tokio::main]
async fn main() {
    let numbers: Vec<f64> = std::env::args().skip(1).map(|number| number.parse().unwrap()).collect();
    let number = |place: usize, default: f64| numbers.get(place).copied().unwrap_or(default);
    let (nodes, messages) = (number(0, 100.0) as usize, number(1, 100.0) as usize);
    let (a_second, rounds) = (number(2, 10.0), number(3, 5.0) as usize);
    let (mut ours, mut stock) = (Rounds::default(), Rounds::default());
    for seed in 0..rounds as u64 {
        ours.add(round::<broadcast::Behaviour>(nodes, messages, a_second, seed).await);
        stock.add(round::<gossipsub::Behaviour>(nodes, messages, a_second, seed).await);
    }
    let wanted = rounds * messages * (nodes - 1);
    println!("{nodes} nodes in one process, {messages} messages at {a_second} a second, {rounds} rounds each in turns");
    ours.print(<broadcast::Behaviour as Way>::NAME, wanted);
    stock.print(<gossipsub::Behaviour as Way>::NAME, wanted);
}
