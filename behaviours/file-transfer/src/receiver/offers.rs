//! Offers until their list of files is whole.

use std::time::Instant;

use libp2p::PeerId;

use super::{Output, Receiver};
use crate::fault::FaultKind;
use crate::hash::Hash;
use crate::manifest::{MAX_PAGE_BYTES, Offer, Summary, TransferId};
use crate::plan::Plan;
use crate::protocol::{Frame, Status};
use crate::record::{Direction, Reason, State};
use crate::standing::Standing;

use super::incoming::Incoming;

/// An offer with pages missing.
pub(super) struct Reading {
    pub(super) peer: PeerId,
    signed: Vec<u8>,
    hashes: Vec<Hash>,
    pages: Vec<Vec<u8>>,
    /// When the next page is asked for again.
    pub(super) ask_at: Instant,
}

impl Receiver {
    pub(super) fn on_offer(&mut self, peer: PeerId, id: TransferId, signed: Vec<u8>, page: Vec<u8>, now: Instant) {
        if let Some(incoming) = self.live.get(&id) {
            if incoming.standing.peer == peer && incoming.offer.signed() == signed {
                return self.say(id);
            }
            return self.fault(peer, FaultKind::ConflictingOffer);
        }
        if let Some((_, standing)) = self.finished.get(&id) {
            // Over; the sender has not heard it. Somebody else learns nothing.
            if standing.peer == peer {
                self.say(id);
            }
            return;
        }
        if let Some(reading) = self.reading.get(&id) {
            if reading.peer != peer || reading.signed != signed {
                self.fault(peer, FaultKind::ConflictingOffer);
            }
            return;
        }
        let summary = match Summary::decode(&signed) {
            Ok(summary) if summary.sender == peer && summary.id == id => summary,
            _ => return self.fault(peer, FaultKind::InvalidOffer),
        };
        if !self.has_room_for(&peer, &summary) {
            return self.refuse(peer, id, Status::Failed, Some(Reason::TooMany));
        }
        let hashes = summary.pages;
        self.reading.insert(id, Reading { peer, signed, hashes, pages: Vec::new(), ask_at: now });
        self.on_page(peer, id, 0, page, now);
    }

    pub(super) fn on_page(&mut self, peer: PeerId, id: TransferId, page: u32, entries: Vec<u8>, now: Instant) {
        let Some(reading) = self.reading.get_mut(&id).filter(|reading| reading.peer == peer) else {
            // Asked for twice, answered twice; or a page of nothing.
            if self.live.get(&id).is_none_or(|incoming| incoming.standing.peer != peer) {
                self.fault(peer, FaultKind::InvalidStatus);
            }
            return;
        };
        if page as usize != reading.pages.len() {
            return;
        }
        if entries.len() > MAX_PAGE_BYTES || reading.hashes.get(page as usize) != Some(&Hash::of(&entries)) {
            return self.bad_list(peer, id);
        }
        reading.pages.push(entries);
        if reading.pages.len() < reading.hashes.len() {
            return self.ask_page(id, now);
        }
        let Some(reading) = self.reading.remove(&id) else { return };
        match Offer::decode(&reading.signed, reading.pages) {
            Ok(offer) => self.whole(peer, offer, now),
            Err(_) => self.bad_list(peer, id),
        }
    }

    pub(super) fn ask_page(&mut self, id: TransferId, now: Instant) {
        let Some(reading) = self.reading.get_mut(&id) else { return };
        reading.ask_at = now + self.config.answer_timeout;
        let (to, page) = (reading.peer, reading.pages.len() as u32);
        if self.up.contains(&to) {
            self.outputs.push_back(Output::Send { to, frame: Frame::Ask { transfer: id, page } });
        }
    }

    fn whole(&mut self, peer: PeerId, offer: Offer, now: Instant) {
        let (id, number) = (offer.id(), self.number());
        let standing = Standing::new(&offer, Direction::In, peer, Plan::NORMAL);
        self.live.insert(id, Incoming::new(number, offer.clone(), standing));
        self.outputs.push_back(Output::Keep(offer.clone()));
        self.save(&id, now);
        self.outputs.push_back(Output::Offered(offer));
        self.update(&id, now);
        self.say(id);
    }

    fn bad_list(&mut self, peer: PeerId, id: TransferId) {
        self.reading.remove(&id);
        self.fault(peer, FaultKind::InvalidManifest);
        self.refuse(peer, id, Status::Failed, Some(Reason::InvalidManifest));
    }

    /// Whether one more offer is taken. What a list takes is bounded by its pages before they come.
    fn has_room_for(&self, peer: &PeerId, summary: &Summary) -> bool {
        let undecided = self.live.values().filter(|incoming| incoming.standing.state() == State::Offered);
        let (mut of_peer, mut bytes) = (0, summary.pages.len() * MAX_PAGE_BYTES);
        for incoming in undecided {
            of_peer += usize::from(incoming.standing.peer == *peer);
            bytes += incoming.offer.pages().iter().map(Vec::len).sum::<usize>();
        }
        for reading in self.reading.values() {
            of_peer += usize::from(reading.peer == *peer);
            bytes += reading.hashes.len() * MAX_PAGE_BYTES;
        }
        let all = self.live.len() + self.reading.len();
        // A list of one page is small, and its offer is one of few.
        let fits = summary.pages.len() == 1 || bytes <= self.config.max_offered_bytes;
        of_peer < self.config.max_offers_per_peer && all < self.config.max_transfers && fits
    }
}
