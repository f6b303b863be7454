//! The facts behind the two numbers, a bounded list each.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::MAX_FACTS;

/// Longest word of a fact, in bytes; a longer one is cut short.
pub const MAX_WORD_BYTES: usize = 48;

/// Which of the two numbers a fact moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Number {
    /// Reliability, 0 to 1.
    Reliability,
    /// The fault score, 0 and above.
    Faults,
}

/// Something that this node saw itself, once or several times in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// When it was seen last, in milliseconds since the epoch on the wall clock.
    pub at_ms: u64,
    /// When the row of these began, likewise.
    pub since_ms: u64,
    /// How often it was seen in that time; at least 1.
    pub count: u64,
    /// What: a word of [`Evidence`](crate::Evidence), a kind of fault, `cut`, `readmitted` or `pardoned`.
    pub what: String,
    /// What moved.
    pub number: Number,
    /// By how much in all: below zero is worse for reliability, above zero is worse for faults.
    pub effect: f64,
}

/// The newest [`MAX_FACTS`] facts behind one number of one peer, oldest first. What repeats itself is one fact with a
/// count, so that a hundred answered probes do not push out the one thing that matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts(VecDeque<Fact>);

impl Facts {
    /// Add a fact. It joins the newest fact of its group when that says the same.
    pub(crate) fn add(&mut self, fact: Fact, same_group: impl Fn(&str) -> bool) {
        let newest = self.0.iter().rposition(|old| same_group(&old.what)).filter(|&at| self.0[at].what == fact.what);
        match newest.and_then(|at| self.0.remove(at)) {
            Some(old) => self.0.push_back(Fact {
                // The wall clock may step back.
                at_ms: fact.at_ms.max(old.at_ms),
                since_ms: old.since_ms,
                count: old.count.saturating_add(fact.count),
                effect: old.effect + fact.effect,
                ..fact
            }),
            None => {
                if self.0.len() >= MAX_FACTS {
                    self.0.pop_front();
                }
                self.0.push_back(fact);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter()
    }

    /// Facts that were stored; the newest count, and what cannot be is left out.
    pub(crate) fn restore(facts: impl IntoIterator<Item = Fact>) -> Self {
        let mut kept = VecDeque::new();
        for mut fact in facts.into_iter().filter(|fact| fact.effect.is_finite() && fact.count > 0) {
            fact.what = short(&fact.what);
            if kept.len() >= MAX_FACTS {
                kept.pop_front();
            }
            kept.push_back(fact);
        }
        Self(kept)
    }
}

/// A single fact of now.
pub(crate) fn single(number: Number, what: &str, at_ms: u64, effect: f64) -> Fact {
    Fact { at_ms, since_ms: at_ms, count: 1, what: short(what), number, effect }
}

fn short(word: &str) -> String {
    let mut end = word.len().min(MAX_WORD_BYTES);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    word[..end].to_owned()
}
