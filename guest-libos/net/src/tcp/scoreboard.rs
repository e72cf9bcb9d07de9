//! What became of every byte between SND.UNA and SND.NXT: records of transmissions in the order of sequence numbers, each
//! with the time it left and whether the peer has it (SACK), it is lost, or it was sent again. A record is all that left
//! at one time; a selective acknowledgment splits it. Which bytes are lost is decided elsewhere (`rack`, `recovery`).

use alloc::collections::VecDeque;

use super::Seq;
use crate::time::Instant;

/// The most records of one connection: beyond it transmissions share records and SACK blocks that would split one are not
/// heeded, so that neither tiny writes nor a peer that reports every other byte take more memory than this.
pub(crate) const MAX_RECORDS: usize = 1_024;
/// Room for this many records stays with what is kept for the next connection.
const KEPT_RECORDS: usize = 64;

/// What is known of a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On their way.
    InFlight,
    /// Lost, and to be sent again.
    Lost,
    /// Selectively acknowledged.
    Sacked,
}

/// Bytes `start..end`, the FIN included, that were last sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) start: Seq,
    pub(crate) end: Seq,
    pub(crate) sent_at: Instant,
    pub(crate) fate: Fate,
    /// Sent more than once.
    pub(crate) again: bool,
}

impl Record {
    pub(crate) fn len(&self) -> u32 {
        self.end.since(self.start)
    }
}

#[derive(Debug)]
pub(crate) struct Scoreboard {
    /// Sorted, adjacent, from SND.UNA to SND.NXT, but for the last one if `tail` has it.
    records: VecDeque<Record>,
    /// The last record, as long as it is on its way: what most connections have is one record, and it is here.
    tail: Option<Record>,
    sacked: u32,
    lost: u32,
    /// No byte before it is lost.
    lost_from: Seq,
    /// Whether any record was sent again: then they are not in the order of their transmission.
    again: bool,
}

impl Scoreboard {
    pub(crate) const fn new() -> Self {
        Self {
            records: VecDeque::new(),
            tail: None,
            sacked: 0,
            lost: 0,
            lost_from: Seq::new(0),
            again: false,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.tail = None;
        self.records.clear();
        (self.sacked, self.lost, self.again) = (0, 0, false);
    }

    /// Gives back memory of which there is unusually much.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.records.capacity() > KEPT_RECORDS {
            self.records.shrink_to(KEPT_RECORDS);
        }
    }

    /// Bytes that were selectively acknowledged.
    #[inline]
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes that are lost and were not sent again.
    #[inline]
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Whether all records are on their way for the first time.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.sacked == 0 && self.lost == 0 && !self.again
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&Record> {
        self.records.front().or(self.tail.as_ref())
    }

    pub(crate) fn last(&self) -> Option<&Record> {
        self.tail.as_ref().or(self.records.back())
    }

    /// Puts the last record beside the others.
    fn gather(&mut self) {
        self.records.extend(self.tail.take());
    }

    /// Whether the records are what they should be: sorted, disjoint, exactly bytes `una..next`, and counted rightly.
    pub(crate) fn covers(&self, una: Seq, next: Seq) -> bool {
        let count =
            |fate| self.records.iter().filter(|record| record.fate == fate).map(Record::len).sum::<u32>();
        let mut at = una;
        let adjacent = self.iter().all(|record| {
            let follows = record.start == at && record.start.is_before(record.end);
            at = record.end;
            follows
        });
        adjacent && at == next && count(Fate::Sacked) == self.sacked && count(Fate::Lost) == self.lost
    }

    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.records.len() + usize::from(self.tail.is_some())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().chain(&self.tail)
    }

    /// Bytes `start..end`, which follow all others, were sent for the first time.
    #[inline]
    pub(crate) fn sent(&mut self, start: Seq, end: Seq, now: Instant) {
        let full = self.records.len() + 1 >= MAX_RECORDS;
        if let Some(last) = self.tail.as_mut().or(self.records.back_mut())
            && last.fate == Fate::InFlight
            && !last.again
            && (last.sent_at == now || full)
        {
            // The later time for all of it: found lost a little late, and never too early.
            (last.end, last.sent_at) = (end, now);
            return;
        }
        let record = Record { start, end, sent_at: now, fate: Fate::InFlight, again: false };
        if let Some(last) = self.tail.replace(record) {
            self.records.push_back(last);
        }
    }

    /// [`Self::acknowledge`] of the only record, if there is no other and it ends at `ack`: returns when it left.
    #[inline]
    pub(crate) fn acknowledge_single(&mut self, ack: Seq) -> Option<Instant> {
        let only = self.tail.filter(|only| only.end == ack && self.records.is_empty())?;
        self.tail = None;
        Some(only.sent_at)
    }

    /// Everything before `ack` has arrived: drops it and shows what of it was not selectively acknowledged before.
    #[inline]
    pub(crate) fn acknowledge(&mut self, ack: Seq, mut arrived: impl FnMut(&Record)) {
        while let Some(first) = self.records.front_mut().or(self.tail.as_mut())
            && first.start.is_before(ack)
        {
            let piece = Record { end: first.end.min(ack), ..*first };
            let whole = piece.end == first.end;
            first.start = piece.end;
            match piece.fate {
                Fate::Sacked => self.sacked -= piece.len(),
                Fate::Lost => self.lost -= piece.len(),
                Fate::InFlight => {}
            }
            if piece.fate != Fate::Sacked {
                arrived(&piece);
            }
            if whole && self.records.pop_front().is_none() {
                self.tail = None;
            }
        }
        if self.again && self.first().is_none() {
            self.again = false;
        }
    }

    /// The place of the record that has byte `at`, or of the first one after it.
    fn place_of(&self, at: Seq) -> usize {
        self.records.partition_point(|record| record.end.is_at_or_before(at))
    }

    /// Makes records begin at `at`, if it lies within what was sent. False if there are too many records for it.
    fn split(&mut self, at: Seq) -> bool {
        let (place, count) = (self.place_of(at), self.records.len());
        let Some(record) = self.records.get_mut(place) else { return true };
        if !record.start.is_before(at) {
            return true;
        }
        // What is to be sent again must be split off, so there is more room for that.
        if count >= 2 * MAX_RECORDS {
            return false;
        }
        let front = Record { end: at, ..*record };
        record.start = at;
        self.records.insert(place, front);
        true
    }

    /// The peer has bytes `start..end`; shows what of it is news.
    pub(crate) fn sack(&mut self, start: Seq, end: Seq, mut arrived: impl FnMut(&Record)) {
        self.gather();
        let mut place = self.place_of(start);
        while let Some(&record) = self.records.get(place)
            && record.start.is_before(end)
        {
            if record.fate == Fate::Sacked {
                place += 1;
                continue;
            }
            let piece = Record { start: record.start.max(start), end: record.end.min(end), ..record };
            let splits = usize::from(piece.start != record.start) + usize::from(piece.end != record.end);
            let grows_previous = piece.start == record.start && place > 0 && self.is_sacked(place - 1);
            if splits > 0 && !grows_previous && self.records.len() + splits > MAX_RECORDS {
                place += 1;
                continue;
            }
            self.sacked += piece.len();
            if record.fate == Fate::Lost {
                self.lost -= piece.len();
            }
            arrived(&piece);
            if grows_previous {
                self.records[place - 1].end = piece.end;
                if piece.end == record.end {
                    self.records.remove(place);
                } else {
                    self.records[place].start = piece.end;
                    place += 1;
                }
                continue;
            }
            self.records[place] = Record { fate: Fate::Sacked, ..piece };
            if piece.end != record.end {
                self.records.insert(place + 1, Record { start: piece.end, ..record });
            }
            if piece.start != record.start {
                self.records.insert(place, Record { end: piece.start, ..record });
                place += 1;
            }
            place += 1;
        }
        if place > 0 && self.is_sacked(place - 1) && self.is_sacked(place) {
            self.records[place - 1].end = self.records[place].end;
            self.records.remove(place);
        }
    }

    fn is_sacked(&self, place: usize) -> bool {
        self.records.get(place).is_some_and(|record| record.fate == Fate::Sacked)
    }

    /// Marks as lost those records on their way that `is_lost` says, and returns how many bytes that were.
    pub(crate) fn mark_lost(&mut self, mut is_lost: impl FnMut(&Record) -> bool) -> u32 {
        self.gather();
        let before = self.lost;
        for record in &mut self.records {
            if record.fate == Fate::InFlight && is_lost(record) {
                record.fate = Fate::Lost;
                if self.lost == 0 || record.start.is_before(self.lost_from) {
                    self.lost_from = record.start;
                }
                self.lost += record.len();
            }
        }
        self.lost - before
    }

    /// Marks the first `len` bytes as lost, unless they were sent again already, and returns how many bytes that were.
    pub(crate) fn mark_first_lost(&mut self, len: u32) -> u32 {
        self.gather();
        let Some(&first) = self.records.front() else { return 0 };
        if first.again {
            return 0;
        }
        if !self.split(first.start + len) {
            return 0;
        }
        self.mark_lost(|record| record.start == first.start)
    }

    /// The first lost bytes, at most `max` of them, that lie in one stretch.
    pub(crate) fn next_lost(&self, max: u32) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let mut lost = self
            .records
            .range(self.place_of(self.lost_from)..)
            .skip_while(|record| record.fate != Fate::Lost);
        let first = lost.next()?;
        let mut end = first.end;
        for record in lost {
            if record.fate != Fate::Lost || end.since(first.start) >= max {
                break;
            }
            end = record.end;
        }
        Some((first.start, end.min(first.start + max)))
    }

    /// Bytes `start..end` were sent again.
    pub(crate) fn sent_again(&mut self, start: Seq, end: Seq, now: Instant) {
        self.gather();
        // Without room to split, more counts as sent again than was: found out when it is acknowledged or not.
        self.split(start);
        self.split(end);
        self.again = true;
        for place in self.place_of(start)..self.records.len() {
            let record = &mut self.records[place];
            if !record.start.is_before(end) {
                break;
            }
            if record.fate == Fate::Lost {
                self.lost -= record.len();
                record.fate = Fate::InFlight;
            }
            (record.sent_at, record.again) = (now, true);
        }
        self.lost_from = end;
    }

    /// The peer's selective acknowledgments are not believed any more: it may have thrown away what it reported
    /// (RFC 2018 8).
    pub(crate) fn forget_sacks(&mut self) {
        for record in &mut self.records {
            if record.fate == Fate::Sacked {
                // When each of its bytes left is not known any more.
                (record.fate, record.again) = (Fate::InFlight, true);
                self.again = true;
            }
        }
        self.sacked = 0;
    }

    /// What was thought lost is on its way after all.
    pub(crate) fn forget_losses(&mut self) {
        for record in &mut self.records {
            if record.fate == Fate::Lost {
                record.fate = Fate::InFlight;
            }
        }
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests;
