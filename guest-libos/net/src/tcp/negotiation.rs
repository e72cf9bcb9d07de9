//! The options of SYNs: what both sides agreed on, and what follows from it for segment sizes.

use super::ecn;
use super::template::Family;
use crate::config::Config;
use crate::wire::tcp_options::{MAX_SACK_BLOCKS, MAX_WINDOW_SCALE, SynOptions, TIMESTAMPS_BYTES, Timestamps};

/// A peer that announces less would make us send headers only.
pub(crate) const MIN_MSS: u16 = 48;
/// No path that is in use is so narrow: less is announced to make us work (CVE-2019-11479).
const SMALL_MSS: u16 = 216;

/// Whether a SYN with these options announces suspiciously small segments.
pub(crate) fn is_small(options: &SynOptions) -> bool {
    options.mss.is_some_and(|mss| mss < SMALL_MSS)
}

/// The smallest shift that lets `capacity` be announced (RFC 7323 2.3).
fn scale_for(capacity: u32) -> u8 {
    (0..MAX_WINDOW_SCALE).find(|shift| capacity >> shift <= 65_535).unwrap_or(MAX_WINDOW_SCALE)
}

/// What both sides agreed on: an option is in use if both SYNs had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Shift of the window field that the peer sends.
    pub(crate) send_scale: u8,
    /// Shift of the window field that we send.
    pub(crate) receive_scale: u8,
    scaled: bool,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    family: Family,
    pub(crate) ecn: ecn::Agreed,
    peer_mss: u16,
    /// What the path lets through, without headers.
    path_mss: u16,
}

impl Agreed {
    /// From our configuration, which says what our SYN has or would have, and the peer's SYN.
    pub(crate) fn new(config: &Config, family: Family, peer: &SynOptions) -> Self {
        let scaled = peer.window_scale.is_some();
        Self {
            send_scale: peer.window_scale.unwrap_or(0),
            receive_scale: if scaled { scale_for(config.receive_window_bytes) } else { 0 },
            scaled,
            timestamps: config.timestamps && peer.timestamps.is_some(),
            sack: config.sack && peer.sack_permitted,
            ecn: ecn::Agreed::No,
            family,
            peer_mss: peer.mss.unwrap_or(family.default_mss()).max(config.min_mss),
            path_mss: family.receive_mss(config),
        }
    }

    /// The options of our SYN: all that we know.
    pub(crate) fn offer(config: &Config, family: Family, clock: u32) -> SynOptions {
        SynOptions {
            mss: Some(family.receive_mss(config)),
            window_scale: Some(scale_for(config.receive_window_bytes)),
            sack_permitted: config.sack,
            timestamps: config.timestamps.then_some(Timestamps { value: clock, echo: 0 }),
        }
    }

    /// The options of a SYN-ACK: those that the peer's SYN had, too.
    pub(crate) fn answer(&self, config: &Config, timestamps: Option<Timestamps>) -> SynOptions {
        SynOptions {
            mss: Some(self.family.receive_mss(config)),
            window_scale: self.scaled.then_some(self.receive_scale),
            sack_permitted: self.sack,
            timestamps,
        }
    }

    /// The peer's segment size, options included.
    pub(crate) fn peer_mss(&self) -> u16 {
        self.peer_mss
    }

    /// Bytes of options in every segment.
    pub(crate) fn option_bytes(&self) -> u16 {
        if self.timestamps { TIMESTAMPS_BYTES as u16 } else { 0 }
    }

    /// How many SACK blocks an acknowledgment has room for (RFC 2018 3).
    pub(crate) fn max_sack_blocks(&self) -> usize {
        if self.timestamps { MAX_SACK_BLOCKS - 1 } else { MAX_SACK_BLOCKS }
    }

    /// Eff.snd.MSS: what a segment of ours has room for besides its options (RFC 9293 3.7.1, RFC 6691 2).
    pub(crate) fn send_mss(&self) -> u32 {
        u32::from(self.peer_mss.min(self.path_mss) - self.option_bytes())
    }

    /// The path takes packets of `mtu` bytes.
    pub(crate) fn set_path_mtu(&mut self, mtu: u16) {
        self.path_mss = mtu.saturating_sub(self.family.header_bytes());
    }

    /// The link takes packets of `is` bytes instead of `was`, and the path, if something is known of it, of `path`. What was less
    /// than the link took is the path's, which another link makes no wider.
    pub(crate) fn follow_link(&mut self, was: u16, is: u16, path: Option<u16>) {
        let payload = |mtu: u16| mtu.saturating_sub(self.family.header_bytes());
        self.path_mss = if self.path_mss < payload(was) {
            self.path_mss.min(payload(is))
        } else {
            payload(path.map_or(is, |path| path.min(is)))
        };
    }

    /// The payload of a full segment of the peer's, which subtracts its options likewise.
    pub(crate) fn receive_mss(&self, config: &Config) -> u32 {
        u32::from(self.family.receive_mss(config).saturating_sub(self.option_bytes()).max(1))
    }
}
