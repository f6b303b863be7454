//! Exponential backoff with jitter, as a value: no clock and no randomness of its own.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// How long to wait after the n-th failure in a row: `first` doubled each time up to `cap`, then a uniform pick from
/// the upper half of that ("equal jitter"), so that nodes that failed together do not return together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Wait after the first failure, before jitter. Greater than zero.
    pub(crate) first: Duration,
    /// Longest wait. At least `first`.
    pub(crate) cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row; no wait after none.
    pub(crate) fn delay(&self, failures: u32, rng: &mut StdRng) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        // Thirty doublings of a millisecond are twelve days, far beyond any cap.
        let full = self.first.saturating_mul(1 << (failures - 1).min(30)).min(self.cap);
        full / 2 + full.mul_f64(rng.random_range(0.0..0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn it_doubles_up_to_the_cap_within_the_upper_half() {
        let backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(15) };
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(backoff.delay(0, &mut rng), Duration::ZERO);
        for (failures, full) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 15.0), (40, 15.0), (u32::MAX, 15.0)] {
            for _ in 0..100 {
                let delay = backoff.delay(failures, &mut rng).as_secs_f64();
                assert!((full / 2.0..=full).contains(&delay), "{failures} failures: {delay}");
            }
        }
    }
}
