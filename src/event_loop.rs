//! The one task that owns the Swarm: it takes commands, network events and finished work, and never waits in a handler.
//!
//! # Layout
//! - [`directory`]: who is known, and what a person means by a name
//! - [`alive`]: probes, deaths, health checks, the exchange of cards
//! - [`standing`]: what is thought of others; [`doctor`]: what works and what does not
//! - [`chat`]: messages, receipts, the outbox, history
//! - [`everybody`]: broadcasts and numbered gossip
//! - [`peers`]: links, hellos, lookups, commands about people
//! - [`discovery`]: drives the two cores that pick seeds and peers to dial
//! - [`transfers`]: files, from the command to an offer and from an offer to the disk
//! - [`quota`]: how much others may put on the disk
//! - [`node`]: status, settings, own name, the end
//!
//! Work that waits (SQLite) goes to a worker and comes back as [`Done`], that of files as [`transfers::Worked`]; a command that has to wait for the network is
//! parked in [`EventLoop::parked`] with a deadline.

mod alive;
mod chat;
mod directory;
mod discovery;
mod doctor;
mod everybody;
mod node;
mod peers;
mod quota;
mod standing;
mod transfers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use jiff::Timestamp;
use libp2p::identity::Keypair;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use peer_exchange::LookupId;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::{ApiError, Command, ErrorCode, Event, Reply, Stamped, Via};
use crate::config::Config;
use crate::files::{Files, Restored};
use crate::handle::Asked;
use crate::network::dialer::{self, Dialer, Target};
use crate::network::seeds::{SeedId, Seeds};
use crate::network::{Behaviour, BehaviourEvent};
use crate::storage::Storage;
use directory::Directory;

pub(crate) use chat::Done;
pub(crate) use peers::sign_card;

/// Commands that wait for the network at the same time; one more is refused.
const MAX_PARKED: usize = 1_024;

/// How long a command waits for a peer to be looked up, dialled and heard.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way back to whoever gave a command.
type Answer = oneshot::Sender<Result<Reply, ApiError>>;

/// Why a connection is being dialled.
#[derive(Clone, Debug)]
enum Purpose {
    /// The dialler asked for it.
    Dialer(Target, Via),
    /// The seeds core asked for it.
    Seed(SeedId),
    /// A command named an address nobody is known at.
    Command(Multiaddr),
}

/// What a parked command waits for.
#[derive(Clone, Debug, PartialEq)]
enum Awaited {
    /// The answer to a lookup; then the command is tried once more.
    Lookup(LookupId),
    /// A link to that peer; then the command is tried once more.
    Link(PeerId),
    /// The answer of that peer to a probe.
    Probe(PeerId),
    /// The end of every link to that peer; then the command is tried once more.
    Gone(PeerId),
    /// A link at that address; once it stands, the command waits for the hello of whoever answers there.
    Address(Multiaddr),
}

/// A command that waits.
struct Parked {
    awaited: Awaited,
    deadline: Instant,
    command: Command,
    answer: Answer,
}

/// Everything a node holds while it runs.
pub(crate) struct EventLoop {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) storage: Storage<Done>,
    pub(crate) config: Config,
    pub(crate) key: Keypair,
    pub(crate) boot: u64,
    revision: u64,
    local: PeerId,
    commands: mpsc::Receiver<Asked>,
    done: mpsc::Receiver<Done>,
    events: broadcast::Sender<Stamped>,
    emitted: Arc<AtomicU64>,
    rng: StdRng,
    started: Instant,
    directory: Directory,
    seeds: Seeds,
    dialer: Dialer,
    dials: HashMap<ConnectionId, Purpose>,
    /// How the link to a peer came about, from the dial to the hello.
    vias: HashMap<PeerId, Via>,
    /// Seeds that were dialled, until their hello.
    seed_dials: HashMap<PeerId, SeedId>,
    /// Where the next page of a seed's list begins.
    cookies: HashMap<PeerId, rendezvous_client::Cookie>,
    parked: Vec<Parked>,
    /// Peers that a command has let go of, until their links are closed.
    dismissed: BTreeSet<PeerId>,
    /// Peers that have refused our hello, until their links are closed.
    refused: BTreeSet<PeerId>,
    /// Messages that wait, by receiver.
    waiting: BTreeMap<PeerId, usize>,
    in_flight: BTreeSet<direct_message::MessageId>,
    /// When the receivers of waiting messages are looked up again.
    next_chase: Instant,
    last_chased: Option<PeerId>,
    next_expiry: Instant,
    gossip: Vec<everybody::Gossip>,
    quota: quota::Quota,
    transfers: transfers::Transfers,
    rounds: alive::Rounds,
    /// Who is registered here, and until when (seeds only).
    registrations: BTreeMap<PeerId, Instant>,
    /// Registrations taken from each peer since the last sweep (seeds only).
    registering: BTreeMap<PeerId, u32>,
    faults: BTreeMap<String, u64>,
    /// Whether the user was told that others remember a later start of this identity.
    told_stale: bool,
    /// Set once the end has begun; then nothing new is taken.
    ending: Option<node::Ending>,
}

/// What [`EventLoop::new`] is made of.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) storage: Storage<Done>,
    pub(crate) opened: crate::storage::Opened,
    pub(crate) files: Files,
    /// The transfers of earlier runs.
    pub(crate) restored: Vec<Restored>,
    pub(crate) config: Config,
    pub(crate) key: Keypair,
    pub(crate) commands: mpsc::Receiver<Asked>,
    pub(crate) done: mpsc::Receiver<Done>,
    pub(crate) events: broadcast::Sender<Stamped>,
    pub(crate) emitted: Arc<AtomicU64>,
    /// Cryptographically secure, for message ids.
    pub(crate) rng: StdRng,
    pub(crate) rng_seed: u64,
}

impl EventLoop {
    /// A loop that is ready to [`run`](Self::run). Emits `ready` at once.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            swarm,
            storage,
            opened,
            files,
            restored,
            config,
            key,
            commands,
            done,
            events,
            emitted,
            rng,
            rng_seed,
        } = parts;
        let now = Instant::now();
        let (seeds, dialer) = discovery::cores(&config, &opened, rng_seed, now);
        let local = *swarm.local_peer_id();
        let mut this = Self {
            swarm,
            storage,
            config,
            key,
            boot: opened.boot,
            revision: 0,
            local,
            commands,
            done,
            events,
            emitted,
            rng,
            started: now,
            directory: Directory::default(),
            seeds,
            dialer,
            dials: HashMap::new(),
            vias: HashMap::new(),
            seed_dials: HashMap::new(),
            cookies: HashMap::new(),
            parked: Vec::new(),
            dismissed: BTreeSet::new(),
            refused: BTreeSet::new(),
            waiting: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            next_chase: now,
            last_chased: None,
            next_expiry: now,
            gossip: Vec::new(),
            quota: quota::Quota::new(now),
            transfers: transfers::Transfers::new(files),
            rounds: alive::Rounds::new(now),
            registrations: BTreeMap::new(),
            registering: BTreeMap::new(),
            faults: BTreeMap::new(),
            told_stale: false,
            ending: None,
        };
        this.remember(opened, now);
        this.emit_ready();
        this.restore_transfers(restored);
        this
    }

    /// Run until the node has said goodbye and everything is on disk.
    pub(crate) async fn run(mut self) {
        loop {
            self.drive(Instant::now());
            let wake = tokio::time::sleep_until(self.next_wake().into());
            tokio::select! {
                // What is already on disk is told before new work is taken.
                biased;
                Some(done) = self.done.recv() => self.handle_done(done),
                Some(worked) = self.transfers.work.next(), if !self.transfers.work.is_empty() => self.handle_worked(worked),
                event = self.swarm.select_next_some() => self.handle_swarm_event(event),
                Some((command, answer)) = self.commands.recv(), if self.takes_commands() => self.handle_command(command, answer),
                () = wake => self.handle_timeout(Instant::now()),
            }
            if self.ending.as_ref().is_some_and(|ending| ending.is_over(Instant::now())) {
                break;
            }
        }
        self.finish().await;
    }

    /// Everything is said; write what is left and answer whoever asked for the end.
    async fn finish(mut self) {
        for parked in std::mem::take(&mut self.parked) {
            peers::fail(parked.answer, ErrorCode::Stopping, "the node is stopping".to_owned());
        }
        self.stop_sends();
        // What is on disk by now is still shown; its receipts come too late, and the senders will ask again.
        while self.storage.pending() > 0
            && let Some(done) = self.done.recv().await
        {
            self.handle_done(done);
        }
        while let Ok(done) = self.done.try_recv() {
            self.handle_done(done);
        }
        while let Some(worked) = self.transfers.work.next().await {
            self.handle_worked(worked);
        }
        let answers = self.ending.take().map(node::Ending::into_answers).unwrap_or_default();
        let reason = if answers.is_empty() { "every front end is gone" } else { "quit" };
        self.storage.close();
        // Sent last, so that whoever reads it knows that everything is on disk.
        let event = Arc::new(Event::Bye { reason: reason.to_owned() });
        let n = self.emitted.fetch_add(1, Ordering::AcqRel) + 1;
        let _ = self.events.send(Stamped { n, at: Timestamp::now(), event });
        for answer in answers {
            let _ = answer.send(Ok(Reply::Done {}));
        }
    }

    /// Commands wait while the disk is behind.
    fn takes_commands(&self) -> bool {
        self.storage.has_room()
    }

    fn next_wake(&self) -> Instant {
        let parked = self.parked.iter().map(|parked| parked.deadline);
        let cores = [self.seeds.poll_timeout(), self.dialer.poll_timeout()].into_iter().flatten();
        let own = [self.next_expiry, self.rounds.next()]
            .into_iter()
            .chain((!self.waiting.is_empty()).then_some(self.next_chase))
            .chain(self.transfers.next());
        let ending = self.ending.as_ref().map(node::Ending::next);
        parked.chain(self.next_gossip()).chain(cores).chain(own).chain(ending).min().unwrap_or(self.next_expiry)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.discovery_timeout(now);
        self.say_goodbye_when_due(now);
        self.gossip_timeout(now);
        self.chat_timeout(now);
        self.alive_timeout(now);
        self.transfers_timeout(now);
        let (late, parked) = std::mem::take(&mut self.parked).into_iter().partition(|parked| parked.deadline <= now);
        self.parked = parked;
        let late: Vec<Parked> = late;
        for parked in late {
            if let Awaited::Link(peer) = parked.awaited
                && !self.waiting.contains_key(&peer)
                && !self.transfer_wants(&peer)
                && !self.parked.iter().any(|other| other.awaited == parked.awaited)
            {
                self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
            }
            let word = parked.command.peer().unwrap_or_default();
            let tried = matches!(parked.awaited, Awaited::Link(peer) if self.dialer.failures(&peer) > 0);
            let error = if tried {
                let why = "could not be reached; is it running, and is the address right?";
                ApiError::new(ErrorCode::Unreachable, format!("'{word}' {why}"))
            } else {
                ApiError::new(ErrorCode::Timeout, format!("'{word}' has not answered in {} s", PATIENCE.as_secs()))
            };
            let _ = parked.answer.send(Err(error));
        }
    }

    fn handle_command(&mut self, command: Command, answer: Answer) {
        if self.ending.is_some() && command != Command::Quit {
            let _ = answer.send(Err(ApiError::new(ErrorCode::Stopping, "the node is stopping")));
            return;
        }
        match command {
            Command::Broadcast { .. } | Command::GossipStart { .. } => self.broadcast_command(command, answer),
            Command::SendMessage { .. } | Command::History(_) | Command::Outbox | Command::MessageState { .. } => {
                self.chat_command(command, answer);
            }
            Command::Peers
            | Command::Blocked
            | Command::Whois { .. }
            | Command::Connect { .. }
            | Command::Disconnect { .. }
            | Command::Block { .. }
            | Command::Unblock { .. }
            | Command::Trust { .. } => self.peers_command(command, answer),
            Command::Liveness
            | Command::Exchange { .. }
            | Command::Ping { .. }
            | Command::Health { .. }
            | Command::Reconnect { .. } => self.alive_command(command, answer),
            Command::SendFiles(_)
            | Command::Accept { .. }
            | Command::Reject { .. }
            | Command::Receive
            | Command::ReceiveAuto { .. }
            | Command::Transfers { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Cancel { .. } => self.transfers_command(command, answer),
            Command::Why { .. } => self.why_command(command, answer),
            Command::Doctor => self.storage.free_room(|result| Done::Examined { answer, result }),
            Command::Nick { .. }
            | Command::Team { .. }
            | Command::Seeds
            | Command::Status
            | Command::Config
            | Command::ConfigGet { .. }
            | Command::ConfigSet { .. }
            | Command::Quit => self.node_command(command, answer),
        }
    }

    fn handle_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(event) => match event {
                BehaviourEvent::PeerExchange(event) => self.on_peer_exchange(event, now),
                BehaviourEvent::DirectMessage(event) => self.on_direct_message(event),
                BehaviourEvent::FileTransfer(event) => self.on_file_transfer(event, now),
                BehaviourEvent::Broadcast(event) => self.on_broadcast(event),
                BehaviourEvent::Rendezvous(event) => self.on_rendezvous(event, now),
                BehaviourEvent::RendezvousServer(event) => self.on_rendezvous_server(event, now),
                BehaviourEvent::Mdns(event) => self.on_mdns(event, now),
                BehaviourEvent::Ping(event) => self.on_ping(event),
                BehaviourEvent::Liveness(event) => self.on_liveness(event, now),
                BehaviourEvent::Reputation(event) => self.on_reputation(event),
                // Identify runs for foreign libp2p nodes and later needs; nothing here depends on it. The others say nothing.
                BehaviourEvent::Identify(_) | BehaviourEvent::Blocked(_) => {}
            },
            SwarmEvent::NewListenAddr { address, .. } => self.on_own_address(address, now),
            SwarmEvent::ExpiredListenAddr { .. } => self.tell_addresses(),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connection(peer_id, connection_id, &endpoint, now);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.on_connection_gone(peer_id, now),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error, now)
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!("a listener had trouble: {error}"),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                let message = format!("the node no longer listens on {addresses:?}: {error}");
                self.emit(Event::Error { code: ErrorCode::General, message });
            }
            _ => {}
        }
    }

    /// Tell every front end.
    fn emit(&self, event: Event) {
        // Nobody listening is no fault: a seed may run without any front end.
        let n = self.emitted.fetch_add(1, Ordering::AcqRel) + 1;
        let _ = self.events.send(Stamped { n, at: Timestamp::now(), event: Arc::new(event) });
    }
}

/// Milliseconds since the epoch on the wall clock.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A wall time as the front ends know it; what is out of range becomes the nearest that is not.
fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}
