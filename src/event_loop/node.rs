//! Status, settings, the own name, and the end.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use libp2p::multiaddr::Protocol;

use super::discovery::seed_state;
use super::{Answer, Done, EventLoop};
use crate::api::{ApiError, Command, ErrorCode, Event, Reply, SeedInfo, Setting, StatusInfo};
use crate::network::behaviour::NAMESPACE;
use crate::network::{dialer, seeds};
use crate::storage;

/// How long the end may take at most: goodbyes are sent, then the node stops whether or not everybody has read them.
const END: Duration = Duration::from_secs(2);

/// How long the last receipts, and the registrations that are taken back, have to get out. Nobody answers those, and a
/// goodbye on their heels would close the links before they are read.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The end has begun.
pub(super) struct Ending {
    deadline: Instant,
    /// When goodbye is said; nothing once it is.
    goodbye_at: Option<Instant>,
    quiet: bool,
    answers: Vec<Answer>,
}

impl Ending {
    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.goodbye_at.unwrap_or(self.deadline)
    }

    /// Who asked for the end.
    pub(super) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.quiet || now >= self.deadline
    }
}

impl EventLoop {
    pub(super) fn emit_ready(&self) {
        self.emit(Event::Ready {
            peer_id: self.local.to_base58(),
            name: self.config.name.clone(),
            team: self.config.team.clone(),
            role: self.config.role,
            data_dir: self.config.paths.data_dir.display().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
    }

    pub(super) fn node_command(&mut self, command: Command, answer: Answer) {
        let reply = match command {
            Command::Nick { name } => self.set("name", &name),
            Command::Team { team } => self.set("team", &team),
            Command::ConfigSet { key, value } => self.set(&key, &value),
            Command::ConfigGet { key } => self.config.get(&key).map(Reply::Setting),
            Command::Config => Ok(Reply::Settings(self.config.settings())),
            Command::Seeds => Ok(Reply::Seeds(self.seed_infos())),
            Command::Status => return self.storage.counts(|result| Done::Counted { answer, result }),
            Command::Quit => return self.begin_end(answer),
            _ => Err(ApiError::new(ErrorCode::General, "not a command about the node")),
        };
        let _ = answer.send(reply);
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<Reply, ApiError> {
        let setting: Setting = self.config.set(key, value)?;
        match key {
            "name" | "team" => self.renew_card(),
            "liveness-interval" => self.swarm.behaviour_mut().liveness.set_interval(self.config.liveness_interval),
            "liveness-misses" => self.swarm.behaviour_mut().liveness.set_misses(self.config.liveness_misses),
            "health-check-interval" | "gossip-interval" => self.hurry_rounds(Instant::now()),
            "upload-limit" | "download-limit" => {
                let (upload, download) = (self.config.upload_limit, self.config.download_limit);
                self.swarm.behaviour_mut().file_transfer.set_limits(upload, download);
            }
            "fanout" => self.dialer.handle_input(dialer::Input::Fanout(self.config.fanout), Instant::now()),
            _ => {}
        }
        Ok(Reply::Setting(setting))
    }

    fn seed_infos(&self) -> Vec<SeedInfo> {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let in_wall_time = |at: Instant| {
            let left = SignedDuration::try_from(at.saturating_duration_since(now)).unwrap_or_default();
            wall.checked_add(left).unwrap_or(wall)
        };
        let infos = self.config.seeds.iter().zip(self.seeds.view()).map(|(configured, view)| SeedInfo {
            address: configured.text.clone(),
            peer_id: view.peer.or(configured.peer).map(|peer| peer.to_base58()),
            state: view.state.map(seed_state),
            peers: view.peers,
            expires_at: view.expires.map(in_wall_time),
        });
        infos.collect()
    }

    pub(super) fn status(&self, counts: storage::Counts) -> StatusInfo {
        let exchange = &self.swarm.behaviour().peer_exchange;
        let whole = |address: &libp2p::Multiaddr| address.clone().with(Protocol::P2p(self.local)).to_string();
        StatusInfo {
            peer_id: self.local.to_base58(),
            name: self.config.name.clone(),
            team: self.config.team.clone(),
            role: self.config.role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot,
            data_dir: self.config.paths.data_dir.display().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            addresses: self.swarm.listeners().map(whole).collect(),
            peers_up: exchange.up().count(),
            peers_known: self.directory.len(),
            links: exchange.links(),
            seeds_registered: self.seeds.registered(),
            seeds_wanted: self.seeds.wanted(),
            registrations: self.swarm.behaviour().rendezvous_server.is_enabled().then(|| self.listed()),
            outbox: counts.outbox,
            history: counts.history,
            faults: self.faults.iter().map(|(kind, count)| (kind.clone(), *count)).collect(),
            panics: crate::panics::so_far() + self.storage.panics(),
        }
    }

    /// Take the registrations back, say goodbye, and stop when that is out.
    fn begin_end(&mut self, answer: Answer) {
        if let Some(ending) = &mut self.ending {
            ending.answers.push(answer);
            return;
        }
        let registered: Vec<_> = self
            .seeds
            .view()
            .filter(|view| view.state == Some(seeds::State::Registered))
            .filter_map(|view| view.peer)
            .collect();
        self.save_standings();
        let now = Instant::now();
        let alone = self.swarm.behaviour().peer_exchange.links() == 0;
        let goodbye_at = if alone { now } else { now + LAST_WORDS };
        for peer in registered {
            self.swarm.behaviour_mut().rendezvous.unregister(NAMESPACE, peer);
        }
        self.ending =
            Some(Ending { deadline: now + END, goodbye_at: Some(goodbye_at), quiet: false, answers: vec![answer] });
        self.say_goodbye_when_due(now);
    }

    pub(super) fn say_goodbye_when_due(&mut self, now: Instant) {
        let due = |ending: &mut Ending| ending.goodbye_at.take_if(|at| *at <= now).is_some();
        if self.ending.as_mut().is_some_and(due)
            && let Some(goodbye) = self.goodbye()
        {
            self.swarm.behaviour_mut().peer_exchange.shutdown(goodbye);
        }
    }

    pub(super) fn on_quiet(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.quiet = true;
        }
    }
}
