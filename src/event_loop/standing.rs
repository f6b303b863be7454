//! What is thought of others: feeds the two numbers with what this node saw itself, keeps them over restarts, and sends
//! away whoever has misbehaved too often.

use std::time::Instant;

use libp2p::PeerId;
use reputation::evidence::Subject;
use reputation::{Evidence, Number, Stored};

use super::directory::Entry;
use super::{Answer, Done, EventLoop, timestamp, wall_ms};
use crate::api::{Command, ErrorCode, Event, FactInfo, PeerState, Reply, WhyInfo};
use crate::network::dialer;

impl EventLoop {
    /// Take in what was seen of a peer, and let the dialler know what that makes of it.
    pub(super) fn saw(&mut self, peer: PeerId, evidence: Evidence, now: Instant) {
        // Death and a goodbye cost no standing: who is known to be away cannot be reached, and that is no failure.
        let away = |entry: &Entry| matches!(entry.state, PeerState::Dead | PeerState::Left);
        if matches!(evidence, Evidence::DialFailed | Evidence::ProbeMissed)
            && self.directory.get(&peer).is_some_and(away)
        {
            return;
        }
        let reputation = &mut self.swarm.behaviour_mut().reputation;
        reputation.saw(peer, evidence, wall_ms());
        if evidence.subject() == Subject::Dial {
            self.tell_dialer(peer, now);
        }
    }

    /// The dialler picks the ones that it is likely to reach.
    fn tell_dialer(&mut self, peer: PeerId, now: Instant) {
        let value = self.swarm.behaviour().reputation.reliability_of(&peer, Subject::Dial);
        self.dialer.handle_input(dialer::Input::Reliability { peer, value }, now);
    }

    /// gossipsub keeps a copy of the fault scores, which fade.
    pub(super) fn tell_scores(&mut self) {
        let linked: Vec<PeerId> = self.swarm.behaviour().peer_exchange.up().map(|(peer, _)| peer).collect();
        let behaviour = self.swarm.behaviour_mut();
        for peer in linked {
            behaviour.broadcast.set_score(peer, behaviour.reputation.app_score(&peer));
        }
    }

    /// Count what a peer did wrong. The reputation closes its links when it was one too many.
    pub(super) fn fault(&mut self, peer: PeerId, kind: &dyn std::fmt::Display) {
        let word = kind.to_string();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.reputation.fault(peer, &word, wall_ms());
        let score = behaviour.reputation.app_score(&peer);
        behaviour.broadcast.set_score(peer, score);
        let count = self.faults.entry(word).or_default();
        *count += 1;
        // The first of a kind is worth a line; a flood of them must not become a flood of log.
        if count.is_power_of_two() {
            tracing::info!(%peer, count = *count, "fault: {kind}");
        }
    }

    pub(super) fn on_reputation(&mut self, event: reputation::Event) {
        match event {
            reputation::Event::Cut { peer, until_ms, kind } => {
                let name = self.directory.shown(&peer);
                self.swarm.behaviour_mut().liveness.forget(peer);
                self.no_verdict(&peer);
                let message = format!(
                    "{name} misbehaved too often (last: {kind}) and is refused until {:.0}; `why {name}` says more",
                    timestamp(until_ms)
                );
                self.emit(Event::Error { code: ErrorCode::Refused, message });
            }
            reputation::Event::Readmitted { peer } => tracing::info!(%peer, "a peer may come back"),
            reputation::Event::Denied { refusal, count, limit, prefix } => {
                let range = prefix.map(|prefix| format!(" from {prefix}")).unwrap_or_default();
                tracing::info!(count, limit, "connections refused{range}: {refusal}");
            }
        }
    }

    /// Whether a peer is refused for what it did.
    pub(super) fn is_cut(&self, peer: &PeerId) -> bool {
        self.swarm.behaviour().reputation.is_cut(peer)
    }

    /// Store what has changed since the last time.
    pub(super) fn save_standings(&mut self) {
        let now_ms = wall_ms();
        let changed = self.swarm.behaviour_mut().reputation.take_changed(now_ms);
        if !changed.is_empty() {
            let rows = changed.into_iter().map(|(peer, stored)| (peer, stored.as_ref().map(Stored::encode))).collect();
            self.storage.save_standings(rows, now_ms, Done::Saved);
        }
    }

    /// What was stored at an earlier start.
    pub(super) fn restore_standings(&mut self, rows: Vec<(PeerId, Vec<u8>)>) {
        let stored = rows.into_iter().filter_map(|(peer, bytes)| {
            let decoded = Stored::decode(peer, &bytes);
            decoded.inspect_err(|error| tracing::warn!(%peer, "what was thought of a peer is lost: {error}")).ok()
        });
        let stored: Vec<Stored> = stored.collect();
        let peers: Vec<PeerId> = stored.iter().map(|stored| stored.peer).collect();
        self.swarm.behaviour_mut().reputation.restore(stored, wall_ms());
        let now = Instant::now();
        for peer in peers {
            self.tell_dialer(peer, now);
        }
    }

    pub(super) fn why_command(&mut self, command: Command, answer: Answer) {
        let Some((peer, _, answer)) = self.resolve(command, answer, true) else { return };
        let reputation = &self.swarm.behaviour().reputation;
        let refused_until = reputation.snapshot(&peer, wall_ms()).and_then(|stored| stored.cut_until_ms).map(timestamp);
        let facts = reputation.why(&peer).into_iter().rev().map(|fact| FactInfo {
            at: timestamp(fact.at_ms),
            since: timestamp(fact.since_ms),
            count: fact.count,
            what: fact.what,
            moved: match fact.number {
                Number::Reliability => "reliability".to_owned(),
                Number::Faults => "faults".to_owned(),
            },
            by: fact.effect,
        });
        let info = WhyInfo {
            peer: peer.to_base58(),
            name: self.directory.get(&peer).map(|entry| entry.name().to_owned()).unwrap_or_default(),
            reliability: reputation.reliability(&peer),
            faults: reputation.faults(&peer),
            limit: reputation::penalties::CUT_AT,
            refused_until,
            facts: facts.collect(),
        };
        let _ = answer.send(Ok(Reply::Why(Box::new(info))));
    }
}
