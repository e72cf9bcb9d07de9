//! What a connection must know of losses. Most connections never see one: the state comes with the first change to it,
//! and until then the hot path knows by its absence that nothing is lost, reported, sent again or probed.

use core::ops::{Deref, DerefMut};

use alloc::boxed::Box;

use super::black_hole::BlackHole;
use super::rack::Rack;
use super::recovery::Recovery;
use super::tail_probe::TailProbe;
use super::withhold::Withheld;
use crate::time::Instant;

/// The state of loss detection and recovery.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) recovery: Recovery,
    pub(crate) rack: Rack,
    pub(crate) probe: TailProbe,
    /// When RACK looks again at what may only be late.
    pub(crate) reorder_at: Instant,
    pub(crate) black_hole: BlackHole,
    /// A segment that examines the peer.
    pub(crate) withheld: Option<Withheld>,
}

impl Loss {
    const NONE: Self = Self {
        recovery: Recovery::NONE,
        rack: Rack::NONE,
        probe: TailProbe::NONE,
        reorder_at: Instant::NEVER,
        black_hole: BlackHole::NONE,
        withheld: None,
    };
}

static NOTHING_LOST: Loss = Loss::NONE;

/// A connection's [`Loss`]. Reading it is free; writing brings it into being, for the rest of the connection's life.
#[derive(Debug, Default)]
pub(crate) struct LossState(Option<Box<Loss>>);

impl LossState {
    /// Whether there never was a loss, a report of one, or a probe for one.
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.is_none()
    }

    /// Something is to be repaired: brings the state into being.
    pub(crate) fn touch(&mut self) {
        let _ = &mut **self;
    }

    /// The state if there is one: what need not be noted while nothing is lost is noted there.
    #[inline]
    pub(crate) fn touched(&mut self) -> Option<&mut Loss> {
        self.0.as_deref_mut()
    }
}

impl Deref for LossState {
    type Target = Loss;

    #[inline]
    fn deref(&self) -> &Loss {
        self.0.as_deref().unwrap_or(&NOTHING_LOST)
    }
}

impl DerefMut for LossState {
    fn deref_mut(&mut self) -> &mut Loss {
        self.0.get_or_insert_with(|| Box::new(Loss::NONE))
    }
}
