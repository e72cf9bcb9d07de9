//! What the machine of a model is like, and the rules of the protocol, each of which can be left out.

/// Most environments of a model.
pub(crate) const MOST: usize = 3;

/// Where device work is done (vmm/src/placement/mod.rs `IoMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Turn,
    Thread,
    Auto,
}

/// How a halt is ended (xok/src/arch/probe.rs `wake`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// An MSI with delivery mode "remote read": ends this halt or the next, and delivers nothing.
    Silent,
    /// An interrupt, whose handler leaves a mark.
    Vector,
}

/// What an environment does. All begin by looking at their queue, and end asleep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Has a queue that is bound.
    pub(crate) queue: bool,
    /// Frames that come for it from outside.
    pub(crate) frames: u8,
    /// Requests that it makes, one after the other.
    pub(crate) requests: u8,
    /// Sleeps until a deadline.
    pub(crate) deadline: bool,
    /// Computes for so many slices before it looks at its queue.
    pub(crate) slices: u8,
    /// Whom it calls `Wake` for at its start and when something came.
    pub(crate) wakes: Option<u8>,
    /// Whose word it changes, by plain stores.
    pub(crate) writes: Option<u8>,
}

/// A machine with one vCPU.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Mode,
    pub(crate) wake: Wake,
    pub(crate) environments: Vec<Work>,
    /// How often the place of the work changes at most.
    pub(crate) changes: u8,
    /// How often a slice ends at most, wherever an environment is.
    pub(crate) slice_ends: u8,
    /// The user wants the machine to end, at any moment.
    pub(crate) stop: bool,
}

impl Setup {
    pub(crate) fn new(mode: Mode, wake: Wake, environments: &[Work]) -> Self {
        let changes = if mode == Mode::Auto { 2 } else { 0 };
        Self { mode, wake, environments: environments.to_vec(), changes, slice_ends: 0, stop: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.environments.len()
    }

    pub(crate) fn alone(&self) -> bool {
        self.environments.len() == 1
    }
}

rules! {
    /// event-loop `sleep`: the watch is taken before the last look at the rings.
    watch_before_look,
    /// event-loop `sleep`: interrupts are asked for beside others, also while turns do the work: that may change meanwhile.
    arm_beside_in_turns,
    /// virtqueue `Ring::request_interrupt`: looks again after it asked.
    recheck_after_arming,
    /// virtqueue `Ring::request_interrupt`: the fence between.
    fence_after_arming,
    /// virtqueue `Ring::publish`: the fence between index and the device's wish.
    fence_after_available,
    /// vmm `Rings::set_used_index`: the exchange, a barrier before the driver's wish is read.
    barrier_after_used,
    /// vmm `Virtqueue::arm`: looks again after it asked.
    device_recheck_after_arming,
    /// vmm `Virtqueue::arm`: the fence between.
    device_fence_after_arming,
    /// vmm `Placement::change`: the next turn ends at once.
    attention_at_change,
    /// vmm `Placement::change`: attention is there before turns are wanted.
    attention_before_turns,
    /// vmm `Placement::change`: the guest is interrupted.
    interrupt_at_change,
    /// vmm `Slots::finish`: the guest is interrupted by a line of its own, and not by that of a queue which nobody may have bound.
    interrupt_needs_no_queue,
    /// vmm `Placement::received_in_turn`: the thread is kicked.
    kick_at_change,
    /// vmm `Placement::received_in_turn`: after it was said that the work is the thread's.
    kick_after_flag,
    /// vmm `Placement::wait`: the disks' event is taken before the work that looks what they finished.
    finished_taken_before_work,
    /// vmm `Placement::wake_guest`: the user's wish ends a turn.
    attention_at_stop,
    /// vmm `Placement::wake_guest`: by the event that only a turn takes while turns do the work.
    stop_ends_the_turns_wait,
    /// KVM: a wake-up that finds no halt ends the next.
    sticky_wake,
    /// entry.rs `xok_wake`: the handler leaves its mark, and `xok_halt_until` looks at it.
    wake_pending,
    /// entry.rs `xok_halt_until`: no interrupt between `sti` and `hlt`.
    halt_is_one_with_sti,
    /// schedule.rs `schedule`: looks at the terms before it waits.
    look_before_idle,
    /// schedule.rs `schedule`: looks at the terms after it waited.
    look_after_idle,
    /// schedule.rs `wake`: what comes before the sleep is kept.
    wake_is_kept,
    /// schedule.rs `idle`: the earliest deadline of all sleepers counts.
    earliest_deadline,
}
