//! What the cores want, done; and what the disk did, told.

use futures::future::FutureExt as _;

use super::{Behaviour, Done, Event, now};
use crate::handler::Command;
use crate::manifest::TransferId;
use crate::protocol::Request;
use crate::receiver::Ending;
use crate::{receiver, sender};

impl Behaviour {
    pub(super) fn carry_out_for_sender(&mut self, output: sender::Output) {
        match output {
            sender::Output::Send { to, frame } => self.write(to, frame),
            sender::Output::Serve { serve, chunks, .. } => {
                if let Some(&(peer, connection, token)) = self.serves.get(&serve) {
                    self.notify(peer, connection, Command::Answer { token, permission: Ok(chunks) });
                }
            }
            sender::Output::Refuse { serve, refusal } => {
                if let Some((peer, connection, token)) = self.serves.remove(&serve) {
                    self.notify(peer, connection, Command::Answer { token, permission: Err(refusal) });
                }
            }
            sender::Output::Stop { serve } => {
                if let Some((peer, connection, token)) = self.serves.remove(&serve) {
                    self.notify(peer, connection, Command::Stop { token });
                }
            }
            sender::Output::Hash { id, chunk } => {
                let hashing = self.shared.store.hash(id, chunk);
                self.disk.push(hashing.map(move |result| Done::Hashed(id, chunk.index, result)).boxed());
            }
            sender::Output::Discard { id } => self.discard(id),
            sender::Output::Keep(offer) => self.event(Event::Keep(offer)),
            sender::Output::Save(record) => self.event(Event::Save(record)),
            sender::Output::Update(snapshot) => self.event(Event::Update(snapshot)),
            sender::Output::Forgotten { id, peer } => self.event(Event::Forgotten { id, peer }),
            sender::Output::Fault { peer, kind } => self.event(Event::Fault { peer, kind }),
        }
    }

    pub(super) fn carry_out_for_receiver(&mut self, output: receiver::Output) {
        match output {
            receiver::Output::Send { to, frame } => self.write(to, frame),
            receiver::Output::Get { get, peer, offer, first, count } => {
                let now = now();
                let Some(connection) = self.connections.for_data(&peer) else {
                    let input = receiver::Input::Ended { get, ending: Ending::Broken };
                    return self.receiver.handle_input(input, now);
                };
                let wanted = self.receiver.wanted_from(&peer);
                if wanted >= self.config.bulk_threshold && self.connections.wants_bulk(&peer, now) {
                    self.event(Event::WantBulk { peer });
                }
                self.connections.used(&peer, now);
                self.gets.insert(get, (peer, connection));
                let chunks = (first..first + u64::from(count)).filter_map(|index| offer.manifest().chunk(index));
                let request = Request { transfer: offer.id(), first, count };
                let chunks = chunks.collect();
                self.notify(peer, connection, Command::Get { get, request, chunks });
            }
            receiver::Output::Abort { get } => {
                if let Some((peer, connection)) = self.gets.remove(&get) {
                    self.notify(peer, connection, Command::Abort { get });
                }
            }
            receiver::Output::Finish { id, root } => {
                let finishing = self.shared.store.finish(id, root);
                self.disk.push(finishing.map(move |result| Done::Finished(id, result)).boxed());
            }
            receiver::Output::Discard { id } => self.discard(id),
            receiver::Output::Offered(offer) => self.event(Event::Offered(offer)),
            receiver::Output::Keep(offer) => self.event(Event::Keep(offer)),
            receiver::Output::Save(record) => self.event(Event::Save(record)),
            receiver::Output::Update(snapshot) => self.event(Event::Update(snapshot)),
            receiver::Output::Forgotten { id, peer } => self.event(Event::Forgotten { id, peer }),
            receiver::Output::Fault { peer, kind } => self.event(Event::Fault { peer, kind }),
        }
    }

    fn discard(&mut self, id: TransferId) {
        self.disk.push(self.shared.store.discard(id).map(|()| Done::Discarded).boxed());
    }

    pub(super) fn on_done(&mut self, done: Done) {
        let now = now();
        match done {
            Done::Finished(id, result) => {
                self.receiver.handle_input(receiver::Input::Finished { id, result }, now);
            }
            Done::Hashed(id, first, Ok(hash)) => {
                self.sender.handle_input(sender::Input::Hashed { id, first, hashes: vec![hash] }, now);
            }
            Done::Hashed(id, _, Err(error)) => {
                self.sender.handle_input(sender::Input::HashFailed { id, error }, now);
            }
            Done::Discarded => {}
        }
    }
}
