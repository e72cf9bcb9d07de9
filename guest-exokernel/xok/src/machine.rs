//! The boot page and guest-physical memory. This is the one module that turns guest-physical addresses into references;
//! it relies on what the VMM promises of the boot page and on the kernel being alone with its vCPU.

use crate::arch::probe::Gate;
use abi::boot::{BOOT_MAGIC, BootPage, Device, HostPage, MemoryRange, StatusPage, VCPUS_MAX, control};
use abi::call::gate;
use abi::environment::Place;
use abi::layout::{DIRECT_MAP_VA, PAGE_BYTES};
use abi::vcpu::VcpuTime;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

static BOOT: AtomicPtr<BootPage> = AtomicPtr::new(core::ptr::null_mut());
static FIRST_VCPU_TIME: AtomicPtr<VcpuTime> = AtomicPtr::new(core::ptr::null_mut());
static WAKE: AtomicU32 = AtomicU32::new(0);

/// The machine as the VMM described it.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    boot: &'static BootPage,
}

impl Machine {
    /// Takes the boot page at its word, except for its version.
    pub(crate) fn init(boot_gpa: u64) -> Self {
        let boot = direct_map::<BootPage>(boot_gpa);
        BOOT.store(boot.cast_mut(), Ordering::Relaxed);
        let machine = Self::get();
        FIRST_VCPU_TIME
            .store(direct_map::<VcpuTime>(machine.boot.vcpu_times_gpa).cast_mut(), Ordering::Relaxed);
        if machine.boot.magic != BOOT_MAGIC || machine.boot.abi_version != abi::VERSION {
            crate::fault::give_up("the VMM's boot page is of another version than this kernel; rebuild both");
        }
        machine
    }

    /// The machine, after [`Machine::init`].
    pub(crate) fn get() -> Self {
        // SAFETY: `init` stored the address of the boot page, which the VMM filled before the first instruction and
        // nobody writes afterwards; the direct map covers it for good.
        Self { boot: unsafe { &*BOOT.load(Ordering::Relaxed) } }
    }

    /// The boot page.
    pub(crate) fn boot(self) -> &'static BootPage {
        self.boot
    }

    /// A device that may have queues bound.
    pub(crate) fn device(self, index: u64) -> Option<&'static Device> {
        self.boot.devices.get(usize::try_from(index).ok()?).filter(|device| device.kind != 0)
    }

    /// The places for environments.
    pub(crate) fn places(self) -> &'static [Place] {
        let first = direct_map::<Place>(self.boot.places_gpa);
        // SAFETY: the VMM filled as many before the first instruction, and nobody writes them afterwards.
        unsafe { core::slice::from_raw_parts(first, self.boot.places as usize) }
    }

    /// What the VMM says while the machine runs.
    pub(crate) fn host(self) -> &'static HostPage {
        // SAFETY: RAM reserved by the VMM for this page; all its fields are atomics.
        unsafe { &*direct_map::<HostPage>(self.boot.host_gpa) }
    }

    /// What is told of a vCPU's time.
    #[inline(always)]
    pub(crate) fn vcpu_time(self, vcpu: u32) -> &'static VcpuTime {
        let first = direct_map::<VcpuTime>(self.boot.vcpu_times_gpa);
        // SAFETY: a page of RAM with as many of them, reserved by the VMM; all fields are atomics.
        unsafe { &*first.add(vcpu as usize % VCPUS_MAX) }
    }

    /// The same of the first, sooner.
    #[inline(always)]
    pub(crate) fn first_vcpu_time() -> &'static VcpuTime {
        // SAFETY: `init` stored the address of what [`Self::vcpu_time`] gives for number 0.
        unsafe { &*FIRST_VCPU_TIME.load(Ordering::Relaxed) }
    }

    /// What each environment tells of itself; the kernel adds its own part.
    fn status_pages(self) -> impl Iterator<Item = &'static StatusPage> {
        // SAFETY: status pages are RAM reserved by the VMM, all fields are atomics, and any content is valid.
        self.places().iter().map(|place| unsafe { &*direct_map::<StatusPage>(place.own.start_gpa) })
    }

    /// Stamps a phase of the start.
    pub(crate) fn stamp(self, phase: usize) {
        let now = crate::arch::tsc();
        self.status_pages().for_each(|status| status.phases[phase].store(now, Ordering::Relaxed));
    }

    /// Remembers how a halt is ended, for MSI-X entries, and tells the environments.
    pub(crate) fn set_wake(self, wake: u32) {
        WAKE.store(wake, Ordering::Relaxed);
        self.status_pages().for_each(|status| status.wake.store(wake, Ordering::Relaxed));
    }

    /// How a halt is ended: a value of [`abi::boot::wake`].
    pub(crate) fn wake(self) -> u32 {
        WAKE.load(Ordering::Relaxed)
    }

    /// Puts the gate instruction into the gate page.
    pub(crate) fn install_gate(self, kind: Gate) {
        let (bytes, number) = match kind {
            Gate::Int3 => (gate::INT3, gate::KIND_INT3),
            Gate::Syscall => (gate::SYSCALL, gate::KIND_SYSCALL),
        };
        for (offset, byte) in bytes.into_iter().enumerate() {
            // SAFETY: the gate page is RAM reserved by the VMM; ring 3 can only execute it, and does not run now.
            unsafe {
                (*direct_map::<AtomicU8>(self.boot.gate_gpa + offset as u64)).store(byte, Ordering::Relaxed)
            };
        }
        self.status_pages().for_each(|status| status.gate.store(number, Ordering::Relaxed));
    }

    /// Writes a control register of the VMM.
    pub(crate) fn control(self, register: u64, value: u32) {
        Register::<u32>::at(self.boot.control_gpa + register).write(value);
    }

    /// Reads one.
    pub(crate) fn read_control(self, register: u64) -> u32 {
        Register::<u32>::at(self.boot.control_gpa + register).read()
    }

    /// Has the VMM fill pages with zeroes.
    pub(crate) fn clean(self, range: MemoryRange) {
        self.control(control::CLEAN_START, (range.start_gpa / PAGE_BYTES) as u32);
        self.control(control::CLEAN_PAGES, (range.len_bytes / PAGE_BYTES) as u32);
    }
}

/// Where the kernel sees guest-physical memory.
pub(crate) fn direct_map<T>(gpa: u64) -> *const T {
    (DIRECT_MAP_VA + gpa) as *const T
}

/// A word of RAM: a page-table entry, a bitmap.
#[inline]
pub(crate) fn read(gpa: u64) -> u64 {
    // SAFETY: the kernel names RAM of its own tables here, or of an environment, where any value is valid; the direct map
    // covers all of it.
    unsafe { direct_map::<u64>(gpa).read_volatile() }
}

/// Replaces it.
#[inline]
pub(crate) fn write(gpa: u64, word: u64) {
    // SAFETY: the kernel writes to its own tables only.
    unsafe { direct_map::<u64>(gpa).cast_mut().write_volatile(word) }
}

/// Sixteen bits of an environment's memory.
#[inline]
pub(crate) fn read_u16(gpa: u64) -> u16 {
    // SAFETY: as for `read`.
    unsafe { direct_map::<u16>(gpa).read_volatile() }
}

/// A device register.
pub(crate) struct Register<T>(*mut T);

impl<T: Copy> Register<T> {
    /// The register at a guest-physical address from the device table.
    pub(crate) fn at(gpa: u64) -> Self {
        Self(direct_map::<T>(gpa).cast_mut())
    }

    pub(crate) fn write(self, value: T) {
        // SAFETY: addresses of registers come from the boot page, and the direct map covers the device range.
        unsafe { self.0.write_volatile(value) }
    }

    pub(crate) fn read(self) -> T {
        // SAFETY: as for `write`.
        unsafe { self.0.read_volatile() }
    }
}
