//! Questions to name servers over TCP (RFC 7766) on a stack that is somebody's: a connection for each, beside those of its user,
//! who does not see them.

use alloc::vec::Vec;

use exos_net::{
    AckDue, AckPolicy, ConnId, ControlFrame, Data, Duration, Instant, SegmentEvents, Stack, Transmit,
};

use crate::resolver::QueryId;
use crate::stream::{StreamAnswer, StreamQuery};

/// How long a connection that we have closed has to end.
const CLOSE_TIME: Duration = Duration::from_secs(3);

#[derive(Debug)]
enum State {
    Asked {
        query: QueryId,
        answer: StreamAnswer,
    },
    /// The answer is there, or not waited for any more. The connection is reset then if it has not ended.
    Closed {
        until: Instant,
    },
}

#[derive(Debug)]
struct Stream {
    connection: ConnId,
    state: State,
}

/// What came of a question.
#[derive(Debug)]
pub enum Outcome {
    /// There is an answer: for [`crate::Resolver::receive_stream`].
    Answered(QueryId, StreamAnswer),
    /// There is none: for [`crate::Resolver::stream_failed`].
    Failed(QueryId),
}

/// The connections. There are no more than the resolver has queries, and those that end, which takes seconds at most.
#[derive(Debug, Default)]
pub struct Streams(Vec<Stream>);

impl Streams {
    /// Whether a connection is one of these.
    #[inline]
    pub fn contains(&self, connection: ConnId) -> bool {
        self.place(connection).is_some()
    }

    fn place(&self, connection: ConnId) -> Option<usize> {
        self.0.iter().position(|stream| stream.connection == connection)
    }

    /// Asks over a connection of its own; `false`: there can be none.
    pub fn ask<D: Data, T: Transmit<D>>(
        &mut self,
        now: Instant,
        query: &StreamQuery,
        question: Option<D>,
        stack: &mut Stack<D>,
        tx: &mut T,
    ) -> bool {
        let Some(question) = question else { return false };
        let Ok(connection) = stack.connect(now, query.to) else { return false };
        let state = State::Asked { query: query.id, answer: StreamAnswer::default() };
        self.0.push(Stream { connection, state });
        // It is new, so neither is refused; the question leaves with the handshake's last acknowledgment.
        let _ = stack.send(connection, question);
        let _ = stack.output(connection, now, tx, AckPolicy::IfDue);
        true
    }

    /// A segment came on one of the connections.
    pub fn segment<D: Data, T: Transmit<D>>(
        &mut self,
        now: Instant,
        events: &SegmentEvents<'_>,
        stack: &mut Stack<D>,
        tx: &mut T,
    ) -> Option<Outcome> {
        let connection = events.conn;
        let place = self.place(connection)?;
        let stream = &mut self.0[place];
        let is_over = events.peer_closed || events.ended.is_some();
        let outcome = match &mut stream.state {
            State::Asked { query, answer } => {
                answer.push(events.data);
                answer.push(stack.pending(connection));
                if answer.message().is_some() {
                    Some(Outcome::Answered(*query, core::mem::take(answer)))
                } else if is_over {
                    Some(Outcome::Failed(*query))
                } else {
                    None
                }
            }
            // Nobody takes what comes after the close (RFC 2525 2.17).
            State::Closed { .. } if !events.data.is_empty() || events.readable => {
                self.0.swap_remove(place);
                let reset = stack.abort(connection);
                send_control(tx, reset.as_ref().or(events.last_ack.as_ref()));
                return None;
            }
            State::Closed { .. } => None,
        };
        if events.ended.is_some() {
            self.0.swap_remove(place);
            send_control(tx, events.last_ack.as_ref());
            return outcome;
        }
        let mut ack = events.reply;
        if events.readable {
            let len = stack.pending(connection).len();
            ack = ack.max(stack.consume(connection, len).unwrap_or(AckDue::None));
        }
        if outcome.is_some() {
            // There is one question a connection. The close does nothing where it ends already.
            stream.state = State::Closed { until: now + CLOSE_TIME };
            let _ = stack.close(connection);
        }
        let ack = if ack == AckDue::Now { AckPolicy::Now } else { AckPolicy::IfDue };
        let _ = stack.output(connection, now, tx, ack);
        outcome
    }

    /// A timer ended a connection; `None`: it is not one of these.
    pub fn ended(&mut self, connection: ConnId) -> Option<Option<Outcome>> {
        let place = self.place(connection)?;
        Some(match self.0.swap_remove(place).state {
            State::Asked { query, .. } => Some(Outcome::Failed(query)),
            State::Closed { .. } => None,
        })
    }

    /// The answer to a question is not waited for any more.
    pub fn hang_up<D: Data, T: Transmit<D>>(&mut self, id: QueryId, stack: &mut Stack<D>, tx: &mut T) {
        self.reset(stack, tx, |state| matches!(state, State::Asked { query, .. } if *query == id));
    }

    /// Resets what has been closed and has not ended in time.
    pub fn expire<D: Data, T: Transmit<D>>(&mut self, now: Instant, stack: &mut Stack<D>, tx: &mut T) {
        self.reset(stack, tx, |state| matches!(state, State::Closed { until } if *until <= now));
    }

    /// When [`Self::expire`] has something to do.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let until = |stream: &Stream| match stream.state {
            State::Asked { .. } => None,
            State::Closed { until } => Some(until),
        };
        self.0.iter().filter_map(until).min()
    }

    fn reset<D: Data, T: Transmit<D>>(
        &mut self,
        stack: &mut Stack<D>,
        tx: &mut T,
        is_it: impl Fn(&State) -> bool,
    ) {
        self.0.retain(|stream| {
            let is_it = is_it(&stream.state);
            if is_it {
                send_control(tx, stack.abort(stream.connection).as_ref());
            }
            !is_it
        });
    }
}

/// Sends a frame of the stack's own; if it is lost, the peer makes up for it.
fn send_control<D: Data, T: Transmit<D>>(tx: &mut T, frame: Option<&ControlFrame<'static>>) {
    if let Some(frame) = frame {
        let _ = tx.transmit_control(frame);
    }
}
