//! Urgent data (RFC 9293 3.8.5): a mark in the stream up to which the sender calls it urgent. The data itself stays in the
//! stream (RFC 6093 2.1); the pointer is of the octet after it (MUST-62).

use super::Seq;
use super::receive_side::ReceiveSide;
use super::send_side::SendSide;
use crate::data::Data;

impl<D: Data> SendSide<D> {
    /// Everything queued until now is urgent.
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent = Some(self.una + self.queue.len() as u32);
    }

    /// Whether segments may have to say that there is urgent data.
    #[inline]
    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// The urgent pointer of a segment that begins at `sequence`. An end further away than the field can say is said by
    /// a later segment.
    #[cold]
    pub(crate) fn urgent_pointer(&self, sequence: Seq) -> Option<u16> {
        let end = self.urgent.filter(|end| end.is_after(sequence))?;
        Some(end.since(sequence).min(u32::from(u16::MAX)) as u16)
    }
}

impl ReceiveSide {
    /// RFC 9293 3.10.7.4, sixth: RCV.UP becomes the later of itself and SEG.UP. Returns whether the application must be
    /// told (MUST-32). Before the segment's text, so that urgent data in it counts.
    #[cold]
    pub(crate) fn urgent_arrives(&mut self, end: Seq) -> bool {
        let later = end.is_after(self.next) && self.urgent.is_none_or(|known| end.is_after(known));
        if later {
            self.urgent = Some(end);
        }
        later
    }

    /// Bytes that the application has not consumed before the end of the urgent data (MUST-33).
    pub(crate) fn urgent_bytes(&self) -> u32 {
        let unread = self.next - self.buffer.ready().len() as u32;
        self.urgent.filter(|end| end.is_after(unread)).map_or(0, |end| end.since(unread))
    }

    /// The application has read on; a mark that lies behind it says nothing any more.
    #[inline]
    pub(crate) fn forget_old_urgent(&mut self) {
        if self.urgent.is_some() && self.urgent_bytes() == 0 {
            self.urgent = None;
        }
    }
}
