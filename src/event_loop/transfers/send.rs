//! Paths and words to an offer.

use std::collections::BTreeSet;
use std::time::Instant;

use file_transfer::{Manifest, Plan, TransferId};
use futures::future::FutureExt as _;
use libp2p::PeerId;
use peer_exchange::Subject;
use rand::Rng as _;

use super::super::peers::fail;
use super::super::{Answer, EventLoop, PATIENCE, wall_ms};
use super::Worked;
use crate::api::{Absent, ApiError, Command, ErrorCode, SendFiles, SentInfo, SkippedInfo};
use crate::files::{self, FileError, Walk};
use crate::network::dialer;

/// Sends that wait for their receivers; one more is refused.
const MAX_SEEKING: usize = 256;

/// Longest name of an offer, in bytes.
const MAX_NAME: usize = 255;

/// A `send` whose receivers are known.
pub(in crate::event_loop) struct Sending {
    answer: Answer,
    peers: Vec<PeerId>,
    absent: Absent,
}

/// A `send` that waits until its receivers have a link.
pub(super) struct Seeking {
    sending: Sending,
    walk: Walk,
    manifest: Manifest,
    deadline: Instant,
}

/// An offer whose sources are about to be known to the disk.
pub(in crate::event_loop) struct Registered {
    id: TransferId,
    sending: Sending,
    manifest: Manifest,
    info: SentInfo,
}

impl Seeking {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn wants(&self, peer: &PeerId) -> bool {
        self.sending.peers.contains(peer)
    }
}

impl EventLoop {
    /// Look one receiver after the other up, then list what is sent.
    pub(super) fn send_command(&mut self, mut send: SendFiles, mut answer: Answer) {
        if send.paths.is_empty() {
            return fail(
                answer,
                ErrorCode::Usage,
                "there is nothing to send; an example is: send notes.txt bob".to_owned(),
            );
        }
        while send.settled < send.to.len() {
            let resolved = self.resolve(Command::SendFiles(send), answer, false);
            let Some((peer, Command::SendFiles(mut found), back)) = resolved else { return };
            if let Some(error) = self.refuses(&peer) {
                let _ = back.send(Err(error));
                return;
            }
            found.to[found.settled] = peer.to_base58();
            found.settled += 1;
            (send, answer) = (found, back);
        }
        let peers: BTreeSet<PeerId> = send.to.iter().filter_map(|word| word.parse().ok()).collect();
        if peers.is_empty() {
            return fail(answer, ErrorCode::Usage, "nobody is named; an example is: send notes.txt bob".to_owned());
        }
        let sending = Sending { answer, peers: peers.into_iter().collect(), absent: send.absent };
        let walking = self.transfers.files.walk(send.paths);
        self.transfers.work.push(walking.map(|result| Worked::Walked { sending, result }).boxed());
    }

    pub(super) fn on_walked(&mut self, sending: Sending, result: Result<Walk, FileError>, now: Instant) {
        if self.ending.is_some() {
            return fail(sending.answer, ErrorCode::Stopping, "the node is stopping; nothing was offered".to_owned());
        }
        let walk = match result {
            Ok(walk) if walk.entries.is_empty() => {
                let why =
                    walk.skipped.first().map(|skipped| format!(": {} {}", skipped.path.display(), skipped.reason));
                let why = format!("there is nothing to send{}", why.unwrap_or_default());
                return fail(sending.answer, ErrorCode::Usage, why);
            }
            Ok(walk) => walk,
            Err(error) => return fail(sending.answer, ErrorCode::Usage, error.to_string()),
        };
        let manifest = match files::manifest(name_of(&walk), &walk.entries) {
            Ok(manifest) => manifest,
            Err(error) => return fail(sending.answer, ErrorCode::Usage, format!("this cannot be offered: {error}")),
        };
        let away = self.without_link(&sending.peers);
        if away.is_empty() || sending.absent == Absent::Ignore {
            return self.register(sending, walk, manifest);
        }
        if self.transfers.seeking.len() >= MAX_SEEKING {
            let why = "too many files wait for their receivers already; try again in a moment".to_owned();
            return fail(sending.answer, ErrorCode::General, why);
        }
        for peer in away {
            self.dialer.handle_input(dialer::Input::Wanted(peer), now);
            self.swarm.behaviour_mut().peer_exchange.lookup(Subject::Peer(peer));
        }
        self.transfers.seeking.push(Seeking { sending, walk, manifest, deadline: now + PATIENCE });
    }

    /// Go on with those sends whose receivers are all there, or have not come in time.
    pub(in crate::event_loop) fn check_sends(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(seeking) = self.transfers.seeking.get(at) {
            let away = self.without_link(&seeking.sending.peers);
            if !away.is_empty() && seeking.deadline > now {
                at += 1;
                continue;
            }
            let Seeking { sending, walk, manifest, .. } = self.transfers.seeking.remove(at);
            let all = away.len() == sending.peers.len();
            if away.is_empty() || (sending.absent == Absent::Queue && !all) {
                self.register(sending, walk, manifest);
                continue;
            }
            for peer in &away {
                self.unwant(*peer, now);
            }
            let names: Vec<String> = away.iter().map(|peer| self.directory.shown(peer)).collect();
            let names = names.join(", ");
            fail(sending.answer, ErrorCode::Unreachable, format!("{names} could not be reached; nothing was offered"));
        }
    }

    /// Nobody is waited for any more.
    pub(in crate::event_loop) fn stop_sends(&mut self) {
        for seeking in std::mem::take(&mut self.transfers.seeking) {
            let why = "the node is stopping; nothing was offered".to_owned();
            fail(seeking.sending.answer, ErrorCode::Stopping, why);
        }
    }

    fn without_link(&self, peers: &[PeerId]) -> Vec<PeerId> {
        let exchange = &self.swarm.behaviour().peer_exchange;
        peers.iter().filter(|peer| !exchange.is_up(peer)).copied().collect()
    }

    fn register(&mut self, sending: Sending, walk: Walk, manifest: Manifest) {
        let id = TransferId(self.rng.random());
        let skipped = walk
            .skipped
            .iter()
            .map(|skipped| SkippedInfo { path: skipped.path.display().to_string(), reason: skipped.reason.to_owned() });
        let unreachable = self.without_link(&sending.peers);
        let info = SentInfo {
            id: id.to_string(),
            files: walk.entries.len(),
            bytes: walk.bytes,
            unreachable: unreachable.iter().map(|peer| peer.to_base58()).collect(),
            skipped: skipped.collect(),
        };
        let registered = Box::new(Registered { id, sending, manifest, info });
        let registering = self.transfers.files.register(id, walk.entries);
        self.transfers.work.push(registering.map(|result| Worked::Registered { registered, result }).boxed());
    }

    pub(super) fn on_registered(&mut self, registered: Registered, result: Result<(), FileError>) {
        let Registered { id, sending: Sending { answer, peers, .. }, manifest, info } = registered;
        if let Err(error) = result {
            return fail(answer, ErrorCode::Storage, format!("nothing was offered: {error}"));
        }
        let transfer = &mut self.swarm.behaviour_mut().file_transfer;
        match transfer.offer(id, manifest, &peers, Plan::NORMAL, wall_ms()) {
            Ok(_) => drop(self.transfers.answers.insert(id, (answer, info))),
            Err(error) => {
                self.discard(id);
                let _ = answer.send(Err(ApiError::new(ErrorCode::General, format!("nothing was offered: {error}"))));
            }
        }
    }
}

/// What an offer is called: its one file or folder, else the first one and how many more.
fn name_of(walk: &Walk) -> String {
    let tops: BTreeSet<&str> = walk.entries.iter().filter_map(|entry| entry.path.first()).map(String::as_str).collect();
    let first = walk.entries.first().and_then(|entry| entry.path.first()).map(String::as_str).unwrap_or_default();
    let more = match tops.len() {
        0 | 1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    let mut end = first.len().min(MAX_NAME - more.len());
    while !first.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{more}", &first[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tops: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = tops.iter().map(|top| folder.path().join(top)).collect();
        paths.iter().for_each(|path| std::fs::write(path, "x").unwrap());
        name_of(&files::walk(&paths).unwrap())
    }

    #[test]
    fn an_offer_is_called_after_its_first_path() {
        assert_eq!(named(&["a.txt"]), "a.txt");
        assert_eq!(named(&["b", "a", "c"]), "b and 2 more");
        let long = "ä".repeat(127);
        let name = named(&[&long, "b"]);
        assert!(name.len() <= MAX_NAME && name.starts_with('ä') && name.ends_with("ä and 1 more"), "{name}");
    }
}
