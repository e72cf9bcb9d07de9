//! Which packet a connection's work was for, when the service goes on with it later: so that records of a request that waited
//! for the disk are that request's from beginning to end.

use alloc::vec;
use alloc::vec::Vec;
use exos_net::ConnId;
use exos_trace::Following;

/// By connection.
pub(super) struct Aside {
    followed: Vec<u64>,
    /// Some of them may be other than 0. While nobody records, this is all that is looked at.
    any: bool,
}

impl Aside {
    pub(super) fn new(max_connections: usize) -> Self {
        Self { followed: vec![0; max_connections], any: false }
    }

    /// What is worked on is this connection's.
    #[inline]
    pub(super) fn note(&mut self, connection: ConnId) {
        let followed = exos_trace::followed();
        self.any |= followed != 0;
        if self.any
            && let Some(place) = self.followed.get_mut(connection.index())
        {
            *place = followed;
        }
    }

    /// Goes on with it.
    #[inline]
    pub(super) fn again(&self, connection: ConnId) -> Following {
        let followed = if self.any { self.followed.get(connection.index()) } else { None };
        exos_trace::follow_again(followed.copied().unwrap_or(0))
    }
}
