//! What the generator knows of one connection.

use crate::ResponseCounter;

/// A connection, or a place for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<C> {
    /// Whose place it is.
    pub(super) connection: Option<C>,
    pub(super) counter: ResponseCounter,
    /// When its request was asked, or when it was done with.
    pub(super) since_ns: u64,
    pub(super) work: Work,
}

/// Where a connection's work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Work {
    /// It is being made; its request waits.
    Connecting,
    /// Its request is under way.
    Asked,
    /// Its last request was answered; it is to end.
    Answered,
    /// Its last request failed; it is to end.
    #[default]
    Failed,
}

impl Work {
    /// Whether there is a request without its answer.
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Self::Connecting | Self::Asked)
    }
}

impl<C> Default for Place<C> {
    fn default() -> Self {
        Self { connection: None, counter: ResponseCounter::default(), since_ns: 0, work: Work::default() }
    }
}

impl<C> Place<C> {
    /// A connection that is being made for a request.
    pub(super) fn begin(connection: C, now_ns: u64) -> Self {
        Self {
            connection: Some(connection),
            counter: ResponseCounter::default(),
            since_ns: now_ns,
            work: Work::Connecting,
        }
    }
}
