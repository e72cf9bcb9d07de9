//! Questions to name servers over TCP (RFC 7766), where an answer does not fit a datagram: on the stack of the loop, a connection
//! for each, beside those of the service, which does not see them.

use crate::connection::send_control;
use crate::transmit::Sender;
use alloc::vec::Vec;
use exos_dns::{QueryId, StreamAnswer, StreamQuery};
use exos_net::{AckDue, AckPolicy, ConnId, Data, Instant, SegmentEvents, Stack};

#[derive(Debug)]
struct Stream {
    connection: ConnId,
    /// `None`: the answer is there or not waited for any more, and the connection ends.
    query: Option<QueryId>,
    answer: StreamAnswer,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(QueryId, StreamAnswer),
    Failed(QueryId),
}

/// The connections. There are no more than the resolver has queries, and those that end.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Stream>);

impl Streams {
    /// Whether a connection is one of these.
    #[inline]
    pub(crate) fn contains(&self, connection: ConnId) -> bool {
        self.0.iter().any(|stream| stream.connection == connection)
    }

    /// Asks over a connection of its own; `false`: there can be none.
    pub(crate) fn ask<D: Data>(
        &mut self,
        now: Instant,
        query: &StreamQuery,
        question: Option<D>,
        stack: &mut Stack<D>,
        sender: &mut Sender<'_, D>,
    ) -> bool {
        let Some(question) = question else { return false };
        let Ok(connection) = stack.connect(now, query.to) else { return false };
        let (query, answer) = (Some(query.id), StreamAnswer::default());
        self.0.push(Stream { connection, query, answer });
        // It is new, so neither is refused; the question leaves with the handshake's last acknowledgment.
        let _ = stack.send(connection, question);
        let _ = stack.output(connection, now, sender, AckPolicy::IfDue);
        true
    }

    /// A segment came on one of the connections.
    pub(crate) fn segment<D: Data>(
        &mut self,
        now: Instant,
        events: &SegmentEvents<'_>,
        stack: &mut Stack<D>,
        sender: &mut Sender<'_, D>,
    ) -> Option<Outcome> {
        let connection = events.conn;
        let place = self.0.iter().position(|stream| stream.connection == connection)?;
        let stream = &mut self.0[place];
        let mut ack = events.reply;
        // What follows the answer is of no use.
        if stream.query.is_some() {
            stream.answer.push(events.data);
            stream.answer.push(stack.pending(connection));
        }
        if events.readable {
            let len = stack.pending(connection).len();
            ack = ack.max(stack.consume(connection, len).unwrap_or(AckDue::None));
        }
        let is_over = events.peer_closed || events.ended.is_some();
        let outcome = if stream.answer.message().is_some() {
            stream.query.take().map(|query| Outcome::Answered(query, core::mem::take(&mut stream.answer)))
        } else if is_over {
            stream.query.take().map(Outcome::Failed)
        } else {
            None
        };
        if events.ended.is_some() {
            self.0.swap_remove(place);
            send_control(sender, events.last_ack.as_ref());
            return outcome;
        }
        if outcome.is_some() {
            // There is one question a connection. The close does nothing where it ends already.
            let _ = stack.close(connection);
        }
        let ack = if ack == AckDue::Now { AckPolicy::Now } else { AckPolicy::IfDue };
        let _ = stack.output(connection, now, sender, ack);
        outcome
    }

    /// A timer ended a connection; `None`: it is not one of these.
    pub(crate) fn ended(&mut self, connection: ConnId) -> Option<Option<Outcome>> {
        let place = self.0.iter().position(|stream| stream.connection == connection)?;
        Some(self.0.swap_remove(place).query.map(Outcome::Failed))
    }

    /// The answer to a question is not waited for any more.
    pub(crate) fn hang_up<D: Data>(&mut self, id: QueryId, stack: &mut Stack<D>, sender: &mut Sender<'_, D>) {
        self.0.retain(|stream| {
            let is_it = stream.query == Some(id);
            if is_it {
                send_control(sender, stack.abort(stream.connection).as_ref());
            }
            !is_it
        });
    }
}
