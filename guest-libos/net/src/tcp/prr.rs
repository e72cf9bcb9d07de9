//! Proportional rate reduction (RFC 6937, with the slow start reduction bound and safeACK of its successor): during fast
//! recovery data leaves in proportion to what arrives, so that as much as the new window allows is on its way at its end,
//! without a silence or a burst on the way there.

/// The state of one fast recovery. All numbers are bytes.
#[derive(Debug, Default)]
pub(crate) struct Prr {
    /// prr_delivered: arrived since recovery began.
    delivered: u32,
    /// prr_out: sent since then.
    out: u32,
    /// RecoverFS: on its way when it began.
    flight: u32,
    /// What may be on its way now.
    window: u32,
}

impl Prr {
    pub(crate) const NONE: Self = Self { delivered: 0, out: 0, flight: 0, window: 0 };

    /// Recovery begins while `flight` bytes are on their way or lost.
    pub(crate) fn begin(flight: u32) -> Self {
        Self { flight: flight.max(1), ..Self::default() }
    }

    /// What may be on its way.
    #[inline]
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// `len` bytes were sent, for the first time or again.
    #[inline]
    pub(crate) fn sent(&mut self, len: u32) {
        self.out = self.out.saturating_add(len);
    }

    /// An acknowledgment told of `delivered` bytes, while `pipe` bytes are on their way. With `safe`, it moved SND.UNA and
    /// showed no further loss.
    pub(crate) fn arrived(&mut self, delivered: u32, pipe: u32, threshold: u32, mss: u32, safe: bool) {
        self.delivered = self.delivered.saturating_add(delivered);
        let mut allowed = if pipe > threshold {
            let share = (u64::from(self.delivered) * u64::from(threshold)).div_ceil(u64::from(self.flight));
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(self.out)
        } else {
            let bound = self.delivered.saturating_sub(self.out).max(delivered);
            (threshold - pipe).min(bound + if safe { mss } else { 0 })
        };
        if self.out == 0 {
            // The fast retransmission itself.
            allowed = allowed.max(mss);
        }
        self.window = pipe.saturating_add(allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_000;

    /// Recovery of a flight of `segments`, of which `lost` are lost at once; every acknowledgment is of one segment.
    /// Returns what was sent, by acknowledgment.
    fn recovery(segments: u32, lost: u32, threshold: u32) -> Vec<u32> {
        let mut prr = Prr::begin(segments * MSS);
        let mut pipe = (segments - lost) * MSS;
        (0..segments - lost)
            .map(|_| {
                pipe -= MSS;
                prr.arrived(MSS, pipe, threshold * MSS, MSS, false);
                let sent = (prr.window() - pipe) / MSS;
                prr.sent(sent * MSS);
                pipe += sent * MSS;
                sent
            })
            .collect()
    }

    use alloc::vec::Vec;

    #[test]
    fn one_loss_of_twenty_is_spread_over_the_round_trip() {
        let sent = recovery(20, 1, 10);
        // About every second acknowledgment lets a segment out, from the first on: no silence of half a window, no burst.
        assert_eq!((sent.iter().sum::<u32>(), sent.iter().max()), (10, Some(&1)), "{sent:?}");
        assert!(sent.windows(3).all(|three| three.contains(&1)), "{sent:?}");
        assert_eq!(sent[0], 1);
    }

    #[test]
    fn many_losses_send_no_more_than_arrives() {
        let sent = recovery(20, 15, 10);
        assert_eq!(sent, [1, 1, 1, 1, 1]);
    }

    #[test]
    fn acknowledgment_that_shows_progress_lets_one_more_out() {
        let mut prr = Prr::begin(20 * MSS);
        prr.arrived(MSS, 2 * MSS, 10 * MSS, MSS, false);
        assert_eq!(prr.window(), 3 * MSS);
        prr.sent(MSS);
        prr.arrived(MSS, 2 * MSS, 10 * MSS, MSS, true);
        assert_eq!(prr.window(), 4 * MSS);
        // Never beyond the threshold.
        prr.arrived(5 * MSS, 9 * MSS, 10 * MSS, MSS, true);
        assert_eq!(prr.window(), 10 * MSS);
    }
}
