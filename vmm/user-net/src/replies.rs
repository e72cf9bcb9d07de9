//! Frames that answer the guest at once (ARP, echo, resets, window probes): a short queue. When it is full, answers are lost,
//! as on any wire, so a guest that only asks costs a bounded amount of memory.

use std::collections::VecDeque;

/// Most frames that wait.
const FRAMES_MAX: usize = 256;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    frames: VecDeque<Vec<u8>>,
    lost: u64,
}

impl Replies {
    /// Puts a frame, header first, behind the others.
    pub(crate) fn push(&mut self, frame: Vec<u8>) {
        if self.frames.len() < FRAMES_MAX {
            self.frames.push_back(frame);
        } else {
            self.lost += 1;
        }
    }

    /// Puts a frame behind the others, if there is one.
    pub(crate) fn extend(&mut self, frame: Option<Vec<u8>>) {
        if let Some(frame) = frame {
            self.push(frame);
        }
    }

    /// Takes the first one.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// How many found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
