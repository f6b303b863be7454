//! What a node may see for itself of a peer's reliability. There is no variant for what others say: hearsay has no way in.

/// One observation of our own. It moves the number of its [`Subject`] by its gain towards 1 or towards 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Our dial led to a connection with this peer.
    DialOk,
    /// No address of the peer that we tried answered, or somebody else did.
    DialFailed,
    /// It answered our probe in time.
    ProbeAnswered,
    /// It did not.
    ProbeMissed,
    /// It served, or took, a whole transfer.
    TransferCompleted,
    /// A transfer broke off on its side.
    TransferFailed,
    /// It gave a receipt for a message.
    MessageDelivered,
    /// It was connected and gave no receipt in time.
    MessageUnanswered,
    /// As a seed it registered us or gave its list; as a neighbour it answered a question of ours.
    ListServed,
    /// It was connected and did not.
    ListFailed,
}

/// What the evidence is about. Each subject has a value of its own, so that a thousand answered probes do not hide that
/// each transfer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Can it be dialled?
    Dial,
    /// Does it answer to probes?
    Probe,
    /// Do transfers with it come to their end?
    Transfer,
    /// Does it acknowledge messages?
    Message,
    /// Does it answer questions about others?
    List,
}

impl Subject {
    /// Every subject, in the order in which values are stored.
    pub const ALL: [Self; 5] = [Self::Dial, Self::Probe, Self::Transfer, Self::Message, Self::List];

    /// Its share of the whole number; all shares together are 1.
    pub fn weight(self) -> f64 {
        match self {
            Self::Dial | Self::Probe => 0.25,
            Self::Transfer | Self::Message => 0.2,
            Self::List => 0.1,
        }
    }
}

impl Evidence {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::DialOk,
        Self::DialFailed,
        Self::ProbeAnswered,
        Self::ProbeMissed,
        Self::TransferCompleted,
        Self::TransferFailed,
        Self::MessageDelivered,
        Self::MessageUnanswered,
        Self::ListServed,
        Self::ListFailed,
    ];

    /// What it is about.
    pub fn subject(self) -> Subject {
        match self {
            Self::DialOk | Self::DialFailed => Subject::Dial,
            Self::ProbeAnswered | Self::ProbeMissed => Subject::Probe,
            Self::TransferCompleted | Self::TransferFailed => Subject::Transfer,
            Self::MessageDelivered | Self::MessageUnanswered => Subject::Message,
            Self::ListServed | Self::ListFailed => Subject::List,
        }
    }

    /// Whether it speaks for the peer.
    pub fn is_success(self) -> bool {
        use Evidence::{DialOk, ListServed, MessageDelivered, ProbeAnswered, TransferCompleted};
        matches!(self, DialOk | ProbeAnswered | TransferCompleted | MessageDelivered | ListServed)
    }

    /// The part of the way to 1, or to 0, that the subject's value goes. What is frequent moves it little; failures
    /// weigh more than successes, since a choice is between those that mostly succeed.
    pub fn gain(self) -> f64 {
        match self {
            Self::ProbeAnswered => 0.05,
            Self::MessageDelivered => 0.1,
            Self::ProbeMissed => 0.15,
            Self::DialOk | Self::TransferCompleted | Self::ListServed | Self::MessageUnanswered => 0.2,
            Self::DialFailed | Self::TransferFailed | Self::ListFailed => 0.3,
        }
    }

    /// The stable word for it. What stands before the hyphen is the subject.
    pub fn word(self) -> &'static str {
        match self {
            Self::DialOk => "dial-ok",
            Self::DialFailed => "dial-failed",
            Self::ProbeAnswered => "probe-answered",
            Self::ProbeMissed => "probe-missed",
            Self::TransferCompleted => "transfer-completed",
            Self::TransferFailed => "transfer-failed",
            Self::MessageDelivered => "message-delivered",
            Self::MessageUnanswered => "message-unanswered",
            Self::ListServed => "list-served",
            Self::ListFailed => "list-failed",
        }
    }
}
