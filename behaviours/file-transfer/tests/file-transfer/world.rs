//! A sender and a receiver on a network that loses, doubles, delays and reorders everything, chunks included; with disks
//! that survive crashes. The contents of a chunk are modelled by its hash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use file_transfer::hash;
use file_transfer::manifest::Chunk;
use file_transfer::protocol::{Frame, Refusal, Request};
use file_transfer::receiver::{self, Ending, GetId, Receiver};
use file_transfer::sender::{self, Sender, ServeId};
use file_transfer::{
    Config, Entry, FaultKind, Hash, Manifest, Offer, Plan, Reason, Record, State, StoreError, TransferId,
};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use rand::Rng as _;
use simulator::{Happening, Link, Network};

pub(crate) const SENDER: usize = 0;
pub(crate) const RECEIVER: usize = 1;
/// Wakes the harness for links that come back.
const HARNESS: usize = 9;
pub(crate) const ID: TransferId = TransferId([7; 16]);

pub(crate) fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

pub(crate) fn peer(number: u8) -> PeerId {
    key(number).public().to_peer_id()
}

#[derive(Clone)]
pub(crate) enum Packet {
    Control { link: u64, frame: Frame },
    Request { link: u64, get: GetId, request: Request },
    Answer { link: u64, get: GetId, hashes: Vec<(Hash, Hash)>, whole: bool },
    Refusal { link: u64, get: GetId, refusal: Refusal },
}

/// What both ends have on disk.
#[derive(Default)]
pub(crate) struct Disk {
    offer: Option<Offer>,
    pub(crate) record: Option<Record>,
    pub(crate) verified: BTreeMap<u64, Hash>,
    pub(crate) finished: bool,
    pub(crate) discarded: bool,
}

pub(crate) struct World {
    pub(crate) network: Network<Packet>,
    pub(crate) config: Config,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) disks: [Disk; 2],
    /// The number of the link that stands, if one does; what was sent on an earlier one never arrives.
    link: Option<u64>,
    links: u64,
    asked: BTreeMap<GetId, (Request, Instant)>,
    serving: BTreeMap<ServeId, GetId>,
    next_serve: u64,
    pub(crate) corrupt: f64,
    pub(crate) stall: f64,
    pub(crate) full: f64,
    /// The contents change when so many chunks were served.
    pub(crate) change_after: Option<u64>,
    pub(crate) served: u64,
    pub(crate) faults: Vec<(usize, FaultKind)>,
    pub(crate) auto_accept: bool,
    pub(crate) states: [Vec<(State, Option<Reason>)>; 2],
    pub(crate) steps: u64,
    woken: BTreeSet<(usize, Instant)>,
    pub(crate) seed: u64,
}

pub(crate) fn config() -> Config {
    Config { max_bad_chunks: 1000, ..Config::default() }
}

pub(crate) fn manifest() -> Manifest {
    let sizes = [0, 1, 700_000, 1 << 20, (3 << 20) + 5, 40 << 20, 12, 0, 2 << 20];
    let names: Vec<_> = (0..sizes.len()).map(|at| format!("file {at}")).collect();
    let entries = names.iter().zip(sizes).map(|(name, size)| Entry::file(&["folder", name], size));
    Manifest::new("folder".into(), entries.collect()).unwrap()
}

fn content(version: u64, index: u64) -> Hash {
    Hash::of(format!("{version} {index}").as_bytes())
}

impl World {
    pub(crate) fn new(seed: u64, link: Link, config: Config) -> Self {
        Self {
            network: Network::new(seed, link),
            sender: Sender::new(config.clone(), key(1)),
            receiver: Receiver::new(config.clone(), seed),
            config,
            disks: [Disk::default(), Disk::default()],
            link: None,
            links: 0,
            asked: BTreeMap::new(),
            serving: BTreeMap::new(),
            next_serve: 0,
            corrupt: 0.0,
            stall: 0.0,
            full: 0.0,
            change_after: None,
            served: 0,
            faults: Vec::new(),
            auto_accept: true,
            states: [Vec::new(), Vec::new()],
            steps: 0,
            woken: BTreeSet::new(),
            seed,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.network.now()
    }

    pub(crate) fn offer(&mut self) {
        let offer = Offer::sign(&key(1), ID, manifest(), 1).unwrap();
        let now = self.now();
        assert!(self.sender.offer(offer, &[peer(2)], Plan::NORMAL, now));
        self.drain();
    }

    pub(crate) fn connect(&mut self) {
        self.links += 1;
        self.link = Some(self.links);
        let now = self.now();
        self.sender.handle_input(sender::Input::PeerUp { peer: peer(2) }, now);
        self.receiver.handle_input(receiver::Input::PeerUp { peer: peer(1) }, now);
        self.drain();
    }

    pub(crate) fn disconnect(&mut self) {
        if self.link.take().is_none() {
            return;
        }
        let now = self.now();
        self.serving.clear();
        self.asked.clear();
        self.sender.handle_input(sender::Input::PeerDown { peer: peer(2) }, now);
        self.receiver.handle_input(receiver::Input::PeerDown { peer: peer(1) }, now);
        self.drain();
    }

    /// `kill -9` and a restart from what is on disk.
    pub(crate) fn crash(&mut self, node: usize) {
        self.disconnect();
        self.network.crash(node);
        self.woken.retain(|(of, _)| *of != node);
        let now = self.now();
        let disk = &self.disks[node];
        let verified: Vec<_> = disk.verified.iter().map(|(index, hash)| (*index, *hash)).collect();
        if node == SENDER {
            self.sender = Sender::new(self.config.clone(), key(1));
            if let (Some(offer), Some(record)) = (&disk.offer, &disk.record) {
                assert!(self.sender.restore(offer.clone(), vec![record.clone()], &verified));
            }
        } else {
            self.seed += 1;
            self.receiver = Receiver::new(self.config.clone(), self.seed);
            if let (Some(offer), Some(record)) = (&disk.offer, &disk.record) {
                assert!(self.receiver.restore(offer.clone(), record.clone(), &verified, now));
            }
        }
        self.drain();
    }

    /// Reconnect after a while.
    pub(crate) fn reconnect_later(&mut self) {
        let at = self.now() + Duration::from_millis(200);
        self.network.wake_at(HARNESS, at);
    }

    /// Carry out the next thing; `false` when nothing will ever happen again.
    pub(crate) fn step(&mut self) -> bool {
        self.drain();
        self.set_timers();
        let Some(happening) = self.network.next() else { return false };
        self.steps += 1;
        let now = self.now();
        match happening {
            Happening::Wakes { node: SENDER } => {
                self.woken.retain(|(node, at)| *node != SENDER || *at > now);
                self.sender.handle_timeout(now);
            }
            Happening::Wakes { node: RECEIVER } => {
                self.woken.retain(|(node, at)| *node != RECEIVER || *at > now);
                self.receiver.handle_timeout(now);
                let late = self.asked.iter().filter(|(_, (_, at))| *at <= now).map(|(get, _)| *get);
                for get in late.collect::<Vec<_>>() {
                    self.ended(get, Ending::Stalled);
                }
            }
            Happening::Wakes { .. } => {
                if self.link.is_none() {
                    self.connect();
                }
            }
            Happening::Arrives { to, message, .. } => self.arrives(to, message),
        }
        self.drain();
        true
    }

    fn set_timers(&mut self) {
        let stalls = self.asked.values().map(|(_, at)| *at).min();
        let receiver = self.receiver.poll_timeout().into_iter().chain(stalls).min();
        for (node, at) in [(SENDER, self.sender.poll_timeout()), (RECEIVER, receiver)] {
            if let Some(at) = at
                && self.woken.insert((node, at))
            {
                self.network.wake_at(node, at);
            }
        }
    }

    fn arrives(&mut self, to: usize, packet: Packet) {
        let now = self.now();
        match packet {
            Packet::Control { link, frame } if self.link == Some(link) => match to {
                SENDER => self.sender.handle_input(sender::Input::Frame { peer: peer(2), frame }, now),
                _ => self.receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame }, now),
            },
            Packet::Request { link, get, request } if self.link == Some(link) => {
                self.next_serve += 1;
                let serve = ServeId(self.next_serve);
                self.serving.insert(serve, get);
                self.sender.handle_input(sender::Input::Requested { peer: peer(2), serve, request }, now);
            }
            Packet::Refusal { link, get, refusal } if self.link == Some(link) => {
                self.ended(get, Ending::Refused(refusal));
            }
            Packet::Answer { link, get, hashes, whole } if self.link == Some(link) => {
                self.answered(get, &hashes, whole);
            }
            _ => {}
        }
    }

    /// What the data path does: verify, have the disk remember, tell.
    fn answered(&mut self, get: GetId, hashes: &[(Hash, Hash)], whole: bool) {
        let Some((request, _)) = self.asked.get(&get).copied() else { return };
        let now = self.now();
        let bytes = manifest().length_of(request.first..request.first + hashes.len() as u64);
        self.receiver.handle_input(receiver::Input::Moved { get, bytes, waited: None }, now);
        if self.network.rng().random_bool(self.full) {
            return self.ended(get, Ending::Disk(StoreError::Full));
        }
        let right = hashes.iter().take_while(|(actual, said)| actual == said).map(|(actual, _)| *actual);
        let right: Vec<_> = right.collect();
        for (index, hash) in (request.first..).zip(&right) {
            self.disks[RECEIVER].verified.insert(index, *hash);
        }
        if !right.is_empty() {
            let input = receiver::Input::Verified { get, first: request.first, hashes: right.clone() };
            self.receiver.handle_input(input, now);
        }
        let corrupt = (right.len() < hashes.len()).then_some(request.first + right.len() as u64);
        let ending = match (corrupt, whole) {
            (Some(index), _) => Ending::Corrupt(index),
            (None, true) => Ending::Complete,
            (None, false) => Ending::Broken,
        };
        self.ended(get, ending);
    }

    fn ended(&mut self, get: GetId, ending: Ending) {
        let now = self.now();
        if self.asked.remove(&get).is_some() {
            self.receiver.handle_input(receiver::Input::Ended { get, ending }, now);
        }
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.sender.poll_output() {
            self.for_sender(output);
        }
        while let Some(output) = self.receiver.poll_output() {
            self.for_receiver(output);
            // Nothing that is not on the disk is ever counted.
            let verified = &self.disks[RECEIVER].verified;
            let now = self.now();
            for snapshot in self.receiver.transfers(now) {
                assert!(snapshot.chunks <= verified.len() as u64, "an unverified chunk is counted");
                assert!(snapshot.bytes <= snapshot.total);
            }
        }
        if self.receiver_has_more() {
            self.drain();
        }
    }

    fn receiver_has_more(&mut self) -> bool {
        match (self.sender.poll_output(), self.receiver.poll_output()) {
            (None, None) => false,
            (sender, receiver) => {
                sender.into_iter().for_each(|output| self.for_sender(output));
                receiver.into_iter().for_each(|output| self.for_receiver(output));
                true
            }
        }
    }

    fn send(&mut self, from: usize, packet: impl FnOnce(u64) -> Packet) {
        if let Some(link) = self.link {
            self.network.send(from, 1 - from, packet(link));
        }
    }

    fn for_sender(&mut self, output: sender::Output) {
        let now = self.now();
        match output {
            sender::Output::Send { frame, .. } => self.send(SENDER, |link| Packet::Control { link, frame }),
            sender::Output::Serve { serve, id, chunks } => self.serve(serve, id, &chunks),
            sender::Output::Refuse { serve, refusal } => {
                if let Some(get) = self.serving.remove(&serve) {
                    self.send(SENDER, |link| Packet::Refusal { link, get, refusal });
                }
            }
            sender::Output::Stop { serve } => {
                self.serving.remove(&serve);
            }
            sender::Output::Hash { id, chunk } => {
                let hashes = vec![self.content(chunk.index)];
                self.disks[SENDER].verified.insert(chunk.index, hashes[0]);
                self.sender.handle_input(sender::Input::Hashed { id, first: chunk.index, hashes }, now);
            }
            sender::Output::Discard { .. } => self.disks[SENDER].discarded = true,
            sender::Output::Keep(offer) => self.disks[SENDER].offer = Some(offer),
            sender::Output::Save(record) => self.save(SENDER, record),
            sender::Output::Update(snapshot) => self.states[SENDER].push((snapshot.state, snapshot.reason)),
            sender::Output::Forgotten { .. } => panic!("there is one transfer"),
            sender::Output::Fault { kind, .. } => self.faults.push((SENDER, kind)),
        }
    }

    fn content(&self, index: u64) -> Hash {
        content(u64::from(self.change_after.is_some_and(|after| self.served > after)), index)
    }

    fn serve(&mut self, serve: ServeId, id: TransferId, chunks: &[Chunk]) {
        let Some(get) = self.serving.remove(&serve) else { return };
        let now = self.now();
        let first = chunks[0].index;
        let mut hashes = Vec::new();
        for chunk in chunks {
            self.served += 1;
            hashes.push(self.content(chunk.index));
        }
        let (corrupt, stall) = (self.corrupt, self.stall);
        let mut sent: Vec<_> = hashes.iter().map(|hash| (*hash, *hash)).collect();
        if self.network.rng().random_bool(corrupt) {
            let at = self.network.rng().random_range(0..sent.len());
            sent[at].0 = Hash::of(b"rubbish");
        }
        let whole = !self.network.rng().random_bool(stall);
        if !whole {
            let left = self.network.rng().random_range(0..sent.len());
            sent.truncate(left);
        }
        self.disks[SENDER].verified.extend((first..).zip(hashes.iter().copied()));
        self.send(SENDER, |link| Packet::Answer { link, get, hashes: sent, whole });
        self.sender.handle_input(sender::Input::Hashed { id, first, hashes }, now);
        self.sender.handle_input(sender::Input::Served { serve, error: None }, now);
    }

    fn for_receiver(&mut self, output: receiver::Output) {
        let now = self.now();
        match output {
            receiver::Output::Send { frame, .. } => self.send(RECEIVER, |link| Packet::Control { link, frame }),
            receiver::Output::Get { get, offer, first, count, .. } => {
                let request = Request { transfer: offer.id(), first, count };
                let again = (first..first + u64::from(count)).find(|at| self.disks[RECEIVER].verified.contains_key(at));
                assert_eq!(again, None, "what is verified is not asked for again");
                self.asked.insert(get, (request, now + self.config.stall_timeout));
                self.send(RECEIVER, |link| Packet::Request { link, get, request });
            }
            receiver::Output::Abort { get } => {
                self.asked.remove(&get);
            }
            receiver::Output::Finish { id, root } => {
                let hashes: Vec<_> = self.disks[RECEIVER].verified.values().copied().collect();
                assert_eq!(hashes.len() as u64, manifest().chunks(), "nothing is finished before it is whole");
                assert_eq!(root, hash::root(&manifest(), &hashes));
                let full = self.full > 0.0 && self.network.rng().random_bool(self.full);
                let result = if full { Err(StoreError::Full) } else { Ok("downloads/folder".into()) };
                self.disks[RECEIVER].finished |= result.is_ok();
                self.receiver.handle_input(receiver::Input::Finished { id, result }, now);
            }
            receiver::Output::Discard { .. } => self.disks[RECEIVER].discarded = true,
            receiver::Output::Offered(offer) => {
                if self.auto_accept {
                    self.receiver.accept(offer.id(), now).unwrap();
                }
            }
            receiver::Output::Keep(offer) => self.disks[RECEIVER].offer = Some(offer),
            receiver::Output::Save(record) => self.save(RECEIVER, record),
            receiver::Output::Update(snapshot) => self.states[RECEIVER].push((snapshot.state, snapshot.reason)),
            receiver::Output::Forgotten { .. } => panic!("there is one transfer"),
            receiver::Output::Fault { kind, .. } => self.faults.push((RECEIVER, kind)),
        }
    }

    fn save(&mut self, node: usize, record: Record) {
        let record = Record::decode(&record.encode()).unwrap();
        let was_final = self.disks[node].record.as_ref().is_some_and(|record| record.state.is_final());
        assert!(!was_final, "what is over stays as it is");
        self.disks[node].record = Some(record);
    }

    pub(crate) fn state(&self, node: usize) -> (State, Option<Reason>) {
        let now = self.now();
        let all = if node == SENDER { self.sender.transfers(now) } else { self.receiver.transfers(now) };
        all.first().map_or((State::Offered, None), |snapshot| (snapshot.state, snapshot.reason))
    }

    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let limit = self.now() + Duration::from_secs(24 * 3600);
        while !done(self) {
            assert!(self.step(), "nothing happens any more: {:?} {:?}", self.state(SENDER), self.state(RECEIVER));
            assert!(self.now() < limit, "it takes for ever: {:?} {:?}", self.state(SENDER), self.state(RECEIVER));
            assert!(self.steps < 200_000, "it spins");
        }
    }

    pub(crate) fn is_completed(&self) -> bool {
        [SENDER, RECEIVER].into_iter().all(|node| self.state(node).0 == State::Completed)
    }
}
