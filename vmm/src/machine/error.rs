//! Why a machine could not be made or did not go on.

use crate::backend::BackendError;
use crate::backend::disk::DiskError;
use crate::device::pci::BusError;
use crate::device::virtio::PciError;
use crate::device::virtio::block::BlockError;
use crate::device::virtio::console::ConsoleError;
use crate::device::virtio::firmware::StartError;
use crate::device::virtio::net::NetError;
use crate::tables::{DomainError, FlowTableError, TableError};

/// An error of the machine itself. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// `/dev/kvm` is not there.
    #[error(
        "there is no /dev/kvm: this host offers no KVM. Load it (`sudo modprobe kvm_amd` or `kvm_intel`), switch \
         virtualisation on in the firmware, or, in a VM, enable nested virtualisation"
    )]
    NoKvm,
    /// `/dev/kvm` may not be opened.
    #[error(
        "no permission to use /dev/kvm. Join the kvm group (`sudo usermod -aG kvm $USER`, then log in again) or run \
         as root"
    )]
    KvmPermission,
    /// A KVM call failed.
    #[error("{call} failed: {error}")]
    Kvm {
        /// Which.
        call: &'static str,
        /// Why.
        error: kvm_ioctls::Error,
    },
    /// The host has no memory for the guest.
    #[error("cannot map {mib} MiB of guest memory: {reason}; use a smaller --memory")]
    Memory {
        /// How much.
        mib: u64,
        /// Why.
        reason: String,
    },
    /// The guest has no room for what must go in.
    #[error(
        "the machine's memory is too small: at least {needed_mib} MiB are needed; give it more with --memory"
    )]
    MemoryTooSmall {
        /// How much would do.
        needed_mib: u64,
    },
    /// None, or too many.
    #[error(
        "{environments} environments and {spare} spare places are not possible: at least one environment, and at most \
         {max} with the spare places",
        max = abi::domain::DOMAINS
    )]
    Environments {
        /// Environments that run at boot.
        environments: u32,
        /// Places for further ones.
        spare: u32,
    },
    /// None, or too many.
    #[error("{vcpus} vCPUs are not possible: a machine has 1 to {max}", max = abi::boot::VCPUS_MAX)]
    Vcpus {
        /// What was asked for.
        vcpus: u32,
    },
    /// There would be more than one to take it.
    #[error(
        "device work in turns (--io turn) needs a machine with one vCPU, and this one has {vcpus}: a turn takes the vCPU, and \
         the work of the others would wait for it. Use --io thread or --io auto, or --vcpus 1"
    )]
    TurnsOfSeveral {
        /// vCPUs of the machine.
        vcpus: u32,
    },
    /// A CPU for some vCPUs only.
    #[error("there are {cpus} CPUs for {vcpus} vCPUs to be bound to: name one for each, or none")]
    VcpuCpus {
        /// CPUs named.
        cpus: usize,
        /// vCPUs of the machine.
        vcpus: u32,
    },
    /// More than a machine can have.
    #[error("--memory {mib} is more than a machine can have ({max} MiB)", max = super::memory::MEMORY_MAX_BYTES >> 20)]
    MemoryTooLarge {
        /// What was asked for.
        mib: u64,
    },
    /// The backend of the NIC.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A PCI function.
    #[error("a device cannot be set up: {0}")]
    Pci(#[from] PciError),
    /// The bus.
    #[error("a device cannot be set up: {0}")]
    Bus(#[from] BusError),
    /// The NIC itself.
    #[error("the NIC cannot be set up: {0}")]
    Net(#[from] NetError),
    /// A disk itself.
    #[error("a disk cannot be set up: {0}")]
    Block(#[from] BlockError),
    /// The image of a disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The host channel itself.
    #[error("the host channel cannot be set up: {0}")]
    Console(#[from] ConsoleError),
    /// A device's start.
    #[error("a device does not start: {0}")]
    DeviceStart(#[from] StartError),
    /// The device table is full.
    #[error("a machine has at most {max} devices, NIC and disks together; use fewer", max = abi::boot::DEVICES)]
    TooManyDevices,
    /// A table of the kernel.
    #[error("a table cannot be set up: {0}")]
    Table(#[from] TableError),
    /// A DMA domain.
    #[error("the DMA domain cannot be set up: {0}")]
    Domain(#[from] DomainError),
    /// The flow table.
    #[error("the flow table cannot be set up: {0}")]
    Flow(#[from] FlowTableError),
    /// Guest memory, at an address that the VMM itself chose.
    #[error("guest memory: {0}")]
    GuestMemory(#[from] vm_memory::GuestMemoryError),
    /// A host resource (event descriptor, thread).
    #[error("{what}: {error}")]
    Host {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// The arguments do not fit.
    #[error("the image's arguments are {len} bytes long, at most {max} fit", max = abi::boot::ARGUMENTS_BYTES)]
    ArgumentsTooLong {
        /// How long they are.
        len: usize,
    },
    /// A defect of the VMM.
    #[error("internal error: {0}; please report this")]
    Internal(&'static str),
}

impl MachineError {
    /// For `map_err` on KVM calls.
    pub(crate) fn kvm(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { call, error }
    }

    /// For `map_err` on host calls.
    pub(crate) fn host(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Host { what, error }
    }
}
