//! `doctor`: what works, what does not, and what to do about it, each in a line.

use crate::api::{Finding, PeerState, Role, Severity};
use crate::network::is_loopback;

use super::EventLoop;

/// Clocks that differ by more than this are worth a warning, in milliseconds.
const CLOCK_MS: i64 = 2_000;

/// Room on the disk below which the node warns, and below which it calls it an error, in bytes.
const LITTLE_ROOM: u64 = 1 << 30;
const NO_ROOM: u64 = 64 << 20;

/// So many are named in one finding.
const NAMED: usize = 8;

/// A limit that is used to more than four fifths is near.
const NEAR: (u64, u64) = (4, 5);

impl EventLoop {
    /// All findings, the worst first.
    pub(super) fn findings(&self, free: Option<u64>) -> Vec<Finding> {
        let mut findings = vec![self.about_addresses(), self.about_seeds(), self.about_peers()];
        findings.extend(self.about_the_absent());
        findings.push(self.about_clocks());
        findings.push(self.about_limits());
        findings.push(about_disk(free));
        findings.push(self.about_versions());
        findings.push(self.about_itself());
        // Stable: findings of one severity stay in this order.
        findings.sort_by_key(|found| found.severity);
        findings
    }

    fn about_addresses(&self) -> Finding {
        let all: Vec<_> = self.swarm.listeners().collect();
        let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if all.is_empty() {
            return error("addresses", "the node listens nowhere", "free a port, or start with another --listen");
        }
        if all.iter().all(|address| is_loopback(address)) {
            let advice = "start without --listen and --host to be reachable from other machines";
            return warning("addresses", &format!("only this machine can reach {list}"), advice);
        }
        ok("addresses", format!("listens on {list}"))
    }

    fn about_seeds(&self) -> Finding {
        let (held, wanted) = (self.seeds.registered(), self.seeds.wanted());
        match (self.config.role, self.config.seeds.is_empty()) {
            (Role::Seed, _) => ok("seeds", format!("this node is a seed; {} peers are registered", self.listed())),
            (Role::Peer, true) if self.config.mdns => ok("seeds", "none is configured; the LAN is searched".to_owned()),
            (Role::Peer, true) => warning(
                "seeds",
                "none is configured and LAN discovery is off",
                "start with --seed ADDRESS or --mdns on",
            ),
            (Role::Peer, false) if held == 0 => {
                error("seeds", "not one of them answers", "look at `seeds`: do they run, are the addresses right?")
            }
            (Role::Peer, false) if held < wanted => {
                let found = format!("{held} of {wanted} registrations stand");
                warning("seeds", &found, "look at `seeds` for those that do not answer")
            }
            (Role::Peer, false) => ok("seeds", format!("{held} of {wanted} registrations stand")),
        }
    }

    fn about_peers(&self) -> Finding {
        match self.swarm.behaviour().peer_exchange.up().count() {
            0 => warning(
                "peers",
                "there is no link to anybody",
                "`connect HOST:PORT` dials somebody; is anybody else running?",
            ),
            up => ok("peers", format!("{up} have a link")),
        }
    }

    fn about_the_absent(&self) -> Vec<Finding> {
        let of = |state| {
            let those = self.directory.iter().filter(|(_, entry)| entry.state == state && !self.is_silent(entry));
            those.map(|(peer, _)| *peer).collect::<Vec<_>>()
        };
        let mut findings = Vec::new();
        for (state, word) in [(PeerState::Dead, "dead"), (PeerState::Suspect, "suspect")] {
            let those = of(state);
            if !those.is_empty() {
                let advice = "is the machine on, is the network whole? `health PEER` tries now";
                let mut names: Vec<String> = those.iter().take(NAMED).map(|peer| self.directory.shown(peer)).collect();
                if those.len() > NAMED {
                    names.push(format!("and {} more", those.len() - NAMED));
                }
                findings.push(warning("liveness", &format!("{word}: {}", names.join(", ")), advice));
            }
        }
        findings
    }

    fn about_clocks(&self) -> Finding {
        let mut offsets: Vec<(i64, String)> = self
            .swarm
            .behaviour()
            .liveness
            .statuses()
            .into_iter()
            .filter_map(|status| {
                let offset = status.offset_ms?;
                (offset.abs() > CLOCK_MS).then(|| (offset, self.directory.shown(&status.peer)))
            })
            .collect();
        offsets.sort();
        let list: Vec<String> = offsets.iter().map(|(offset, name)| format!("{name} {offset:+} ms")).collect();
        if list.is_empty() {
            return ok("clocks", format!("no neighbour's differs by more than {} s", CLOCK_MS / 1_000));
        }
        warning("clocks", &format!("differ from this one: {}", list.join(", ")), "set the clocks, for example with NTP")
    }

    fn about_limits(&self) -> Finding {
        let near: Vec<String> = self
            .swarm
            .behaviour()
            .reputation
            .usage()
            .into_iter()
            .filter(|usage| u64::from(usage.used) * NEAR.1 > u64::from(usage.allowed) * NEAR.0 && usage.used > 1)
            .map(|usage| {
                let range = usage.prefix.map(|prefix| format!(" of {prefix}")).unwrap_or_default();
                format!("{}{range}: {} of {}", usage.limit, usage.used, usage.allowed)
            })
            .collect();
        if near.is_empty() {
            return ok("limits", "none is near".to_owned());
        }
        let advice = "more machines than this node is made for, or a flood: `peers` shows who has links";
        warning("limits", &format!("near: {}", near.join("; ")), advice)
    }

    fn about_versions(&self) -> Finding {
        let own = crate::network::AGENT;
        let others: Vec<String> = self
            .directory
            .iter()
            .filter(|(_, entry)| entry.state == PeerState::Up)
            .filter_map(|(peer, entry)| {
                let version = &entry.card.as_ref()?.card().version;
                (version != own).then(|| format!("{} {version}", self.directory.shown(peer)))
            })
            .collect();
        if others.is_empty() {
            return ok("versions", format!("everybody with a link runs {own}"));
        }
        warning("versions", &format!("this is {own}, but: {}", others.join(", ")), "update the older ones")
    }

    fn about_itself(&self) -> Finding {
        let panics = crate::panics::so_far() + self.storage.panics();
        if panics > 0 {
            return error("node", &format!("{panics} tasks panicked and were survived"), "report what the log says");
        }
        if self.told_stale {
            return error(
                "node",
                "others remember a later start of this identity",
                "docs/troubleshooting.md: the data dir is a restored copy, or the key runs twice",
            );
        }
        if self.swarm.behaviour().liveness.health() > 0 {
            return warning(
                "node",
                "it gets too little time from this machine, so it accuses others later",
                "look for what else keeps the machine busy",
            );
        }
        let cut = self.directory.iter().filter(|(peer, _)| self.is_cut(peer)).count();
        if cut > 0 {
            return warning(
                "node",
                &format!("{cut} peers are refused for what they did"),
                "`why PEER` says what it was",
            );
        }
        let faults: u64 = self.faults.values().sum();
        ok("node", format!("up for {} s, {faults} faults of others counted", self.started.elapsed().as_secs()))
    }
}

fn about_disk(free: Option<u64>) -> Finding {
    let Some(free) = free else {
        return warning("disk", "how much room is left cannot be told", "look at the data folder's file system");
    };
    let found = format!("{} MiB are free", free >> 20);
    match free {
        0..NO_ROOM => error("disk", &found, "make room: messages are refused when it is full"),
        NO_ROOM..LITTLE_ROOM => warning("disk", &found, "make room soon"),
        _ => ok("disk", found),
    }
}

fn ok(subject: &str, found: String) -> Finding {
    Finding { severity: Severity::Ok, subject: subject.to_owned(), finding: found, advice: String::new() }
}

fn warning(subject: &str, found: &str, advice: &str) -> Finding {
    found_bad(Severity::Warning, subject, found, advice)
}

fn error(subject: &str, found: &str, advice: &str) -> Finding {
    found_bad(Severity::Error, subject, found, advice)
}

fn found_bad(severity: Severity, subject: &str, found: &str, advice: &str) -> Finding {
    Finding { severity, subject: subject.to_owned(), finding: found.to_owned(), advice: advice.to_owned() }
}
