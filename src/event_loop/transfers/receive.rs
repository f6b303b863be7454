//! What happens to offers of others.

use std::path::PathBuf;

use file_transfer::{Kind, Offer, TransferId};
use futures::future::FutureExt as _;

use super::super::peers::fail;
use super::super::{Answer, EventLoop};
use super::Worked;
use crate::api::{Accept, ApiError, Command, ErrorCode, Event, FileInfo, Reply};
use crate::files::FileError;

/// `receive` may run ahead of the offers by so many.
const MAX_AHEAD: u32 = 1_024;

impl EventLoop {
    /// Show an offer and do with it what the settings say.
    pub(super) fn on_offered(&mut self, offer: Offer) {
        let (id, from) = (offer.id(), offer.sender());
        let entry = self.directory.get(&from);
        let trusted = entry.is_some_and(|entry| entry.trusted);
        let name = entry.map(|entry| entry.name().to_owned()).unwrap_or_default();
        let files = offer.manifest().entries().iter().map(|entry| FileInfo {
            path: entry.path.join("/") + if entry.kind == Kind::Folder { "/" } else { "" },
            size: entry.size,
        });
        let (files, bytes) = (files.collect(), offer.manifest().bytes());
        self.emit(Event::Offer { id: id.to_string(), from: from.to_base58(), name, files, bytes });
        self.transfers.offers.push(offer.clone());
        let wanted = self.transfers.receive_next > 0;
        match self.config.accept {
            Accept::Never if !wanted => self.refuse(id, "offers are not taken here"),
            Accept::Trusted if trusted => self.take(offer, None, None),
            Accept::Auto => self.take(offer, None, None),
            _ if wanted => {
                self.transfers.receive_next -= 1;
                self.take(offer, None, None);
            }
            Accept::Ask | Accept::Trusted | Accept::Never => {}
        }
    }

    pub(super) fn receive_command(&mut self, command: Command, answer: Answer) {
        match command {
            Command::Receive => match self.transfers.offers.first().cloned() {
                Some(offer) => self.take(offer, None, Some(answer)),
                None => {
                    self.transfers.receive_next = (self.transfers.receive_next + 1).min(MAX_AHEAD);
                    let _ = answer.send(Ok(Reply::Done {}));
                }
            },
            Command::ReceiveAuto { on: true } => {
                let before = self.config.accept;
                if before != Accept::Auto {
                    self.transfers.before_auto = Some(before.to_string());
                }
                let set = self.set("accept", "auto");
                let _ = answer.send(set);
                for offer in self.transfers.offers.clone() {
                    self.take(offer, None, None);
                }
            }
            Command::ReceiveAuto { on: false } => {
                let before = self.transfers.before_auto.take();
                let before = match self.config.accept {
                    Accept::Auto => before.unwrap_or_else(|| Accept::Ask.to_string()),
                    other => other.to_string(),
                };
                let set = self.set("accept", &before);
                let _ = answer.send(set);
            }
            Command::Accept { id, folder } => match self.offer_named(&id) {
                Ok(offer) => self.take(offer, folder, Some(answer)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Command::Reject { id } => match self.offer_named(&id) {
                Ok(offer) => {
                    let id = offer.id();
                    let rejected = self.swarm.behaviour_mut().file_transfer.reject(id);
                    self.transfers.offers.retain(|offer| offer.id() != id);
                    let _ = answer.send(match rejected {
                        Ok(()) => Ok(self.rows_of(id)),
                        Err(error) => Err(ApiError::new(ErrorCode::General, error.to_string())),
                    });
                }
                Err(error) => drop(answer.send(Err(error))),
            },
            _ => fail(answer, ErrorCode::General, "not a command about offers".to_owned()),
        }
    }

    /// The offer that waits for a decision and whose id begins with that word.
    fn offer_named(&self, word: &str) -> Result<Offer, ApiError> {
        let id = self.transfer_named(word)?;
        self.transfers.offers.iter().find(|offer| offer.id() == id).cloned().ok_or_else(|| {
            ApiError::new(
                ErrorCode::General,
                format!("{word} does not wait for a decision; `transfers` shows how it stands"),
            )
        })
    }

    /// Make room for an offer, and then take it.
    fn take(&mut self, offer: Offer, folder: Option<PathBuf>, answer: Option<Answer>) {
        let id = offer.id();
        self.transfers.offers.retain(|other| other.id() != id);
        let preparing = self.transfers.files.prepare(offer.clone(), folder);
        // Should the room be wanting, whoever asked may make some and ask again.
        if answer.is_some() {
            self.transfers.asked.insert(id, offer);
        }
        self.transfers.work.push(preparing.map(move |result| Worked::Prepared { id, answer, result }).boxed());
    }

    pub(super) fn on_prepared(&mut self, id: TransferId, answer: Option<Answer>, result: Result<(), FileError>) {
        let asked = self.transfers.asked.remove(&id);
        let taken = match result {
            Ok(()) => {
                let accepted = self.swarm.behaviour_mut().file_transfer.accept(id);
                // It was taken back while room was made.
                accepted.inspect_err(|_| self.discard(id)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match (taken, answer) {
            (Ok(()), Some(answer)) => drop(answer.send(Ok(self.rows_of(id)))),
            (Ok(()), None) => {}
            (Err(why), Some(answer)) => {
                self.transfers.offers.extend(asked.filter(|_| self.is_offered(id)));
                let stands = if self.is_offered(id) { "; the offer still stands" } else { "" };
                fail(answer, ErrorCode::Storage, format!("{why}{stands}"));
            }
            (Err(why), None) => self.refuse(id, &why),
        }
    }

    fn is_offered(&self, id: TransferId) -> bool {
        let transfers = self.swarm.behaviour().file_transfer.transfers();
        transfers.iter().any(|snapshot| snapshot.id == id && snapshot.state == file_transfer::State::Offered)
    }

    /// Refuse without having been asked; the event says why.
    fn refuse(&mut self, id: TransferId, why: &str) {
        self.transfers.offers.retain(|offer| offer.id() != id);
        // It may have been taken back meanwhile.
        if self.swarm.behaviour_mut().file_transfer.reject(id).is_ok() {
            self.transfers.reasons.insert(id, why.to_owned());
        }
    }
}
