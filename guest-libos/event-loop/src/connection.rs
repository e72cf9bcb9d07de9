//! What happens on a connection, between the stack and the service.

use super::service::{Io, Service};
use super::transmit::Sender;
use exos_net::{AckDue, AckPolicy, ConnId, ControlFrame, Data, End, Instant, KeepError, SegmentEvents};

/// What a segment means for the service, and its answer.
pub(super) fn segment<S: Service>(
    service: &mut S,
    io: &mut Io<'_, S::Data>,
    sender: &mut Sender<'_, S::Data>,
    events: &SegmentEvents<'_>,
    now: Instant,
) {
    let connection = events.conn;
    if events.opened {
        service.opened(connection);
    }
    let mut ack = if events.reply == AckDue::Now { AckPolicy::Now } else { AckPolicy::IfDue };
    // Most segments are bare acknowledgments and mean nothing to the service.
    let offered = !events.data.is_empty() || events.readable || events.low_water;
    if offered || events.peer_closed {
        let _span = exos_trace::span!("service");
        // First, so that what has just come finds the room.
        let resumed = events.low_water && service.resume(io, connection);
        if !events.data.is_empty() {
            let used = service.input(io, connection, events.data);
            if used < events.data.len()
                && io.stack.keep(connection, &events.data[used..]) == Err(KeepError::NoBuffer)
            {
                // The buffers for what waits are used up: without these bytes the connection is of no use.
                exos_trace::counter!("connections aborted for lack of buffers", 1);
                let reset = io.stack.abort(connection);
                service.ended(connection, End::Reset);
                send_control(sender, reset.as_ref());
                return;
            }
        } else if events.readable || resumed {
            offer_kept(service, io, connection, &mut ack);
        }
        if events.peer_closed {
            service.peer_closed(io, connection);
        }
    }
    if let Some(how) = events.ended {
        service.ended(connection, how);
        send_control(sender, events.last_ack.as_ref());
        return;
    }
    let _span = exos_trace::span!("tcp output");
    output(io, sender, connection, now, ack);
}

/// Sends what a connection has to send after one of its events.
#[inline]
pub(super) fn output<D: Data>(
    io: &mut Io<'_, D>,
    sender: &mut Sender<'_, D>,
    connection: ConnId,
    now: Instant,
    ack: AckPolicy,
) {
    // Stale only if the service aborted the connection, whose reset the loop sends.
    let _ = io.stack.output(connection, now, sender, ack);
}

/// Sends a frame of the stack's own; if it is lost, the peer makes up for it.
pub(super) fn send_control<D: Data>(sender: &mut Sender<'_, D>, frame: Option<&ControlFrame<'static>>) {
    if let Some(frame) = frame {
        let _ = exos_net::Transmit::<D>::transmit_control(sender, frame);
    }
}

/// Offers bytes that were kept to the service. They are few and this is rare, so they are copied out of the stack.
pub(super) fn offer_kept<S: Service>(
    service: &mut S,
    io: &mut Io<'_, S::Data>,
    connection: ConnId,
    ack: &mut AckPolicy,
) {
    let kept = io.stack.pending(connection).to_vec();
    if kept.is_empty() {
        return;
    }
    let used = service.input(io, connection, &kept);
    if io.stack.consume(connection, used) == Ok(AckDue::Now) {
        *ack = AckPolicy::Now;
    }
}
