//! Interrupt routes to a vCPU other than the first: what an MSI-X entry says reaches KVM unchanged. A bare VM in real mode, so
//! that nothing but the route decides who wakes.

use exovm::device::pci::{MsiMessage, MsixRoutes};
use exovm::machine::kvm::{self, Lines, RouteTable, Routes};
use exovm::machine::memory;
use exovm::tables::Memory;
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

const CODE_GPA: u64 = 0x1000;
/// One byte for each vCPU: how often it was woken.
const WOKEN_GPA: u64 = 0x2000;
/// `again: hlt; inc byte ptr [bx]; jmp again`, with interrupts off.
const CODE: [u8; 5] = [0xF4, 0xFE, 0x07, 0xEB, 0xFB];
const PATIENCE: Duration = Duration::from_secs(10);
const VCPUS: u64 = 3;

struct Bench {
    memory: Arc<Memory>,
    routes: Arc<Routes>,
    lines: Lines,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _vm: Arc<VmFd>,
}

impl Bench {
    fn new() -> Self {
        exovm_test::host::require();
        vmm_sys_util::signal::register_signal_handler(vmm_sys_util::signal::SIGRTMIN(), ignore)
            .expect("a handler");
        let kvm = kvm::open().expect("KVM");
        let vm = Arc::new(kvm::create(&kvm).expect("a VM"));
        let memory = Arc::new(memory::map(2 << 20).expect("2 MiB"));
        kvm::add_memory(&vm, &memory).expect("memory");
        memory.write_slice(&CODE, GuestAddress(CODE_GPA)).expect("memory");
        let table = RouteTable::new(Arc::clone(&vm)).expect("routes");
        let (routes, lines) = table.add_device(1).expect("a line");
        let stop = Arc::new(AtomicBool::new(false));
        let vcpus: Vec<_> = (0..VCPUS).map(|number| vcpu(&kvm, &vm, number)).collect();
        // KVM makes its list of APIC ids when an APIC changes, and the last vCPU was not there at its own reset. A kernel that
        // switches any APIC to x2APIC mode has the same effect.
        let apic = vcpus[0].get_lapic().expect("an APIC");
        vcpus[0].set_lapic(&apic).expect("an APIC");
        let threads = vcpus.into_iter().map(|vcpu| run(vcpu, &stop)).collect();
        Self { memory, routes, lines, stop, threads, _vm: vm }
    }

    fn woken(&self) -> [u8; VCPUS as usize] {
        self.memory.read_obj(GuestAddress(WOKEN_GPA)).expect("memory")
    }

    /// A device signals; whether the vCPUs are woken as often as expected, soon.
    fn signal(&self, expected: [u8; VCPUS as usize]) {
        // A vCPU that is on its way to its halt keeps a message of this kind, as one that is there does.
        self.lines[0].signal();
        let started = Instant::now();
        while self.woken() != expected {
            assert!(started.elapsed() < PATIENCE, "{:?}, expected {expected:?}", self.woken());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(self.woken(), expected, "nobody else");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                // SAFETY: the thread is not joined yet; the signal's handler does nothing.
                unsafe { libc::pthread_kill(thread.as_pthread_t(), vmm_sys_util::signal::SIGRTMIN()) };
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn vcpu(kvm: &Kvm, vm: &VmFd, number: u64) -> VcpuFd {
    let fd = vm.create_vcpu(number).expect("a vCPU");
    fd.set_cpuid2(&kvm.get_supported_cpuid(256).expect("CPUID")).expect("CPUID");
    let mut sregs = fd.get_sregs().expect("registers");
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    fd.set_sregs(&sregs).expect("registers");
    let regs = kvm_regs { rip: CODE_GPA, rbx: WOKEN_GPA + number, rflags: 2, ..Default::default() };
    fd.set_regs(&regs).expect("registers");
    fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).expect("runnable");
    fd
}

fn run(mut vcpu: VcpuFd, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            match vcpu.run() {
                Ok(VcpuExit::Intr) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert_eq!(error.errno(), libc::EINTR, "{error}"),
            }
        }
    })
}

/// A message to a vCPU that ends its halt and delivers nothing; see `doctor` for hosts where it does not.
fn wake(vcpu: u64) -> Option<MsiMessage> {
    let data = abi::layout::REMOTE_READ_MSI_DATA;
    Some(MsiMessage { address: 0xFEE0_0000 | vcpu << 12, data })
}

#[test]
fn message_to_another_vcpu_wakes_that_one_also_after_its_entry_was_changed() {
    let bench = Bench::new();
    bench.routes.set(0, wake(1));
    bench.signal([0, 1, 0]);
    bench.signal([0, 2, 0]);
    bench.routes.set(0, wake(2));
    bench.signal([0, 2, 1]);
    bench.routes.set(0, wake(0));
    bench.signal([1, 2, 1]);
    // Masked: to nobody.
    bench.routes.set(0, None);
    bench.signal([1, 2, 1]);
}
