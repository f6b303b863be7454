//! A steady rate, with a bounded burst after a pause.

use std::time::{Duration, Instant};

use super::Pace;
use crate::manifest::PIECE;

/// The bucket fills with `rate` bytes a second up to `burst`. A step is granted as soon as its bytes are there; steps wait
/// in the order in which they asked.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: u64,
    burst: u64,
    /// When the bucket was, or will be, empty: what passed until now and what is promised is accounted for.
    empty_at: Instant,
}

impl TokenBucket {
    /// A full bucket; both at least 1.
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        let (rate, burst) = (rate.max(1), burst.max(1));
        let mut bucket = Self { rate, burst, empty_at: now };
        bucket.empty_at = now.checked_sub(bucket.time_for(burst)).unwrap_or(now);
        bucket
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Pace for TokenBucket {
    fn ready_at(&mut self, bytes: usize, now: Instant) -> Instant {
        // A full bucket is no fuller for having waited.
        if let Some(full) = now.checked_sub(self.time_for(self.burst)) {
            self.empty_at = self.empty_at.max(full);
        }
        let ready = self.empty_at.checked_add(self.time_for(bytes as u64)).unwrap_or(self.empty_at);
        self.empty_at = ready;
        ready.max(now)
    }

    fn step(&self) -> usize {
        usize::try_from(self.burst).unwrap_or(PIECE).clamp(1, PIECE)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

    use super::*;

    #[test]
    fn the_rate_is_kept_and_no_burst_is_above_the_bucket() {
        let start = Instant::now();
        let (rate, burst) = (100_000_u64, 8_192_u64);
        let mut bucket = TokenBucket::new(rate, burst, start);
        let (mut now, mut passed) = (start, Vec::new());
        let mut total = 0_u64;
        while now < start + Duration::from_secs(10) {
            now = bucket.ready_at(bucket.step(), now);
            total += bucket.step() as u64;
            passed.push((now - start, total));
        }
        let average = total as f64 / 10.0;
        assert!((average / rate as f64 - 1.0).abs() < 0.05, "{average}");
        for window in passed.windows(8) {
            let time = (window[7].0 - window[0].0).as_secs_f64();
            let bytes = (window[7].1 - window[0].1) as f64;
            assert!(bytes <= rate as f64 * time + burst as f64 + 1.0, "{bytes} in {time}");
        }
        // After a long pause one bucket is there at once, and not more.
        now += Duration::from_secs(100);
        assert_eq!(bucket.ready_at(burst as usize, now), now);
        assert!(bucket.ready_at(1_000, now) >= now + Duration::from_millis(9));
    }

    #[test]
    fn absurd_rates_do_no_harm() {
        let now = Instant::now();
        for (rate, burst) in [(1, u64::MAX), (u64::MAX, 1), (0, 0)] {
            let mut bucket = TokenBucket::new(rate, burst, now);
            assert!(bucket.ready_at(usize::MAX, now) >= now);
            assert!(bucket.step() >= 1);
        }
    }
}
