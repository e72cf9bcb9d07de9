//! TIME-WAIT (RFC 9293 3.10.7.4, 3.6.1): what is left of a connection that we closed first, as small records in a table
//! of their own. All last equally long, so the order of their making is the order of their end.

use alloc::collections::VecDeque;

use hashbrown::HashMap;

use super::Seq;
use super::isn::FlowHash;
use super::pairs::Pairs;
use super::table::FlowKey;
use super::timestamps::TimestampState;
use crate::config::Config;
use crate::time::Instant;
use crate::wire::tcp::{Control, Segment};
use crate::wire::tcp_options::Timestamps;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWaitRecord {
    /// SND.NXT, beyond our FIN.
    pub(crate) sequence: Seq,
    /// RCV.NXT, beyond the peer's FIN.
    pub(crate) acknowledgment: Seq,
    pub(crate) expires_at: Instant,
    pub(crate) timestamps: TimestampState,
}

impl TimeWaitRecord {
    /// RFC 6191 2: whether a SYN begins a new connection; by its timestamps where both connections have them, by its
    /// sequence number where that says nothing.
    fn is_succeeded_by(&self, syn: &Segment<'_>, now: Instant, config: &Config) -> bool {
        let timestamps = Timestamps::parse(syn.options).filter(|_| config.timestamps);
        let by_timestamps = self.timestamps.is_succeeded_by(timestamps, now);
        by_timestamps.unwrap_or_else(|| syn.sequence.is_after(self.acknowledgment))
    }
}

/// What a segment for a TIME-WAIT record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitAnswer {
    /// Nothing.
    Ignore,
    /// An acknowledgment with these numbers.
    Acknowledge { sequence: Seq, acknowledgment: Seq, timestamps: Option<Timestamps> },
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

    /// Whether the flow is in TIME-WAIT.
    pub(crate) fn contains(&self, key: FlowKey, now: Instant) -> bool {
        self.records.get(&key).is_some_and(|record| record.expires_at > now)
    }

    /// Remembers a connection and returns how many others had to give way.
    pub(crate) fn insert(&mut self, key: FlowKey, record: TimeWaitRecord, pairs: &mut Pairs) -> u64 {
        if self.max == 0 {
            return 1;
        }
        let mut evicted = 0;
        // Stale entries count: the queue must not outgrow the table by more than restarts can cause.
        while self.records.len() >= self.max || self.order.len() >= 2 * self.max {
            let Some((at, key)) = self.order.pop_front() else { break };
            if self.records.get(&key).is_some_and(|record| record.expires_at == at) {
                self.remove(key, pairs);
                evicted += 1;
            }
        }
        if self.records.insert(key, record).is_none() {
            pairs.add_user(key);
        }
        self.order.push_back((record.expires_at, key));
        evicted
    }

    fn remove(&mut self, key: FlowKey, pairs: &mut Pairs) {
        if self.records.remove(&key).is_some() {
            pairs.remove_user(key);
        }
    }

    /// RFC 9293 3.10.7.4 for TIME-WAIT. `None`: there is no record.
    pub(crate) fn segment_arrives(
        &mut self,
        key: FlowKey,
        segment: &Segment<'_>,
        now: Instant,
        config: &Config,
        pairs: &mut Pairs,
    ) -> Option<TimeWaitAnswer> {
        let record = self.records.get_mut(&key)?;
        if record.expires_at <= now {
            self.remove(key, pairs);
            return None;
        }
        match segment.control {
            // RFC 1337: an old RST must not end TIME-WAIT early.
            Control::Rst => return Some(TimeWaitAnswer::Ignore),
            Control::Syn
                if segment.acknowledgment.is_none() && record.is_succeeded_by(segment, now, config) =>
            {
                let after = record.sequence;
                self.remove(key, pairs);
                return Some(TimeWaitAnswer::Reopen { after });
            }
            _ => {}
        }
        if segment.sequence_len() == 0 {
            return Some(TimeWaitAnswer::Ignore);
        }
        let answer = TimeWaitAnswer::Acknowledge {
            sequence: record.sequence,
            acknowledgment: record.acknowledgment,
            timestamps: record.timestamps.option(now),
        };
        if segment.control == Control::Fin {
            // The last acknowledgment was lost: another 2 MSL.
            let expires_at = now + config.time_wait;
            if expires_at != record.expires_at && self.order.len() < 2 * self.max {
                record.expires_at = expires_at;
                self.order.push_back((expires_at, key));
            }
        }
        Some(answer)
    }

    /// Forgets what has lasted long enough.
    pub(crate) fn expire(&mut self, now: Instant, pairs: &mut Pairs) {
        while let Some(&(at, key)) = self.order.front()
            && at <= now
        {
            self.order.pop_front();
            if self.records.get(&key).is_some_and(|record| record.expires_at <= now) {
                self.remove(key, pairs);
            }
        }
    }

    /// Our IPv4 address is gone.
    pub(crate) fn forget_ipv4(&mut self) {
        self.records.retain(|key, _| key.pair().is_some());
        self.order.retain(|(_, key)| key.pair().is_some());
    }

    /// When the next record expires, or a little earlier.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.order.front().map_or(Instant::NEVER, |&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::MacAddress;

    fn config() -> Config {
        Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16])
    }

    fn table(max: usize) -> TimeWaitTable {
        TimeWaitTable::new(max, FlowHash::new([1; 16]))
    }

    fn pairs() -> Pairs {
        Pairs::new(FlowHash::new([1; 16]))
    }

    fn record(expires_s: u64) -> TimeWaitRecord {
        TimeWaitRecord {
            sequence: Seq::new(500),
            acknowledgment: Seq::new(900),
            expires_at: Instant::from_millis(expires_s * 1000),
            timestamps: TimestampState::new(0, None, Instant::ZERO),
        }
    }

    fn segment(control: Control, sequence: u32) -> Segment<'static> {
        Segment {
            ece: false,
            cwr: false,
            ecn: crate::wire::Ecn::NotCapable,
            source_port: 1,
            destination_port: 2,
            sequence: Seq::new(sequence),
            urgent: None,
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
        table.insert(FlowKey(1), record(60), &mut pairs());
        let at_30 = Instant::from_millis(30_000);
        let answer =
            table.segment_arrives(FlowKey(1), &segment(Control::Fin, 899), at_30, &config(), &mut pairs());
        let expected = TimeWaitAnswer::Acknowledge {
            sequence: Seq::new(500),
            acknowledgment: Seq::new(900),
            timestamps: None,
        };
        assert_eq!(answer, Some(expected));
        table.expire(Instant::from_millis(60_000), &mut pairs());
        assert_eq!(table.len(), 1);
        table.expire(Instant::from_millis(90_000), &mut pairs());
        assert_eq!((table.len(), table.next_deadline()), (0, Instant::NEVER));
    }

    #[test]
    fn time_wait_rst_and_bare_ack_are_ignored() {
        let mut table = table(10);
        table.insert(FlowKey(1), record(60), &mut pairs());
        for control in [Control::Rst, Control::None] {
            let answer = table.segment_arrives(
                FlowKey(1),
                &segment(control, 900),
                Instant::ZERO,
                &config(),
                &mut pairs(),
            );
            assert_eq!(answer, Some(TimeWaitAnswer::Ignore));
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn time_wait_syn_reopens_only_with_a_later_sequence_number() {
        let mut table = table(10);
        table.insert(FlowKey(1), record(60), &mut pairs());
        let old = table.segment_arrives(
            FlowKey(1),
            &segment(Control::Syn, 800),
            Instant::ZERO,
            &config(),
            &mut pairs(),
        );
        assert!(matches!(old, Some(TimeWaitAnswer::Acknowledge { .. })));
        let new = table.segment_arrives(
            FlowKey(1),
            &segment(Control::Syn, 901),
            Instant::ZERO,
            &config(),
            &mut pairs(),
        );
        assert_eq!(new, Some(TimeWaitAnswer::Reopen { after: Seq::new(500) }));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn time_wait_syn_with_later_timestamps_reopens_whatever_its_sequence_number() {
        let mut table = table(10);
        let recent = Some(Timestamps { value: 1_000, echo: 0 });
        let timestamps = TimestampState::new(0, recent, Instant::ZERO);
        let mut answer = |value: u32, sequence: u32| {
            table.insert(FlowKey(1), TimeWaitRecord { timestamps, ..record(60) }, &mut pairs());
            let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
            options[4..8].copy_from_slice(&value.to_be_bytes());
            let syn = Segment { options: &options, ..segment(Control::Syn, sequence) };
            let answer = table.segment_arrives(FlowKey(1), &syn, Instant::ZERO, &config(), &mut pairs());
            matches!(answer, Some(TimeWaitAnswer::Reopen { .. }))
        };
        assert!(answer(1_001, 5));
        assert!(!answer(999, 5) && !answer(999, 901));
        assert!(!answer(1_000, 5) && answer(1_000, 901));
    }

    #[test]
    fn time_wait_record_and_its_key_take_less_than_64_bytes() {
        assert!(size_of::<(FlowKey, TimeWaitRecord)>() + size_of::<(Instant, FlowKey)>() < 64);
    }

    #[test]
    fn time_wait_full_table_evicts_the_oldest() {
        let mut table = table(2);
        assert_eq!(table.insert(FlowKey(1), record(60), &mut pairs()), 0);
        assert_eq!(table.insert(FlowKey(2), record(61), &mut pairs()), 0);
        assert_eq!(table.insert(FlowKey(3), record(62), &mut pairs()), 1);
        let gone = table.segment_arrives(
            FlowKey(1),
            &segment(Control::Fin, 899),
            Instant::ZERO,
            &config(),
            &mut pairs(),
        );
        assert_eq!((gone, table.len()), (None, 2));
    }

    #[test]
    fn time_wait_restarts_do_not_grow_without_bound() {
        let mut table = table(4);
        table.insert(FlowKey(1), record(60), &mut pairs());
        for ms in 0..1_000 {
            let now = Instant::from_millis(ms);
            let _ =
                table.segment_arrives(FlowKey(1), &segment(Control::Fin, 899), now, &config(), &mut pairs());
        }
        assert!(table.order.len() <= 8);
    }
}
