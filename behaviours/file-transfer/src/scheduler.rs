//! Whose span comes next. First come, first served: the transfer that was accepted first fills its lanes first.

use std::collections::BTreeMap;

use crate::manifest::TransferId;

/// Counts what is in flight, and picks.
#[derive(Debug)]
pub struct Scheduler {
    total: usize,
    in_flight: usize,
    /// By the number under which they were accepted.
    order: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: TransferId,
    lanes: usize,
    in_flight: usize,
    wants: bool,
}

impl Scheduler {
    /// At most so many spans in flight together.
    pub fn new(total: usize) -> Self {
        Self { total: total.max(1), in_flight: 0, order: BTreeMap::new() }
    }

    /// That transfer takes part from now on; `number` rises from transfer to transfer.
    pub fn add(&mut self, number: u64, id: TransferId) {
        self.order.insert(number, Entry { id, lanes: 1, in_flight: 0, wants: false });
    }

    /// It does not any more.
    pub fn remove(&mut self, number: u64) {
        if let Some(entry) = self.order.remove(&number) {
            self.in_flight -= entry.in_flight;
        }
    }

    /// Whether it has something to ask for, and how many spans it may have in flight.
    pub fn set(&mut self, number: u64, wants: bool, lanes: usize) {
        if let Some(entry) = self.order.get_mut(&number) {
            (entry.wants, entry.lanes) = (wants, lanes.max(1));
        }
    }

    /// A span of it was asked for.
    pub fn begun(&mut self, number: u64) {
        if let Some(entry) = self.order.get_mut(&number) {
            entry.in_flight += 1;
            self.in_flight += 1;
        }
    }

    /// A span of it came to its end.
    pub fn ended(&mut self, number: u64) {
        if let Some(entry) = self.order.get_mut(&number).filter(|entry| entry.in_flight > 0) {
            entry.in_flight -= 1;
            self.in_flight -= 1;
        }
    }

    /// Who may ask for a span now.
    pub fn next(&self) -> Option<(u64, TransferId)> {
        if self.in_flight >= self.total {
            return None;
        }
        let mut free = self.order.iter().filter(|(_, entry)| entry.wants && entry.in_flight < entry.lanes);
        free.next().map(|(&number, entry)| (number, entry.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_within_the_lanes() {
        let mut scheduler = Scheduler::new(5);
        for number in 1..=3 {
            scheduler.add(number, TransferId([number as u8; 16]));
            scheduler.set(number, true, 2);
        }
        let mut picked = Vec::new();
        while let Some((number, _)) = scheduler.next() {
            scheduler.begun(number);
            picked.push(number);
        }
        assert_eq!(picked, [1, 1, 2, 2, 3]);
        scheduler.ended(2);
        assert_eq!(scheduler.next().map(|(number, _)| number), Some(2));
        scheduler.set(2, false, 2);
        assert_eq!(scheduler.next().map(|(number, _)| number), Some(3));
        scheduler.remove(1);
        scheduler.remove(2);
        scheduler.begun(3);
        assert_eq!(scheduler.next(), None, "its lanes are full");
        scheduler.ended(3);
        scheduler.ended(3);
        scheduler.ended(3);
        assert_eq!(scheduler.in_flight, 0);
    }
}
