//! The boot page and guest-physical memory. This is the one module that turns guest-physical addresses into references;
//! it relies on what the VMM promises of the boot page and on the kernel being alone with its vCPU.

use crate::arch::probe::Gate;
use abi::boot::{BOOT_MAGIC, BootPage, Device, StatusPage};
use abi::call::gate;
use abi::layout::DIRECT_MAP_VA;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

static BOOT: AtomicPtr<BootPage> = AtomicPtr::new(core::ptr::null_mut());
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

    /// What the first environment tells of itself; the kernel adds its own part.
    fn status(self) -> &'static StatusPage {
        // SAFETY: the status page is RAM reserved by the VMM, all its fields are atomics, and any content is valid.
        unsafe { &*direct_map::<StatusPage>(self.boot.status_gpa) }
    }

    /// Stamps a phase of the start.
    pub(crate) fn stamp(self, phase: usize) {
        self.status().phases[phase].store(crate::arch::tsc(), Ordering::Relaxed);
    }

    /// Remembers how a halt is ended, for MSI-X entries, and tells the environment.
    pub(crate) fn set_wake(self, wake: u32) {
        WAKE.store(wake, Ordering::Relaxed);
        self.status().wake.store(wake, Ordering::Relaxed);
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
        self.status().gate.store(number, Ordering::Relaxed);
    }

    /// Writes a control register of the VMM.
    pub(crate) fn control(self, register: u64, value: u32) {
        Register::<u32>::at(self.boot.control_gpa + register).write(value);
    }
}

/// Where the kernel sees guest-physical memory.
pub(crate) fn direct_map<T>(gpa: u64) -> *const T {
    (DIRECT_MAP_VA + gpa) as *const T
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
