//! Files: from the command to an offer, from an offer to the disk, and how both are told.
//!
//! # Layout
//! - [`send`]: paths and words to an offer
//! - [`receive`]: what happens to offers of others
//! - [`show`]: events and rows
//!
//! The disk of files has threads of its own, whose work comes back as [`Worked`]. What a person is told of a transfer is on
//! disk by then: a change waits in [`Transfers::held`] until the records that came before it are written.

mod receive;
mod send;
mod show;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use file_transfer::{ChunkStore as _, Direction, Offer, Record, Snapshot, State, TransferId};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};

use super::peers::fail;
use super::{Answer, EventLoop};
use crate::api::{ApiError, Command, ErrorCode, Event, Reply, SentInfo};
use crate::files::{FileError, Files, Restored, Walk};
use crate::network::dialer;

/// A record that says how a transfer ended and could not be written is tried again after so long.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// A second link to a peer is no duplicate for so long after the last sign of a transfer with it: more than the five seconds
/// after which the transfer gives it back, and the time that takes.
const SECOND_LINK: Duration = Duration::from_secs(20);

/// What the disk has done.
pub(super) enum Worked {
    /// The paths of a `send` are listed, or not.
    Walked { sending: send::Sending, result: Result<Walk, FileError> },
    /// The sources of an offer are known to the disk, or not.
    Registered { registered: Box<send::Registered>, result: Result<(), FileError> },
    /// An offer is on disk, or not.
    Kept { id: TransferId, direction: Direction, result: Result<(), FileError> },
    /// A record is on disk, or not.
    Saved { record: Box<Record>, result: Result<(), FileError> },
    /// There is room for an incoming transfer, or not.
    Prepared { id: TransferId, answer: Option<Answer>, result: Result<(), FileError> },
    /// Something nobody waits for.
    Forgot(Result<(), FileError>),
}

/// What the loop keeps about files.
pub(super) struct Transfers {
    pub(super) files: Files,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Worked>>,
    /// Offers of others that wait for a decision, oldest first. The behaviour bounds how many there are.
    offers: Vec<Offer>,
    /// Offers that a person has taken, until there is room for them.
    asked: BTreeMap<TransferId, Offer>,
    /// How many of the next offers are taken, by `receive`.
    receive_next: u32,
    /// What `accept` was before `receive auto on`.
    before_auto: Option<String>,
    /// Sends that wait for their receivers.
    seeking: Vec<send::Seeking>,
    /// Who asked for an offer that is not on disk yet.
    answers: BTreeMap<TransferId, (Answer, SentInfo)>,
    /// Writes about a transfer that are not done.
    unsaved: BTreeMap<TransferId, usize>,
    /// Records that could not be written, and when they are tried again.
    again: Vec<(Instant, Box<Record>)>,
    /// What is told when the disk has the records before it, oldest first.
    held: VecDeque<Snapshot>,
    /// Why we refused an offer by ourselves.
    reasons: BTreeMap<TransferId, String>,
    /// The last values of [`Snapshot::in_flight`] of each transfer.
    windows: BTreeMap<(TransferId, PeerId), VecDeque<u64>>,
}

impl Transfers {
    pub(super) fn new(files: Files) -> Self {
        Self {
            files,
            work: FuturesUnordered::new(),
            offers: Vec::new(),
            asked: BTreeMap::new(),
            receive_next: 0,
            before_auto: None,
            seeking: Vec::new(),
            answers: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            again: Vec::new(),
            held: VecDeque::new(),
            reasons: BTreeMap::new(),
            windows: BTreeMap::new(),
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let seeking = self.seeking.iter().map(send::Seeking::deadline);
        seeking.chain(self.again.iter().map(|(at, _)| *at)).min()
    }

    fn save(&mut self, record: Box<Record>) {
        *self.unsaved.entry(record.id).or_default() += 1;
        let saving = self.files.save((*record).clone());
        self.work.push(saving.map(|result| Worked::Saved { record, result }).boxed());
    }

    /// One of the writes about a transfer is done.
    fn written(&mut self, id: TransferId) {
        if let Some(left) = self.unsaved.get_mut(&id) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.unsaved.remove(&id);
            }
        }
    }
}

impl EventLoop {
    /// What an earlier run kept.
    pub(super) fn restore_transfers(&mut self, restored: Vec<Restored>) {
        for Restored { offer, records, verified } in restored {
            let waits =
                records.iter().any(|record| (record.direction, record.state) == (Direction::In, State::Offered));
            let open = records.iter().filter(|record| !record.state.is_final()).map(|record| record.peer);
            let open: Vec<PeerId> = open.collect();
            let id = offer.id();
            if let Err(error) = self.swarm.behaviour_mut().file_transfer.restore(offer.clone(), records, &verified) {
                tracing::warn!(transfer = %id, "a transfer could not be brought back: {error}");
                continue;
            }
            for peer in open {
                self.dialer.handle_input(dialer::Input::Wanted(peer), Instant::now());
            }
            if waits {
                self.on_offered(offer);
            }
        }
    }

    pub(super) fn transfers_command(&mut self, command: Command, answer: Answer) {
        let behaviour = &mut self.swarm.behaviour_mut().file_transfer;
        let (word, result) = match command {
            Command::SendFiles(send) => return self.send_command(send, answer),
            Command::Accept { .. } | Command::Reject { .. } | Command::Receive | Command::ReceiveAuto { .. } => {
                return self.receive_command(command, answer);
            }
            Command::Transfers { id: None } => {
                let rows = behaviour.transfers();
                let rows = rows.into_iter().map(|snapshot| self.transfer_info(snapshot)).collect();
                let _ = answer.send(Ok(Reply::Transfers(rows)));
                return;
            }
            Command::Transfers { id: Some(word) } => (word, None),
            Command::Pause { id } => (id, Some(file_transfer::Behaviour::pause as fn(&mut _, _, _) -> _)),
            Command::Resume { id } => (id, Some(file_transfer::Behaviour::resume as fn(&mut _, _, _) -> _)),
            Command::Cancel { id } => (id, Some(file_transfer::Behaviour::cancel as fn(&mut _, _, _) -> _)),
            _ => return fail(answer, ErrorCode::General, "not a command about files".to_owned()),
        };
        let done = self.transfer_named(&word).and_then(|id| match result {
            None => Ok(id),
            Some(verb) => {
                let done: Result<(), file_transfer::Error> =
                    verb(&mut self.swarm.behaviour_mut().file_transfer, id, None);
                done.map(|()| id).map_err(|error| ApiError::new(ErrorCode::General, format!("{word}: {error}")))
            }
        });
        let _ = answer.send(done.map(|id| self.rows_of(id)));
    }

    /// The transfer whose id begins with that word.
    fn transfer_named(&self, word: &str) -> Result<TransferId, ApiError> {
        let usage = |why: String| ApiError::new(ErrorCode::Usage, why);
        let mut ids: Vec<TransferId> =
            self.swarm.behaviour().file_transfer.transfers().into_iter().map(|snapshot| snapshot.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let wanted = word.to_ascii_lowercase();
        let mut fits = ids.into_iter().filter(|id| !wanted.is_empty() && id.to_string().starts_with(&wanted));
        match (fits.next(), fits.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(usage(format!("several transfers begin with '{word}'; write more of the id"))),
            (None, _) => Err(usage(format!("there is no transfer '{word}'; `transfers` lists them"))),
        }
    }

    pub(super) fn on_file_transfer(&mut self, event: file_transfer::Event, now: Instant) {
        use file_transfer::Event;
        match event {
            Event::Offered(offer) => self.on_offered(offer),
            Event::Update(snapshot) => self.on_update(snapshot, now),
            Event::Keep(offer) => {
                let id = offer.id();
                let direction = if offer.sender() == self.local { Direction::Out } else { Direction::In };
                *self.transfers.unsaved.entry(id).or_default() += 1;
                let keeping = self.transfers.files.keep(direction, offer);
                self.transfers.work.push(keeping.map(move |result| Worked::Kept { id, direction, result }).boxed());
            }
            Event::Save(record) => self.transfers.save(Box::new(record)),
            Event::Forgotten { id, peer } => {
                self.transfers.windows.remove(&(id, peer));
                self.transfers.work.push(self.transfers.files.forget(id, peer).map(Worked::Forgot).boxed());
            }
            Event::WantBulk { peer } => self.dial_second(peer),
            Event::BulkIdle { connection, .. } => {
                self.swarm.close_connection(connection);
            }
            Event::Fault { peer, kind } => self.fault(peer, &kind),
        }
    }

    pub(super) fn handle_worked(&mut self, worked: Worked) {
        let now = Instant::now();
        match worked {
            Worked::Walked { sending, result } => self.on_walked(sending, result, now),
            Worked::Registered { registered, result } => self.on_registered(*registered, result),
            Worked::Kept { id, direction, result } => {
                self.on_kept(id, direction, result);
                self.transfers.written(id);
                self.flush(now);
            }
            Worked::Saved { record, result } => {
                self.on_saved(record, result, now);
                self.flush(now);
            }
            Worked::Prepared { id, answer, result } => self.on_prepared(id, answer, result),
            Worked::Forgot(Ok(())) => {}
            Worked::Forgot(Err(error)) => self.disk_trouble("the record of an old transfer stays", &error),
        }
    }

    /// An own offer counts from here on; one that is not on disk is taken back.
    fn on_kept(&mut self, id: TransferId, direction: Direction, result: Result<(), FileError>) {
        let answer = self.transfers.answers.remove(&id);
        match (result, answer) {
            (Ok(()), Some((answer, info))) => drop(answer.send(Ok(Reply::Sending(info)))),
            (Ok(()), None) => {}
            (Err(error), answer) => {
                self.disk_trouble("a transfer could not be written down", &error);
                if let Some((answer, _)) = answer {
                    fail(answer, ErrorCode::Storage, format!("nothing was offered: {error}"));
                }
                if direction == Direction::Out {
                    // It may be over already, which is as well.
                    let _ = self.swarm.behaviour_mut().file_transfer.cancel(id, None);
                }
            }
        }
    }

    fn on_saved(&mut self, record: Box<Record>, result: Result<(), FileError>, now: Instant) {
        let id = record.id;
        match result {
            // What came to its end is not said to have done so before it is written, however long that takes.
            Err(error) if record.state.is_final() && self.ending.is_none() => {
                self.disk_trouble("how a transfer ended could not be written down", &error);
                self.transfers.again.push((now + SAVE_AGAIN, record));
            }
            result => {
                self.transfers.written(id);
                if let Err(error) = result {
                    self.disk_trouble("how a transfer stands could not be written down", &error);
                }
            }
        }
    }

    fn disk_trouble(&self, what: &str, error: &FileError) {
        self.emit(Event::Error { code: ErrorCode::Storage, message: format!("{what}: {error}") });
    }

    pub(super) fn transfers_timeout(&mut self, now: Instant) {
        self.check_sends(now);
        let (due, later) = std::mem::take(&mut self.transfers.again).into_iter().partition(|(at, _)| *at <= now);
        self.transfers.again = later;
        let due: Vec<(Instant, Box<Record>)> = due;
        for (_, record) in due {
            // It still counts as not written.
            self.transfers.written(record.id);
            self.transfers.save(record);
        }
    }

    /// What the disk has made for a transfer that came to nothing goes again.
    fn discard(&mut self, id: TransferId) {
        let discarding = self.transfers.files.discard(id);
        self.transfers.work.push(discarding.map(|()| Worked::Forgot(Ok(()))).boxed());
    }

    /// Whether a transfer that is not over wants a link to that peer.
    pub(super) fn transfer_wants(&self, peer: &PeerId) -> bool {
        let transfers = self.swarm.behaviour().file_transfer.transfers();
        self.transfers.seeking.iter().any(|seeking| seeking.wants(peer))
            || transfers.iter().any(|snapshot| snapshot.peer == *peer && !snapshot.state.is_final())
    }

    /// A link for bulk: chat and probes keep the first one to themselves. It is no duplicate while transfers go on.
    fn dial_second(&mut self, peer: PeerId) {
        let mut addresses = self.dialer.addresses(&peer).to_vec();
        let linked = self.directory.get(&peer).and_then(|entry| entry.address.clone());
        let linked = linked.filter(|address| !addresses.contains(address));
        addresses.extend(linked);
        self.keep_second(peer, Instant::now());
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).allocate_new_port();
        // Without it everything works over the first one.
        if let Err(error) = self.swarm.dial(options.build()) {
            tracing::debug!(%peer, "no second link: {error}");
        }
    }

    fn keep_second(&mut self, peer: PeerId, now: Instant) {
        self.swarm.behaviour_mut().peer_exchange.keep_second(peer, now + SECOND_LINK);
    }
}
