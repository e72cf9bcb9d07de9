//! How far a connection is, told from the segments that pass (RFC 5382 5, RFC 7857 2). The ends decide everything; this only decides how long the
//! connection is remembered. So what a stranger can send must not end it: a RST that the ends did not believe is forgotten again.

use crate::flows::{Flow, State};
use crate::wire::tcp::{ACK, FIN, RST, SYN};

/// The server answered the SYN.
const ANSWERED: u8 = 1;
/// The handshake was seen to its end.
const OPEN: u8 = 2;
/// A FIN from the client.
const FIN_CLIENT: u8 = 4;
/// A FIN from the server.
const FIN_SERVER: u8 = 8;
/// A RST, from anybody.
const RESET: u8 = 16;
/// The client went on after it.
const ON_CLIENT: u8 = 32;
/// The server went on after it.
const ON_SERVER: u8 = 64;

/// How far the acknowledgment that ends the handshake may be from the server's first sequence number: data on the SYN (RFC 7413)
/// may have had an answer before.
const FIRST_DATA_MAX: u32 = 1 << 16;

/// A segment, as far as the state goes by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
}

/// What a segment did to the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Nothing,
    /// The connection begins, in the place of one that had ended.
    Opened,
    /// Its handshake is complete.
    Established,
}

/// A segment from the client.
#[inline]
pub(crate) fn from_client<A>(flow: &mut Flow<A>, segment: Segment) -> Event {
    let Segment { flags, acknowledgment, .. } = segment;
    if flags & RST != 0 {
        reset(flow);
    } else if flags & (SYN | ACK) == SYN {
        if flow.state == State::Closing {
            flow.state = State::HalfOpen;
            flow.seen = 0;
            return Event::Opened;
        }
    } else if flags & ACK != 0 {
        let past_syn = acknowledgment.wrapping_sub(flow.server_isn).wrapping_sub(1);
        if flow.state == State::HalfOpen && flow.seen & ANSWERED != 0 && past_syn < FIRST_DATA_MAX {
            flow.state = State::Established;
            flow.seen |= OPEN;
            fin(flow, flags, FIN_CLIENT);
            return Event::Established;
        }
        fin(flow, flags, FIN_CLIENT);
        goes_on(flow, ON_CLIENT);
    }
    Event::Nothing
}

/// A segment from the server.
#[inline]
pub(crate) fn from_server<A>(flow: &mut Flow<A>, segment: Segment) -> Event {
    let Segment { flags, sequence, .. } = segment;
    if flags & RST != 0 {
        reset(flow);
    } else if flags & (SYN | ACK) == SYN | ACK {
        if flow.state == State::HalfOpen {
            flow.seen |= ANSWERED;
            flow.server_isn = sequence;
        }
    } else {
        fin(flow, flags, FIN_SERVER);
        goes_on(flow, ON_SERVER);
    }
    Event::Nothing
}

fn reset<A>(flow: &mut Flow<A>) {
    flow.seen = (flow.seen | RESET) & !(ON_CLIENT | ON_SERVER);
    flow.state = State::Closing;
}

/// A connection has ended when it has one each way: with one, the other way may go on for as long as it likes.
#[inline(always)]
fn fin<A>(flow: &mut Flow<A>, flags: u8, which: u8) {
    if flags & FIN != 0 && flow.seen & OPEN != 0 {
        flow.seen |= which;
        if flow.seen & (FIN_CLIENT | FIN_SERVER) == FIN_CLIENT | FIN_SERVER {
            flow.state = State::Closing;
        }
    }
}

/// After a RST that one end believes, that end sends nothing but more of them.
#[inline(always)]
fn goes_on<A>(flow: &mut Flow<A>, who: u8) {
    if flow.seen & RESET == 0 {
        return;
    }
    flow.seen |= who;
    let both = FIN_CLIENT | FIN_SERVER;
    if flow.seen & (ON_CLIENT | ON_SERVER) == ON_CLIENT | ON_SERVER {
        flow.seen &= !(RESET | ON_CLIENT | ON_SERVER);
        if flow.seen & OPEN != 0 && flow.seen & both != both {
            flow.state = State::Established;
        }
    }
}
