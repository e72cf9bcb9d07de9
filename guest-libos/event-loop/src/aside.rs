//! Which packet a connection's work is for, when it is done later: because it waited for the disk, or for the client to take
//! what was sent before. So the records of a request are that request's from beginning to end.
//!
//! | event | subject | argument |
//! | --- | --- | --- |
//! | "data received" | a packet with data | the one before it on the same connection, or 0 |
//! | "work goes on" | the packet for which is worked again | the packet that came now, 1 if that is not followed; the disk request that is done; 0: neither |
//! | "answer acknowledged" | the packet whose answer the client has | the packet that said so, 1 if that is not followed |

use alloc::vec;
use alloc::vec::Vec;
use exos_net::ConnId;
use exos_trace::Following;

/// A packet that is not followed.
const NOT_FOLLOWED: u64 = 1;

/// By connection.
pub(super) struct Aside {
    noted: Vec<Noted>,
    /// Some of them may be of a packet. While nobody records, this is all that is looked at.
    any: bool,
}

/// The last packet with data of a connection, if it is followed.
#[derive(Clone, Copy, Default)]
struct Noted {
    packet: u64,
    /// The client has all that was sent for it.
    acknowledged: bool,
}

impl Aside {
    pub(super) fn new(max_connections: usize) -> Self {
        Self { noted: vec![Noted::default(); max_connections], any: false }
    }

    /// A new connection has this place.
    #[inline]
    pub(super) fn forget(&mut self, connection: ConnId) {
        if self.any
            && let Some(noted) = self.noted.get_mut(connection.index())
        {
            *noted = Noted::default();
        }
    }

    /// The packet that is worked on has data of this connection.
    #[inline]
    pub(super) fn note(&mut self, connection: ConnId) {
        let packet = exos_trace::followed();
        self.any |= packet != 0;
        if self.any
            && let Some(noted) = self.noted.get_mut(connection.index())
        {
            let before = core::mem::replace(noted, Noted { packet, acknowledged: false });
            tell(packet, before);
        }
    }

    /// The packet that is worked on only acknowledges: what follows is work for the one whose answer it acknowledges, of which
    /// so many bytes are not acknowledged yet.
    #[inline]
    pub(super) fn acknowledged(
        &mut self,
        connection: ConnId,
        unacknowledged_bytes: usize,
    ) -> Option<Following> {
        if !self.any {
            return None;
        }
        let noted = self.noted.get_mut(connection.index())?;
        if noted.packet == 0 || noted.acknowledged {
            return None;
        }
        let cause = exos_trace::followed().max(NOT_FOLLOWED);
        let following = exos_trace::follow_again(noted.packet);
        if unacknowledged_bytes == 0 {
            noted.acknowledged = true;
            exos_trace::event!("answer acknowledged", noted.packet, cause);
            return None;
        }
        exos_trace::event!("work goes on", noted.packet, cause);
        Some(following)
    }

    /// Goes on with a connection, without a packet of its own: because of a disk request, if that is known.
    #[inline]
    pub(super) fn again(&mut self, connection: ConnId, cause: u64) -> Option<Following> {
        if !self.any {
            return None;
        }
        let noted = self.noted.get_mut(connection.index())?;
        if noted.packet == 0 {
            return None;
        }
        noted.acknowledged = false;
        let following = exos_trace::follow_again(noted.packet);
        exos_trace::event!("work goes on", noted.packet, cause);
        Some(following)
    }
}

/// Who sends more has the answer to what it sent before, unless it sends ahead.
#[inline]
fn tell(packet: u64, before: Noted) {
    if packet != 0 {
        exos_trace::event!("data received", packet, before.packet);
    } else if before.packet != 0 && !before.acknowledged {
        let _following = exos_trace::follow_again(before.packet);
        exos_trace::event!("answer acknowledged", before.packet, NOT_FOLLOWED);
    }
}
