//! Which chunks of a transfer are verified, which are asked for, and what to ask for next.

use std::ops::Range;

/// Two bits for each chunk. Ranges are numbers of chunks below the total given at the start; what lies beyond is ignored.
#[derive(Clone, Debug)]
pub struct Chunks {
    total: u64,
    verified: Vec<u64>,
    taken: Vec<u64>,
    count: u64,
    /// No chunk below it is free.
    cursor: u64,
}

impl Chunks {
    /// Nothing is verified yet.
    pub fn new(total: u64) -> Self {
        let words = vec![0; total.div_ceil(64) as usize];
        Self { total, verified: words.clone(), taken: words, count: 0, cursor: 0 }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many are verified.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All are verified.
    pub fn is_whole(&self) -> bool {
        self.count == self.total
    }

    /// Whether that one is verified.
    pub fn is_verified(&self, index: u64) -> bool {
        get(&self.verified, index)
    }

    /// That one is verified; whether this is news.
    pub fn verify(&mut self, index: u64) -> bool {
        let news = index < self.total && !get(&self.verified, index);
        if news {
            set(&mut self.verified, index, true);
            self.count += 1;
        }
        news
    }

    /// These were asked for.
    pub fn take(&mut self, range: Range<u64>) {
        for index in range.start..range.end.min(self.total) {
            set(&mut self.taken, index, true);
        }
    }

    /// These will not come of that request any more. Those that are not verified can be asked for again.
    pub fn release(&mut self, range: Range<u64>) {
        for index in range.start..range.end.min(self.total) {
            set(&mut self.taken, index, false);
        }
        self.cursor = self.cursor.min(range.start);
    }

    /// The first range that is neither verified nor asked for: at least one chunk, then as long as `max_chunks` and, by
    /// the lengths given, `max_bytes` allow.
    pub fn next_span(&mut self, max_chunks: u64, max_bytes: u64, length: impl Fn(u64) -> u64) -> Option<Range<u64>> {
        let start = self.next_free()?;
        let (mut end, mut bytes) = (start + 1, length(start));
        while end < self.total && end - start < max_chunks && self.is_free(end) {
            bytes = bytes.saturating_add(length(end));
            if bytes > max_bytes {
                break;
            }
            end += 1;
        }
        Some(start..end)
    }

    fn next_free(&mut self) -> Option<u64> {
        while self.cursor < self.total {
            let word = (self.cursor / 64) as usize;
            let used = (self.verified[word] | self.taken[word]) >> (self.cursor % 64);
            let skip = u64::from(used.trailing_ones());
            if skip == 0 {
                return Some(self.cursor);
            }
            self.cursor = (self.cursor + skip).min((self.cursor / 64 + 1) * 64);
        }
        None
    }

    fn is_free(&self, index: u64) -> bool {
        !get(&self.verified, index) && !get(&self.taken, index)
    }
}

fn get(words: &[u64], index: u64) -> bool {
    words.get((index / 64) as usize).is_some_and(|word| word & (1 << (index % 64)) != 0)
}

fn set(words: &mut [u64], index: u64, on: bool) {
    if let Some(word) = words.get_mut((index / 64) as usize) {
        *word = if on { *word | (1 << (index % 64)) } else { *word & !(1 << (index % 64)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_asked_for_once_and_again_when_released() {
        let mut chunks = Chunks::new(200);
        let mut spans = Vec::new();
        while let Some(span) = chunks.next_span(7, 100, |_| 20) {
            chunks.take(span.clone());
            spans.push(span);
        }
        assert_eq!(spans.len(), 40);
        assert!(spans.iter().all(|span| span.end - span.start == 5), "{spans:?}");
        assert!((0..200).all(|index| chunks.verify(index) == (index != 200)));
        assert!(chunks.is_whole() && !chunks.verify(3) && !chunks.verify(200));

        let mut chunks = Chunks::new(130);
        chunks.verify(0);
        chunks.take(1..64);
        assert_eq!(chunks.next_span(100, 1000, |_| 1), Some(64..130));
        chunks.take(64..130);
        assert_eq!(chunks.next_span(100, 1000, |_| 1), None);
        chunks.verify(10);
        chunks.release(1..64);
        assert_eq!(chunks.next_span(100, 1000, |_| 1), Some(1..10));
        assert_eq!(chunks.next_span(100, 0, |_| 1), Some(1..2), "one at least");
    }
}
