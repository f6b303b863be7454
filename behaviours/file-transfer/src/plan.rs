//! How a transfer is carried out: three choices that know nothing of each other. A mode is a row of them.

/// When bytes may leave. The gate of a choice is a file under `pacing/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As fast as the link takes them.
    #[default]
    Unlimited,
}

/// Whose span comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// The transfer that was accepted first.
    #[default]
    Fifo,
}

/// The choices for one transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// When bytes may leave.
    pub pacing: Pacing,
    /// Whose span comes next.
    pub scheduling: Scheduling,
    /// Requests in flight at most; 0 stands for [`Config::in_flight`](crate::Config::in_flight).
    pub lanes: usize,
    /// Whether receivers may be more than one at a time.
    pub receivers: Receivers,
}

/// How the receivers of one offer stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receivers {
    /// Each is served by the sender, as if it were alone.
    #[default]
    Apart,
}

impl Plan {
    /// The simplest and most reliable one.
    pub const NORMAL: Self =
        Self { pacing: Pacing::Unlimited, scheduling: Scheduling::Fifo, lanes: 0, receivers: Receivers::Apart };

    /// The name of the mode that is this row.
    pub fn mode(&self) -> &'static str {
        "normal"
    }
}
