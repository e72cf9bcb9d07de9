//! Probes of one machine: whose text is patched, and how that comes and goes.
//!
//! A trampoline is never taken away and never changed: who is in it when its probe goes, runs through it and goes on in the
//! function; who returns through the return trampoline afterwards finds its way, since its entry in the shadow stack stays and only
//! forgets whose it was. So the text can be restored at any moment. For the same function, wishes and place, the next probe
//! takes the same trampoline again.

use super::assemble::{JUMP_BYTES, Trampoline, Wanted, jump, return_trampoline, trampoline};
use super::function::{Patchable, Refused, Text};
use super::layout::{CODE_BYTES, Region, SLOTS, shadow, slot};
use super::names::{Function, Ring, find, program};
use super::numbers::Numbers;
use super::{ProbeError, standing};
use crate::machine::boot::probes::ProbePages;
use crate::machine::{Pause, Shared};
use crate::tables::Memory;
use abi::header::KernelHeader;
use exovm_image::program::Header;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// How long somebody may stand where the jump is to be written.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long they are let go in between.
const STEP: Duration = Duration::from_millis(1);
/// How long somebody may stand in a trampoline: what is kept of an environment that does not wait may be old.
const PATIENCE_IN_CODE: Duration = Duration::from_millis(200);

/// The probes of a machine.
pub(crate) struct Probes {
    pages: ProbePages,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    image: Side,
    kernel: Side,
}

/// What there is in one ring.
#[derive(Default)]
struct Side {
    /// Bytes of code so far, the return trampoline among them.
    used: u64,
    made: Vec<Made>,
    /// By slot, the address of the function that is probed.
    slots: [Option<u64>; SLOTS],
}

/// A trampoline that there is.
struct Made {
    function_va: u64,
    slot: usize,
    wanted: Wanted,
    trampoline: Trampoline,
}

impl State {
    fn side(&mut self, ring: Ring) -> &mut Side {
        match ring {
            Ring::Image => &mut self.image,
            Ring::Kernel => &mut self.kernel,
        }
    }
}

impl Probes {
    /// Of a machine with these pages.
    pub(crate) fn new(pages: ProbePages) -> Self {
        Self { pages, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guest-physical address of a word of text; `None`: it is no text.
    fn text_gpa(&self, va: u64) -> Option<u64> {
        let in_it =
            |text: &&crate::machine::boot::probes::Text| (text.va..text.va + text.len_bytes).contains(&va);
        self.pages.text.iter().find(in_it).map(|text| text.gpa + (va - text.va))
    }

    fn code_gpa(&self, ring: Ring) -> u64 {
        match ring {
            Ring::Image => self.pages.code_gpa,
            Ring::Kernel => self.pages.kernel_code_gpa,
        }
    }

    /// Whose data there is, and where.
    fn data(&self, ring: Ring) -> Vec<(Option<u32>, u64)> {
        match ring {
            Ring::Image => (0..).map(Some).zip(self.pages.data_gpa.iter().copied()).collect(),
            Ring::Kernel => vec![(None, self.pages.kernel_data_gpa)],
        }
    }
}

fn header(machine: &Shared) -> Result<&KernelHeader, ProbeError> {
    match &machine.reporter.image().kernel.header {
        Header::Kernel(header) => Ok(header),
        Header::Image(_) => Err(ProbeError::Internal("the image's kernel is not a kernel")),
    }
}

fn region(machine: &Shared, ring: Ring) -> Result<Region, ProbeError> {
    Ok(match ring {
        Ring::Image => Region::user(),
        Ring::Kernel => Region::kernel(header(machine)?),
    })
}

/// A probe of a running machine. Dropping it restores the text.
pub struct Probe {
    machine: Arc<Shared>,
    function: Function,
    region: Region,
    slot: usize,
    /// Where the function's first byte is, and what stood there.
    text_gpa: u64,
    original: [u8; JUMP_BYTES],
    /// What stands there now.
    jump: [u8; JUMP_BYTES],
    attached: bool,
}

impl Probe {
    /// Probes the function that `name` means.
    pub(crate) fn attach(machine: &Arc<Shared>, name: &str, wanted: Wanted) -> Result<Self, ProbeError> {
        let image = machine.reporter.image();
        let named = find(image, name)?;
        let function = named.function.clone();
        let (ring, va) = (function.ring, function.va);
        let program = program(image, ring);
        let refuse = |refused| ProbeError::Refused { function: function.name.clone(), refused };
        let text = Text::new(program);
        if ring == Ring::Image && machine.pages.len() > machine.environments() {
            return Err(ProbeError::Copies { function: function.name });
        }
        if named.is_label && ring == Ring::Kernel {
            return Err(refuse(Refused::Label));
        }
        if wanted.returns && (va == program.entry_va || (named.is_label && !text.returns(&named.symbol))) {
            return Err(refuse(Refused::NotCalled));
        }
        let patchable = text.patchable(&named.symbol).map_err(refuse)?;
        let region = region(machine, ring)?;
        let probes = &machine.probes;
        let text_gpa = probes.text_gpa(va).ok_or(ProbeError::Internal("the function is not in the text"))?;

        // Who else wants to probe waits until this one is in place or is not.
        let mut state = probes.state();
        let side = state.side(ring);
        let slot = side.take(&function)?;
        let made = side.trampoline(machine, &region, probes.code_gpa(ring), &patchable, slot, wanted);
        let result = made.and_then(|made| {
            let jump = jump(va, made.va).ok_or(ProbeError::Internal("the function is too far away"))?;
            let probe = Self {
                machine: Arc::clone(machine),
                function: function.clone(),
                region,
                slot,
                text_gpa,
                original: patchable.original,
                jump,
                attached: false,
            };
            probe.write(&patchable, &made)
        });
        if result.is_err() {
            side.slots[slot] = None;
        }
        result
    }

    /// Writes the jump once nobody stands in its way.
    fn write(mut self, function: &Patchable, made: &Trampoline) -> Result<Self, ProbeError> {
        let machine = Arc::clone(&self.machine);
        let header = header(&machine)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let pause = machine.team.pause()?;
            let in_code = begun.elapsed() < PATIENCE_IN_CODE;
            if self.is_free(function, made, &pause, header, in_code)? {
                let mut found = [0; JUMP_BYTES];
                machine.memory.read_slice(&mut found, GuestAddress(self.text_gpa))?;
                if found != self.original {
                    return Err(ProbeError::Altered { function: self.function.name.clone() });
                }
                for (_, gpa) in machine.probes.data(self.function.ring) {
                    let at = gpa + self.slot as u64 * slot::BYTES;
                    machine.memory.write_slice(&[0; slot::BYTES as usize], GuestAddress(at))?;
                }
                machine.memory.write_slice(&self.jump, GuestAddress(self.text_gpa))?;
                self.attached = true;
                return Ok(self);
            }
            drop(pause);
            std::thread::sleep(STEP);
        }
        Err(ProbeError::InTheWay { function: self.function.name.clone(), seconds: PATIENCE.as_secs() })
    }

    /// Whether the jump can be written: who stands in its way has been put where it can go on.
    fn is_free(
        &self,
        function: &Patchable,
        made: &Trampoline,
        pause: &Pause,
        header: &KernelHeader,
        code_matters: bool,
    ) -> Result<bool, ProbeError> {
        let inside = function.inside();
        let code = self.region.code_va..self.region.code_va + CODE_BYTES;
        let standing = standing::all(&self.machine, pause, header)?;
        // In a trampoline somebody may be about to count for the probe that had this place before: one call too many, no more.
        if code_matters && standing.iter().any(|standing| code.contains(&standing.va)) {
            return Ok(false);
        }
        let now = |va| made.moved.iter().find(|(from, _)| *from == va).map(|(_, to)| *to);
        let in_the_way: Vec<_> = standing.iter().filter(|standing| inside.contains(&standing.va)).collect();
        if in_the_way.iter().any(|standing| now(standing.va).is_none()) {
            return Ok(false);
        }
        // Where the first instruction is as long as the jump there is no place to stand.
        let is_place = function.moved.iter().any(|instruction| inside.contains(&instruction.ip()));
        if self.function.ring == Ring::Image && is_place && standing::is_on_a_stack(&self.machine, &inside) {
            return Ok(false);
        }
        for standing in in_the_way {
            if let Some(va) = now(standing.va) {
                standing.put(&self.machine, pause, va)?;
            }
        }
        Ok(true)
    }

    /// What it probes.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// What it has counted, by environment.
    pub fn numbers(&self) -> Result<Vec<Numbers>, ProbeError> {
        let data = self.machine.probes.data(self.function.ring);
        let read = |(environment, gpa): (Option<u32>, u64)| {
            let bytes = read_slot(&self.machine.memory, gpa + self.slot as u64 * slot::BYTES)?;
            Ok(Numbers::read(environment, &bytes))
        };
        data.into_iter().map(read).collect()
    }

    /// Restores the text; the numbers are the last from then on.
    pub fn detach(&mut self) {
        if !std::mem::take(&mut self.attached) {
            return;
        }
        let machine = Arc::clone(&self.machine);
        let mut state = machine.probes.state();
        // A machine that has ended executes nothing any more.
        let pause = machine.team.pause();
        match self.restore() {
            Ok(true) => state.side(self.function.ring).slots[self.slot] = None,
            // A debugger's breakpoint lies on the jump, and would be put back over what is restored. The jump does no harm.
            Ok(false) => tracing::warn!(
                "somebody else has changed the code of {} while it was probed; the probe's jump stays there",
                self.function.name
            ),
            Err(error) => {
                let name = &self.function.name;
                tracing::error!("the text of {name} was not restored: {error}; please report this");
            }
        }
        drop(pause);
    }

    /// Whether the text could be restored.
    fn restore(&self) -> Result<bool, GuestMemoryError> {
        let memory = &self.machine.memory;
        let mut found = [0; JUMP_BYTES];
        memory.read_slice(&mut found, GuestAddress(self.text_gpa))?;
        let is_ours = found == self.jump;
        if is_ours {
            memory.write_slice(&self.original, GuestAddress(self.text_gpa))?;
        }
        let own = self.region.slot_va(self.slot);
        for (_, gpa) in self.machine.probes.data(self.function.ring) {
            for shadow in self.region.shadows() {
                for entry in 0..self.region.shadow_entries() {
                    let at = gpa + shadow + shadow::ENTRIES + entry * shadow::ENTRY_BYTES + shadow::SLOT;
                    if memory.read_obj::<u64>(GuestAddress(at))? == own {
                        memory.write_obj(0u64, GuestAddress(at))?;
                    }
                }
            }
        }
        Ok(is_ours)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A slot's bytes. Of calls that were overwritten meanwhile the number is 0.
fn read_slot(memory: &Memory, gpa: u64) -> Result<Vec<u8>, GuestMemoryError> {
    let mut bytes = vec![0; slot::BYTES as usize];
    memory.read_slice(&mut bytes, GuestAddress(gpa))?;
    for call in 0..slot::RING_CALLS {
        let at = slot::RING + call * slot::CALL_BYTES;
        let number: u64 = memory.read_obj(GuestAddress(gpa + at))?;
        let before = &mut bytes[at as usize..at as usize + 8];
        if *before != number.to_le_bytes() {
            before.fill(0);
        }
    }
    Ok(bytes)
}

impl Side {
    /// A place for a probe of this function.
    fn take(&mut self, function: &Function) -> Result<usize, ProbeError> {
        if self.slots.contains(&Some(function.va)) {
            return Err(ProbeError::Taken { function: function.name.clone() });
        }
        // The one with which it was probed before, so that its trampoline serves again.
        let before =
            self.made.iter().rev().filter(|made| made.function_va == function.va).map(|made| made.slot);
        let mut free = before.chain(0..SLOTS).filter(|&slot| self.slots[slot].is_none());
        let slot = free.next().ok_or(ProbeError::Full { program: function.ring.name() })?;
        self.slots[slot] = Some(function.va);
        Ok(slot)
    }

    /// The trampoline for that, made if there was none.
    fn trampoline(
        &mut self,
        machine: &Shared,
        region: &Region,
        code_gpa: u64,
        function: &Patchable,
        slot: usize,
        wanted: Wanted,
    ) -> Result<Trampoline, ProbeError> {
        let is_it = |made: &&Made| (made.function_va, made.slot, made.wanted) == (function.va, slot, wanted);
        if let Some(made) = self.made.iter().find(is_it) {
            return Ok(made.trampoline.clone());
        }
        let memory = &machine.memory;
        if self.used == 0 {
            let code = return_trampoline(region)?;
            memory.write_slice(&code, GuestAddress(code_gpa))?;
            self.used = code.len() as u64;
        }
        let offset = self.used.next_multiple_of(16);
        let made = trampoline(region, function, slot, wanted, region.code_va + offset)?;
        let end = offset + made.bytes.len() as u64;
        if end > CODE_BYTES {
            let ring = if region.is_shared() { Ring::Kernel } else { Ring::Image };
            return Err(ProbeError::NoRoom { program: ring.name() });
        }
        // Nobody is there yet: the text does not lead there.
        memory.write_slice(&made.bytes, GuestAddress(code_gpa + offset))?;
        self.used = end;
        self.made.push(Made { function_va: function.va, slot, wanted, trampoline: made.clone() });
        Ok(made)
    }
}
