//! Panics of tasks, which tokio survives: printed as always, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Count panics from now on, beside what was done about them before.
pub fn count() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        print(info);
    }));
}

/// Panics since [`count`] was called.
pub(crate) fn so_far() -> u64 {
    COUNT.load(Ordering::Relaxed)
}
