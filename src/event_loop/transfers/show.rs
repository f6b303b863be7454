//! Transfers as people and programs see them.

use std::collections::VecDeque;
use std::time::Instant;

use file_transfer::{Direction, Reason, Snapshot, State, TransferId};
use libp2p::PeerId;
use reputation::Evidence;

use super::super::EventLoop;
use crate::api::{self, Event, Reply, TransferInfo, TransferState};
use crate::network::dialer;

/// Values of [`TransferInfo::window`].
const MAX_WINDOW: usize = 64;

impl EventLoop {
    pub(super) fn on_update(&mut self, snapshot: Snapshot, now: Instant) {
        if snapshot.state == State::Active && snapshot.bytes < snapshot.total {
            self.keep_second(snapshot.peer, now);
        }
        if self.transfers.unsaved.contains_key(&snapshot.id) {
            let held = &mut self.transfers.held;
            let same =
                |other: &Snapshot| (other.id, other.peer, other.state) == (snapshot.id, snapshot.peer, snapshot.state);
            // Progress in bytes need not pile up while the disk is slow; what states a transfer went through is kept.
            match held.iter_mut().rev().find(|other| (other.id, other.peer) == (snapshot.id, snapshot.peer)) {
                Some(last) if same(last) => *last = snapshot,
                _ => held.push_back(snapshot),
            }
            return;
        }
        self.show(snapshot, now);
    }

    /// Tell what no longer waits for the disk.
    pub(super) fn flush(&mut self, now: Instant) {
        let unsaved = &self.transfers.unsaved;
        let (still, ready) =
            std::mem::take(&mut self.transfers.held).into_iter().partition(|held| unsaved.contains_key(&held.id));
        self.transfers.held = still;
        let ready: VecDeque<Snapshot> = ready;
        for snapshot in ready {
            self.show(snapshot, now);
        }
    }

    fn show(&mut self, snapshot: Snapshot, now: Instant) {
        let (id, peer, state) = (snapshot.id, snapshot.peer, snapshot.state);
        let window = self.transfers.windows.entry((id, peer)).or_default();
        if snapshot.direction == Direction::In && state == State::Active {
            if window.len() == MAX_WINDOW {
                window.pop_front();
            }
            window.push_back(snapshot.in_flight);
        }
        if let Some(evidence) = evidence(&snapshot) {
            self.saw(peer, evidence, now);
        }
        let info = self.transfer_info(snapshot);
        self.emit(Event::Transfer {
            id: info.id,
            direction: info.direction,
            peer: info.peer,
            name: info.name,
            file: info.file,
            bytes: info.bytes,
            total: info.total,
            rate: info.rate,
            mode: info.mode,
            state: info.state,
            reason: info.reason,
            path: info.path,
            hash: info.hash,
        });
        if state.is_final() {
            self.transfers.offers.retain(|offer| offer.id() != id);
            self.transfers.reasons.remove(&id);
            self.unwant(peer, now);
        } else if !self.swarm.behaviour().peer_exchange.is_up(&peer) {
            self.dialer.handle_input(dialer::Input::Wanted(peer), now);
        }
    }

    /// Nothing is to be dialled for a transfer that is over, or for a `send` that failed.
    pub(super) fn unwant(&mut self, peer: PeerId, now: Instant) {
        if !self.waiting.contains_key(&peer) && !self.transfer_wants(&peer) {
            self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
        }
    }

    /// The transfers of one id.
    pub(super) fn rows_of(&self, id: TransferId) -> Reply {
        let all = self.swarm.behaviour().file_transfer.transfers();
        let mut rows: Vec<TransferInfo> =
            all.into_iter().filter(|snapshot| snapshot.id == id).map(|snapshot| self.transfer_info(snapshot)).collect();
        match (rows.pop(), rows.is_empty()) {
            (Some(only), true) => Reply::Transfer(Box::new(only)),
            (last, _) => {
                rows.extend(last);
                Reply::Transfers(rows)
            }
        }
    }

    pub(super) fn transfer_info(&self, snapshot: Snapshot) -> TransferInfo {
        let window = self.transfers.windows.get(&(snapshot.id, snapshot.peer));
        let reason = self.transfers.reasons.get(&snapshot.id).cloned().or_else(|| {
            let word = snapshot.reason?.to_string();
            Some(snapshot.detail.map_or_else(|| word.clone(), |detail| format!("{word}: {detail}")))
        });
        TransferInfo {
            id: snapshot.id.to_string(),
            direction: match snapshot.direction {
                Direction::Out => api::Direction::Out,
                Direction::In => api::Direction::In,
            },
            peer: snapshot.peer.to_base58(),
            name: self.directory.get(&snapshot.peer).map(|entry| entry.name().to_owned()).unwrap_or_default(),
            file: snapshot.name,
            files: snapshot.entries,
            bytes: snapshot.bytes,
            total: snapshot.total,
            seconds: snapshot.active_for.as_secs_f64(),
            rate: snapshot.rate.round(),
            mode: snapshot.plan.mode().to_owned(),
            chunks: snapshot.chunks,
            retries: snapshot.retries,
            rtt_ms: snapshot.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            window: window.map(|window| window.iter().copied().collect()).unwrap_or_default(),
            hash: snapshot.root.map(|root| root.to_string()),
            state: state(snapshot.state),
            reason,
            path: snapshot.path,
        }
    }
}

fn state(state: State) -> TransferState {
    match state {
        State::Offered => TransferState::Offered,
        State::Active => TransferState::Active,
        State::Paused => TransferState::Paused,
        State::Completed => TransferState::Completed,
        State::Failed => TransferState::Failed,
        State::Rejected => TransferState::Rejected,
        State::Cancelled => TransferState::Cancelled,
    }
}

/// What the end of a transfer says about its other end. What a person decided, or the own disk did, says nothing.
fn evidence(snapshot: &Snapshot) -> Option<Evidence> {
    match (snapshot.state, snapshot.direction, snapshot.reason) {
        (State::Completed, ..) => Some(Evidence::TransferCompleted),
        (State::Failed, _, Some(Reason::Unknown)) => Some(Evidence::TransferFailed),
        (
            State::Failed,
            Direction::In,
            Some(Reason::Changed | Reason::Corrupt | Reason::WrongSeal | Reason::InvalidManifest),
        ) => Some(Evidence::TransferFailed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use file_transfer::Plan;

    use super::*;

    fn ended(state: State, direction: Direction, reason: Option<Reason>) -> Option<Evidence> {
        evidence(&Snapshot {
            id: TransferId([0; 16]),
            direction,
            peer: PeerId::random(),
            name: String::new(),
            entries: 1,
            bytes: 0,
            total: 0,
            state,
            reason,
            detail: None,
            active_for: Duration::ZERO,
            rate: 0.0,
            chunks: 0,
            retries: 0,
            rtt: None,
            in_flight: 0,
            root: None,
            path: None,
            plan: Plan::NORMAL,
        })
    }

    #[test]
    fn only_what_the_other_end_did_counts_against_it() {
        use Direction::{In, Out};
        assert_eq!(ended(State::Completed, In, None), Some(Evidence::TransferCompleted));
        assert_eq!(ended(State::Completed, Out, None), Some(Evidence::TransferCompleted));
        assert_eq!(ended(State::Failed, In, Some(Reason::Corrupt)), Some(Evidence::TransferFailed));
        assert_eq!(ended(State::Failed, Out, Some(Reason::Changed)), None);
        assert_eq!(ended(State::Failed, In, Some(Reason::Disk)), None);
        assert_eq!(ended(State::Rejected, Out, Some(Reason::Peer)), None);
        assert_eq!(ended(State::Cancelled, In, Some(Reason::Here)), None);
        assert_eq!(ended(State::Active, In, None), None);
    }
}
