use std::sync::Arc;
use std::time::Duration;

use file_transfer::{
    Behaviour, CHUNK, Config, Direction, Entry, Error, Event, FaultKind, Hash, Manifest, Offer, PIECE, Plan, Reason,
    Record, Snapshot, State, TransferId,
};
use futures::StreamExt as _;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, tcp, yamux};
use libp2p_swarm_test::SwarmExt as _;

use crate::store::{MemoryStore, Trouble};
use crate::world::key;

const ID: TransferId = TransferId([3; 16]);

/// A node with its disk; what it was told to keep survives a restart.
struct Node {
    key: Keypair,
    swarm: Swarm<Behaviour>,
    address: Multiaddr,
    store: MemoryStore,
    config: Config,
    events: Vec<Event>,
    offer: Option<Offer>,
    record: Option<Record>,
    auto: bool,
    /// Dial and close bulk connections as asked.
    bulk: bool,
    primary: Option<ConnectionId>,
    open: Vec<ConnectionId>,
}

fn config() -> Config {
    Config {
        progress_interval: Duration::from_millis(20),
        retry_initial: Duration::from_millis(20),
        bulk_idle: Duration::from_millis(100),
        bulk_threshold: 1,
        ..Config::default()
    }
}

fn swarm(key: &Keypair, behaviour: Behaviour) -> Swarm<Behaviour> {
    let transport = MemoryTransport::default()
        .or_transport(tcp::tokio::Transport::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap());
    let transport = transport.multiplex(yamux::Config::default()).boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

impl Node {
    async fn new(number: u8, config: Config) -> Self {
        let (key, store) = (key(number), MemoryStore::new());
        let behaviour = Behaviour::new(key.clone(), config.clone(), Arc::new(store.clone()), u64::from(number));
        let mut swarm = swarm(&key, behaviour);
        let address = swarm.listen().with_memory_addr_external().await.0;
        Self {
            key,
            swarm,
            address,
            store,
            config,
            events: Vec::new(),
            offer: None,
            record: None,
            auto: true,
            bulk: true,
            primary: None,
            open: Vec::new(),
        }
    }

    /// `kill -9` and a new start.
    async fn restart(self) -> Self {
        let Self { key, store, config, offer, record, swarm: old, .. } = self;
        drop(old);
        let mut behaviour = Behaviour::new(key.clone(), config.clone(), Arc::new(store.clone()), 77);
        if let (Some(offer), Some(record)) = (&offer, &record) {
            behaviour.restore(offer.clone(), vec![record.clone()], &store.verified()).unwrap();
            assert!(behaviour.restore(offer.clone(), vec![record.clone()], &[]) == Err(Error::Exists));
        }
        let mut swarm = swarm(&key, behaviour);
        let address = swarm.listen().with_memory_addr_external().await.0;
        let events = Vec::new();
        Self {
            key,
            swarm,
            address,
            store,
            config,
            events,
            offer,
            record,
            auto: true,
            bulk: true,
            primary: None,
            open: Vec::new(),
        }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn dial(&mut self, other: &Multiaddr, peer: PeerId) {
        let options = DialOpts::peer_id(peer).addresses(vec![other.clone()]);
        self.swarm.dial(options.condition(PeerCondition::Always).build()).unwrap();
    }

    async fn step(&mut self, others: &[(PeerId, Multiaddr)]) {
        let event = self.swarm.select_next_some().await;
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.primary.get_or_insert(connection_id);
                self.open.push(connection_id);
                self.swarm.behaviour_mut().peer_up(peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, connection_id, .. } => {
                self.open.retain(|open| *open != connection_id);
                if num_established == 0 {
                    self.primary = None;
                    self.swarm.behaviour_mut().peer_down(peer_id);
                }
            }
            SwarmEvent::Behaviour(event) => {
                match &event {
                    Event::Keep(offer) => self.offer = Some(offer.clone()),
                    Event::Save(record) => self.record = Record::decode(&record.encode()),
                    Event::Offered(offer) if self.auto => self.swarm.behaviour_mut().accept(offer.id()).unwrap(),
                    Event::WantBulk { peer } if self.bulk => {
                        let address = others.iter().find(|(id, _)| id == peer).unwrap().1.clone();
                        self.dial(&address, *peer);
                    }
                    Event::BulkIdle { connection, .. } => {
                        assert_ne!(Some(*connection), self.primary);
                        self.swarm.close_connection(*connection);
                    }
                    _ => {}
                }
                self.events.push(event);
            }
            _ => {}
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.swarm.behaviour().transfers().into_iter().next()
    }

    fn state(&self) -> Option<(State, Option<Reason>)> {
        self.snapshot().map(|snapshot| (snapshot.state, snapshot.reason))
    }

    fn faults(&self) -> Vec<FaultKind> {
        let fault = |event: &Event| if let Event::Fault { kind, .. } = event { Some(*kind) } else { None };
        self.events.iter().filter_map(fault).collect()
    }

    fn send(&mut self, to: PeerId, sizes: &[u64]) -> Manifest {
        let names: Vec<_> = (0..sizes.len()).map(|at| at.to_string()).collect();
        let entries = names.iter().zip(sizes).map(|(name, size)| Entry::file(&["folder", name], *size));
        let manifest = Manifest::new("folder".into(), entries.collect()).unwrap();
        self.store.put(ID, &manifest);
        self.swarm.behaviour_mut().offer(ID, manifest.clone(), &[to], Plan::NORMAL, 1).unwrap();
        manifest
    }
}

async fn run(a: &mut Node, b: &mut Node, until: impl Fn(&Node, &Node) -> bool) {
    let addresses = [(a.id(), a.address.clone()), (b.id(), b.address.clone())];
    let running = async {
        while !until(a, b) {
            let steps = [Box::pin(a.step(&addresses)), Box::pin(b.step(&addresses))];
            futures::future::select_all(steps).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), running).await.is_err() {
        panic!("{:?} {:?} {:?} {:?}", a.state(), a.faults(), b.state(), b.faults());
    }
}

async fn pair(config: Config) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1, config.clone()).await, Node::new(2, config).await);
    let (address, peer) = (b.address.clone(), b.id());
    a.dial(&address, peer);
    run(&mut a, &mut b, |a, b| a.primary.is_some() && b.primary.is_some()).await;
    (a, b)
}

fn both(state: State) -> impl Fn(&Node, &Node) -> bool {
    move |a, b| [a, b].iter().all(|node| node.state().is_some_and(|(is, _)| is == state))
}

/// What arrived is what was sent.
fn assert_whole(a: &Node, b: &Node, manifest: &Manifest) {
    for (file, entry) in manifest.entries().iter().enumerate().filter(|(_, entry)| entry.size > 0) {
        let read = |node: &Node| node.store.with(|inner| Hash::of(&inner.files[&(ID, file as u32)]));
        assert_eq!(read(a), read(b), "{:?}", entry.path);
    }
    assert_eq!(b.store.with(|inner| inner.finished.clone()), [ID]);
}

#[tokio::test]
async fn files_of_every_size_arrive_whole_over_a_link_of_their_own() {
    let (mut a, mut b) = pair(config()).await;
    let manifest = a.send(b.id(), &[0, 1, 1023, PIECE as u64 + 1, CHUNK, CHUNK + 1, 9 * CHUNK + 77]);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
    let (out, into) = (a.snapshot().unwrap(), b.snapshot().unwrap());
    assert_eq!((out.direction, into.direction), (Direction::Out, Direction::In));
    assert_eq!((out.bytes, into.bytes), (manifest.bytes(), manifest.bytes()));
    assert_eq!((out.chunks, into.chunks), (manifest.chunks(), manifest.chunks()));
    assert!(out.root.is_some() && out.root == into.root && into.path.is_some() && into.rtt.is_some());
    assert!(into.rate > 0.0 && into.active_for > Duration::ZERO);
    for node in [&a, &b] {
        assert!(node.faults().is_empty());
        assert!(node.store.with(|inner| inner.largest) <= PIECE, "memory is a piece for each span");
        assert_eq!(node.record.as_ref().map(|record| record.state), Some(State::Completed));
    }
    // The bulk link was wanted by the receiver alone, and is given back when it is idle.
    assert!(!a.events.iter().any(|event| matches!(event, Event::WantBulk { .. })));
    run(&mut a, &mut b, |a, b| {
        b.events.iter().any(|e| matches!(e, Event::BulkIdle { .. })) && a.open.len() == 1 && b.open.len() == 1
    })
    .await;
    assert_eq!(b.events.iter().filter(|event| matches!(event, Event::WantBulk { .. })).count(), 1);
    // The order of what the application hears.
    let order = |event: &Event| match event {
        Event::Keep(_) => Some('k'),
        Event::Offered(_) => Some('o'),
        Event::Save(_) => Some('s'),
        _ => None,
    };
    assert_eq!(b.events.iter().filter_map(order).collect::<String>(), "ksoss");
}

#[tokio::test]
async fn the_hash_of_a_single_file_is_that_of_its_bytes() {
    let (mut a, mut b) = pair(config()).await;
    a.send(b.id(), &[3 * CHUNK + 5]);
    run(&mut a, &mut b, both(State::Completed)).await;
    let bytes = a.store.with(|inner| Hash::of(&inner.files[&(ID, 0)]));
    assert_eq!(b.snapshot().unwrap().root, Some(bytes));
}

#[tokio::test]
async fn thousands_of_small_files_are_few_requests() {
    let (mut a, mut b) = pair(config()).await;
    let manifest = a.send(b.id(), &[100; 5_000]);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
    assert_eq!(a.store.with(|inner| inner.reads), 5_000);
}

#[tokio::test]
async fn a_list_of_many_pages_arrives() {
    let (mut a, mut b) = pair(config()).await;
    let names: Vec<_> = (0..6_000).map(|at| format!("{at:05}-{}", "n".repeat(100))).collect();
    let entries = names.iter().map(|name| Entry::file(&["folder", name], 0)).collect();
    let manifest = Manifest::new("folder".into(), entries).unwrap();
    let to = b.id();
    let offer = a.swarm.behaviour_mut().offer(ID, manifest, &[to], Plan::NORMAL, 1).unwrap();
    assert!(offer.pages().len() > 3, "{}", offer.pages().len());
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_eq!(b.offer, Some(offer));
}

#[tokio::test]
async fn a_receiver_killed_in_the_middle_goes_on_where_it_was() {
    let (mut a, mut b) = pair(config()).await;
    let manifest = a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |_, b| b.store.verified().len() >= 5).await;
    let before = b.store.verified().len();
    let mut b = b.restart().await;
    let (address, peer) = (b.address.clone(), b.id());
    run(&mut a, &mut b, |a, _| a.state() == Some((State::Paused, Some(Reason::NotConnected)))).await;
    assert_eq!(b.snapshot().unwrap().chunks, before as u64);
    a.dial(&address, peer);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
    let window = a.config.in_flight * 4 + 2;
    assert!(a.store.with(|inner| inner.reads) <= 24 + window, "at most a window is read again");
}

#[tokio::test]
async fn a_sender_killed_in_the_middle_goes_on_where_it_was() {
    let (mut a, mut b) = pair(config()).await;
    let manifest = a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |_, b| b.store.verified().len() >= 5).await;
    // What it had noted is partly lost: it is read again for the seal.
    a.store.with(|inner| inner.verified.retain(|index, _| index % 2 == 0));
    let mut a = a.restart().await;
    run(&mut a, &mut b, |_, b| b.state() == Some((State::Paused, Some(Reason::NotConnected)))).await;
    let (address, peer) = (b.address.clone(), b.id());
    a.dial(&address, peer);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
}

#[tokio::test]
async fn pause_resume_cancel_and_reject() {
    let slow = Config { upload_limit: Some(4 << 20), ..config() };
    let (mut a, mut b) = pair(slow).await;
    let manifest = a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |_, b| !b.store.verified().is_empty()).await;
    b.swarm.behaviour_mut().pause(ID, None).unwrap();
    run(&mut a, &mut b, |a, _| a.state() == Some((State::Paused, Some(Reason::Peer)))).await;
    assert_eq!(b.state(), Some((State::Paused, Some(Reason::Here))));
    a.swarm.behaviour_mut().pause(ID, None).unwrap();
    b.swarm.behaviour_mut().resume(ID, None).unwrap();
    run(&mut a, &mut b, |_, b| b.state() == Some((State::Paused, Some(Reason::Peer)))).await;
    // The limit is lifted while it waits.
    a.swarm.behaviour_mut().set_limits(None, None);
    a.swarm.behaviour_mut().resume(ID, None).unwrap();
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
    assert_eq!(b.swarm.behaviour_mut().cancel(ID, None), Err(Error::State(State::Completed)));
    assert_eq!(b.swarm.behaviour_mut().accept(TransferId([9; 16])), Err(Error::Unknown));

    for by_sender in [true, false] {
        let (mut a, mut b) = pair(Config { upload_limit: Some(1 << 20), ..config() }).await;
        a.send(b.id(), &[24 * CHUNK]);
        run(&mut a, &mut b, |_, b| b.snapshot().is_some_and(|snapshot| snapshot.rate > 0.0)).await;
        let node = if by_sender { &mut a } else { &mut b };
        node.swarm.behaviour_mut().cancel(ID, None).unwrap();
        run(&mut a, &mut b, both(State::Cancelled)).await;
        run(&mut a, &mut b, |_, b| b.store.with(|inner| inner.discarded.len() == 1)).await;
    }

    let (mut a, mut b) = pair(config()).await;
    b.auto = false;
    a.send(b.id(), &[5]);
    run(&mut a, &mut b, |_, b| b.events.iter().any(|event| matches!(event, Event::Offered(_)))).await;
    b.swarm.behaviour_mut().reject(ID).unwrap();
    run(&mut a, &mut b, both(State::Rejected)).await;
    assert!(b.store.with(|inner| inner.writes) == 0);
}

#[tokio::test]
async fn a_changed_source_fails_at_both_ends() {
    let (mut a, mut b) = pair(Config { upload_limit: Some(8 << 20), ..config() }).await;
    a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |_, b| !b.store.verified().is_empty()).await;
    a.store.set(Trouble::Changed);
    run(&mut a, &mut b, both(State::Failed)).await;
    assert_eq!(a.state(), Some((State::Failed, Some(Reason::Changed))));
    assert_eq!(b.state(), Some((State::Failed, Some(Reason::Changed))));
    assert!(b.store.with(|inner| inner.finished.is_empty()));
}

#[tokio::test]
async fn a_full_disk_pauses_and_goes_on_when_there_is_room() {
    let (mut a, mut b) = pair(config()).await;
    b.store.set(Trouble::Full);
    let manifest = a.send(b.id(), &[3 * CHUNK]);
    run(&mut a, &mut b, |a, _| a.state() == Some((State::Paused, Some(Reason::DiskFull)))).await;
    b.store.set(Trouble::Nothing);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert_whole(&a, &b, &manifest);
}

#[tokio::test]
async fn limits_of_either_end_hold() {
    for limited_sender in [true, false] {
        let rate = 2 << 20;
        let (upload, download) = if limited_sender { (Some(rate), None) } else { (None, Some(rate)) };
        let (mut a, mut b) = pair(config()).await;
        a.swarm.behaviour_mut().set_limits(upload, None);
        b.swarm.behaviour_mut().set_limits(None, download);
        let begun = std::time::Instant::now();
        a.send(b.id(), &[CHUNK]);
        run(&mut a, &mut b, both(State::Completed)).await;
        // A tenth of a second's worth is there at once.
        assert!(begun.elapsed() >= Duration::from_millis(380), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_is_a_stall_at_the_sender() {
    let (mut a, mut b) = pair(Config { stall_timeout: Duration::from_millis(300), ..config() }).await;
    b.store.set(Trouble::Hangs);
    a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |a, _| a.state() == Some((State::Paused, Some(Reason::Stalled)))).await;
}

#[tokio::test]
async fn spans_ride_the_bulk_link_and_come_again_when_it_breaks() {
    let (mut a, mut b) = pair(Config { upload_limit: Some(2 << 20), ..config() }).await;
    let manifest = a.send(b.id(), &[24 * CHUNK]);
    run(&mut a, &mut b, |a, b| a.open.len() == 2 && b.open.len() == 2).await;
    a.swarm.behaviour_mut().set_limits(Some(16 << 20), None);
    // What was asked for before is done, and what is in flight was asked for since.
    let begun = b.store.verified().len() + 5;
    run(&mut a, &mut b, move |_, b| b.store.verified().len() >= begun).await;
    assert_eq!(b.snapshot().unwrap().retries, 0);
    let bulk = b.open.iter().copied().find(|open| Some(*open) != b.primary).unwrap();
    b.bulk = false;
    b.swarm.close_connection(bulk);
    a.swarm.behaviour_mut().set_limits(None, None);
    run(&mut a, &mut b, both(State::Completed)).await;
    assert!(b.snapshot().unwrap().retries > 0, "something was in flight on it");
    assert_whole(&a, &b, &manifest);
}
