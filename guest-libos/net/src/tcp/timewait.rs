//! TIME-WAIT (RFC 9293 3.10.7.4, 3.6.1): what is left of a connection that we closed first, as small records in a table
//! of their own. All last equally long, so the order of their making is the order of their end.

use alloc::collections::VecDeque;

use hashbrown::HashMap;

use super::Seq;
use super::isn::FlowHash;
use super::table::FlowKey;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Control, Segment};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWaitRecord {
    /// SND.NXT, beyond our FIN.
    pub(crate) sequence: Seq,
    /// RCV.NXT, beyond the peer's FIN.
    pub(crate) acknowledgment: Seq,
    pub(crate) expires_at: Instant,
}

/// What a segment for a TIME-WAIT record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitAnswer {
    /// Nothing.
    Ignore,
    /// An acknowledgment with these numbers.
    Acknowledge { sequence: Seq, acknowledgment: Seq },
    /// A new connection may begin; its initial sequence number must lie after this one.
    Reopen { after: Seq },
}

#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    records: HashMap<FlowKey, TimeWaitRecord, FlowHash>,
    /// Keys by expiry. A restarted or reused record leaves a stale entry behind, told by its time.
    order: VecDeque<(Instant, FlowKey)>,
    max: usize,
}

impl TimeWaitTable {
    pub(crate) fn new(max: usize, hash: FlowHash) -> Self {
        Self { records: HashMap::with_hasher(hash), order: VecDeque::new(), max }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Remembers a connection and returns how many others had to give way.
    pub(crate) fn insert(&mut self, key: FlowKey, record: TimeWaitRecord) -> u64 {
        if self.max == 0 {
            return 1;
        }
        let mut evicted = 0;
        // Stale entries count: the queue must not outgrow the table by more than restarts can cause.
        while self.records.len() >= self.max || self.order.len() >= 2 * self.max {
            let Some((at, key)) = self.order.pop_front() else { break };
            if self.records.get(&key).is_some_and(|record| record.expires_at == at) {
                self.records.remove(&key);
                evicted += 1;
            }
        }
        self.records.insert(key, record);
        self.order.push_back((record.expires_at, key));
        evicted
    }

    /// RFC 9293 3.10.7.4 for TIME-WAIT. `None`: there is no record.
    pub(crate) fn segment_arrives(
        &mut self,
        key: FlowKey,
        segment: &Segment<'_>,
        now: Instant,
        time_wait: Duration,
    ) -> Option<TimeWaitAnswer> {
        let record = self.records.get_mut(&key)?;
        if record.expires_at <= now {
            self.records.remove(&key);
            return None;
        }
        match segment.control {
            // RFC 1337: an old RST must not end TIME-WAIT early.
            Control::Rst => return Some(TimeWaitAnswer::Ignore),
            Control::Syn
                if segment.acknowledgment.is_none() && segment.sequence.is_after(record.acknowledgment) =>
            {
                let after = record.sequence;
                self.records.remove(&key);
                return Some(TimeWaitAnswer::Reopen { after });
            }
            _ => {}
        }
        if segment.sequence_len() == 0 {
            return Some(TimeWaitAnswer::Ignore);
        }
        let answer =
            TimeWaitAnswer::Acknowledge { sequence: record.sequence, acknowledgment: record.acknowledgment };
        if segment.control == Control::Fin {
            // The last acknowledgment was lost: another 2 MSL.
            let expires_at = now + time_wait;
            if expires_at != record.expires_at && self.order.len() < 2 * self.max {
                record.expires_at = expires_at;
                self.order.push_back((expires_at, key));
            }
        }
        Some(answer)
    }

    /// Forgets what has lasted long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.order.front()
            && at <= now
        {
            self.order.pop_front();
            if self.records.get(&key).is_some_and(|record| record.expires_at <= now) {
                self.records.remove(&key);
            }
        }
    }

    /// When the next record expires, or a little earlier.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.order.front().map_or(Instant::NEVER, |&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_WAIT: Duration = Duration::from_secs(60);

    fn table(max: usize) -> TimeWaitTable {
        TimeWaitTable::new(max, FlowHash::new([1; 16]))
    }

    fn record(expires_s: u64) -> TimeWaitRecord {
        TimeWaitRecord {
            sequence: Seq::new(500),
            acknowledgment: Seq::new(900),
            expires_at: Instant::from_millis(expires_s * 1000),
        }
    }

    fn segment(control: Control, sequence: u32) -> Segment<'static> {
        Segment {
            source_port: 1,
            destination_port: 2,
            sequence: Seq::new(sequence),
            acknowledgment: (control != Control::Syn).then_some(Seq::new(500)),
            control,
            window: 100,
            options: &[],
            payload: &[],
        }
    }

    #[test]
    fn time_wait_repeated_fin_is_acknowledged_and_restarts_the_wait() {
        let mut table = table(10);
        table.insert(FlowKey(1), record(60));
        let at_30 = Instant::from_millis(30_000);
        let answer = table.segment_arrives(FlowKey(1), &segment(Control::Fin, 899), at_30, TIME_WAIT);
        let expected = TimeWaitAnswer::Acknowledge { sequence: Seq::new(500), acknowledgment: Seq::new(900) };
        assert_eq!(answer, Some(expected));
        table.expire(Instant::from_millis(60_000));
        assert_eq!(table.len(), 1);
        table.expire(Instant::from_millis(90_000));
        assert_eq!((table.len(), table.next_deadline()), (0, Instant::NEVER));
    }

    #[test]
    fn time_wait_rst_and_bare_ack_are_ignored() {
        let mut table = table(10);
        table.insert(FlowKey(1), record(60));
        for control in [Control::Rst, Control::None] {
            let answer = table.segment_arrives(FlowKey(1), &segment(control, 900), Instant::ZERO, TIME_WAIT);
            assert_eq!(answer, Some(TimeWaitAnswer::Ignore));
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn time_wait_syn_reopens_only_with_a_later_sequence_number() {
        let mut table = table(10);
        table.insert(FlowKey(1), record(60));
        let old = table.segment_arrives(FlowKey(1), &segment(Control::Syn, 800), Instant::ZERO, TIME_WAIT);
        assert!(matches!(old, Some(TimeWaitAnswer::Acknowledge { .. })));
        let new = table.segment_arrives(FlowKey(1), &segment(Control::Syn, 901), Instant::ZERO, TIME_WAIT);
        assert_eq!(new, Some(TimeWaitAnswer::Reopen { after: Seq::new(500) }));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn time_wait_full_table_evicts_the_oldest() {
        let mut table = table(2);
        assert_eq!(table.insert(FlowKey(1), record(60)), 0);
        assert_eq!(table.insert(FlowKey(2), record(61)), 0);
        assert_eq!(table.insert(FlowKey(3), record(62)), 1);
        let gone = table.segment_arrives(FlowKey(1), &segment(Control::Fin, 899), Instant::ZERO, TIME_WAIT);
        assert_eq!((gone, table.len()), (None, 2));
    }

    #[test]
    fn time_wait_restarts_do_not_grow_without_bound() {
        let mut table = table(4);
        table.insert(FlowKey(1), record(60));
        for ms in 0..1_000 {
            let now = Instant::from_millis(ms);
            let _ = table.segment_arrives(FlowKey(1), &segment(Control::Fin, 899), now, TIME_WAIT);
        }
        assert!(table.order.len() <= 8);
    }
}
