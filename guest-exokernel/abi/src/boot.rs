//! The pages through which VMM, kernel and environment tell each other what there is.
//!
//! | page | written by | read by |
//! | --- | --- | --- |
//! | [`BootPage`] | VMM before boot | kernel |
//! | [`EnvironmentPage`] | VMM or kernel before the environment starts | environment |
//! | [`HostPage`] | VMM while running | environment |
//! | [`StatusPage`] | environment | VMM (which believes none of it) |

use crate::capability::Handle;
use crate::domain::DOMAINS;
use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, AtomicU64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// "xokboot1", little endian.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"xokboot1");
/// "xokenv01", little endian.
pub const ENVIRONMENT_MAGIC: u64 = u64::from_le_bytes(*b"xokenv01");

/// A run of guest-physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRange {
    /// First guest-physical address.
    pub start_gpa: u64,
    /// Length in bytes; 0 ends a list.
    pub len_bytes: u64,
}

impl MemoryRange {
    /// First address behind the range.
    pub fn end_gpa(&self) -> u64 {
        self.start_gpa + self.len_bytes
    }
}

/// [`Device::kind`] of a virtio network device.
pub const DEVICE_NET: u32 = 1;
/// [`Device::kind`] of a virtio block device.
pub const DEVICE_BLOCK: u32 = 2;
/// [`Device::kind`] of a virtio console device: two queues a port, and two for control (VIRTIO 1.3 5.3.2).
pub const DEVICE_CONSOLE: u32 = 3;

/// Most vCPUs of a machine.
pub const VCPUS_MAX: usize = 8;

/// Lines of the device table.
pub const DEVICES: usize = 8;

/// One line of the device table. Where the standard PCI capabilities of the device point, found once by the VMM so that
/// nobody enumerates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    /// [`DEVICE_NET`], [`DEVICE_BLOCK`] or [`DEVICE_CONSOLE`]; 0 ends the table.
    pub kind: u32,
    /// Bus, device and function as in a PCI requester id.
    pub requester_id: u32,
    /// `struct virtio_pci_common_cfg` (VIRTIO 1.3 4.1.4.3), already at DRIVER_OK.
    pub common_gpa: u64,
    /// Doorbell of queue 0 (VIRTIO 1.3 4.1.4.4); queue `q` lies `q * doorbell_stride_bytes` further.
    pub doorbell_gpa: u64,
    /// MSI-X table; entry `q` belongs to queue `q`.
    pub msix_table_gpa: u64,
    /// `notify_off_multiplier`: one page, so that a doorbell can be mapped alone.
    pub doorbell_stride_bytes: u32,
    /// Number of queues that can be bound.
    pub queues: u32,
    /// Largest size of a queue, a power of two.
    pub queue_size_max: u32,
    /// For a network device: largest IP packet in bytes.
    pub mtu_bytes: u32,
    /// Feature bits accepted at start (VIRTIO 1.3 6).
    pub features: u64,
    /// For a network device: hardware address in the first six bytes.
    pub mac: [u8; 8],
    /// For a block device: capacity in blocks of [`crate::extent::BLOCK_BYTES`].
    pub capacity_blocks: u64,
    /// For a block device: most pieces of memory in one request.
    pub segments_max: u32,
    /// For a block device: most blocks in one read or write.
    pub transfer_blocks_max: u32,
    /// The first of the queues that can be bound.
    pub first_queue: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the kernel finds when it starts. Its guest-physical address is in `rdi`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootPage {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub abi_version: u32,
    /// vCPUs of the machine, 1 to [`VCPUS_MAX`]. They are numbered from 0 on, and the x2APIC id of each is its number. All
    /// begin at once: see [`crate::header::KernelHeader`].
    pub vcpus: u32,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// RAM of the machine; a range of length 0 ends it.
    pub memory: [MemoryRange; 4],
    /// Start of what the kernel may hand out: everything below is the kernel's own.
    pub free_gpa: u64,
    /// [`crate::domain::DomainEntry`] × [`crate::domain::DOMAINS`].
    pub domains_gpa: u64,
    /// [`crate::queue::QueueOwner`] × [`crate::queue::QUEUE_OWNERS`].
    pub queue_owners_gpa: u64,
    /// [`crate::flow::FlowTable`] and its nodes.
    pub flows_gpa: u64,
    /// [`crate::extent::ExtentEntry`] × [`crate::extent::EXTENTS`].
    pub extents_gpa: u64,
    /// [`crate::fault::FaultRecord`] × [`Self::vcpus`]: that of vCPU `n` is the one that the VMM reads when vCPU `n` writes
    /// [`control::FAULT`] or [`control::ENVIRONMENT_FAULT`].
    pub fault_gpa: u64,
    /// The page mapped at [`crate::layout::GATE_VA`]; the kernel puts the gate instruction in.
    pub gate_gpa: u64,
    /// [`HostPage`], the same for all environments.
    pub host_gpa: u64,
    /// The turn registers' page.
    pub turn_gpa: u64,
    /// [`crate::vcpu::VcpuTime`] × [`VCPUS_MAX`].
    pub vcpu_times_gpa: u64,
    /// Places for environments, [`crate::environment::Place`] × [`Self::places`].
    pub places_gpa: u64,
    /// Their capabilities, [`crate::capability::Capability`] × [`crate::capability::CAPABILITIES`] × [`crate::domain::DOMAINS`].
    pub capabilities_gpa: u64,
    /// Pages for page tables, zero.
    pub table_pool: MemoryRange,
    /// How many places for environments there are.
    pub places: u32,
    /// Zero.
    pub reserved: u32,
    /// Control registers of the VMM ([`control`]), reachable from ring 0 only.
    pub control_gpa: u64,
    /// Host entropy for the kernel.
    pub entropy: [u8; 64],
    /// The device table; kind 0 ends it.
    pub devices: [Device; DEVICES],
}

/// Registers behind [`BootPage::control_gpa`]: 32 bits each, from ring 0 only; all but [`DRAINED`] are written. Each vCPU has its own, at the same
/// addresses, as it has its own local APIC: what two vCPUs write at the same time does not mix, and [`CLEAN_PAGES`] takes the
/// [`CLEAN_START`] of the vCPU that writes it.
pub mod control {
    /// Ends the machine, all vCPUs of it; the value is the exit status.
    pub const POWER_OFF: u64 = 0;
    /// This vCPU's fault record is filled: report it and end the machine, all vCPUs of it.
    pub const FAULT: u64 = 4;
    /// This vCPU's fault record is filled: report it; the environment that it names ends, the machine goes on.
    pub const ENVIRONMENT_FAULT: u64 = 8;
    /// Devices may still be at memory and blocks of the environment of this number on the strength of rights that it does not
    /// have any more: has the VMM watch when they are not. Counted for each environment from 1 on, see [`DRAINED`].
    pub const DRAIN: u64 = 12;
    /// First page of the range that [`CLEAN_PAGES`] clears.
    pub const CLEAN_START: u64 = 16;
    /// How many pages of memory to fill with zeroes, from [`CLEAN_START`] on.
    pub const CLEAN_PAGES: u64 = 20;
    /// An exception that may be a debugger's: INT3 outside the gate, a single step, or whatever happens to ring 3 while it is
    /// stepped. The value is the lower half of the address, in the kernel's memory, of the [`crate::fault::TrapFrame`]; the VMM sets
    /// that one's vector to [`crate::fault::GO_ON`] if it was a debugger's. What it leaves as it is, is a fault.
    pub const BREAKPOINT: u64 = 24;
    /// To be read: up to which count of [`DRAIN`] an environment's are over; 4 bytes for each, by number.
    pub const DRAINED: u64 = 0x100;
}

/// IPv4 configuration of an environment's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4Config {
    /// Address, network order; all zero: no address.
    pub address: [u8; 4],
    /// Default gateway, network order; all zero: none.
    pub gateway: [u8; 4],
    /// Length of the on-link prefix in bits.
    pub prefix_len: u32,
    /// 1: the environment asks a DHCP server for all of this, and there is no address.
    pub dhcp: u32,
    /// A value of [`probing`], for an address that is given here.
    pub probing: u32,
}

/// Values of [`Ipv4Config::probing`]: when the link is asked whether somebody has the address already (RFC 5227).
pub mod probing {
    /// Never.
    pub const NONE: u32 = 0;
    /// While it is used.
    pub const MEANWHILE: u32 = 1;
    /// Before it is used.
    pub const BEFORE: u32 = 2;
}

/// IPv6 configuration of an environment's interface, beside the link-local address that it makes of its hardware address
/// (RFC 4291, appendix A).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6Config {
    /// Address, network order; all zero: none is given.
    pub address: [u8; 16],
    /// Default gateway, network order; all zero: none is given.
    pub gateway: [u8; 16],
    /// Length of the on-link prefix of [`Self::address`] in bits.
    pub prefix_len: u32,
    /// A value of [`ipv6`].
    pub mode: u32,
}

/// Values of [`Ipv6Config::mode`].
pub mod ipv6 {
    /// IPv6 packets are dropped.
    pub const OFF: u32 = 0;
    /// The addresses that are given, and the link-local one.
    pub const GIVEN: u32 = 1;
    /// Besides, what routers advertise (RFC 4862 5.5).
    pub const AUTOMATIC: u32 = 2;
}

/// Name servers that an environment is told of at most.
pub const NAME_SERVERS: usize = 3;

/// The servers that an environment asks for names, in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameServers {
    /// Addresses in network order, IPv4's in IPv6's form (`::ffff:0:0/96`, RFC 4291 2.5.5.2); all zero: none.
    pub addresses: [[u8; 16]; NAME_SERVERS],
}

impl NameServers {
    /// The first of these.
    pub fn new(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut told = Self::default();
        for (place, server) in told.addresses.iter_mut().zip(servers) {
            *place = match server {
                IpAddr::V4(server) => server.to_ipv6_mapped().octets(),
                IpAddr::V6(server) => server.octets(),
            };
        }
        told
    }

    /// Their addresses.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.addresses
            .iter()
            .map(|&octets| Ipv6Addr::from(octets).to_canonical())
            .filter(|server| !server.is_unspecified())
    }
}

/// How an environment waits when it has nothing to do and is not told to take a turn.
pub mod wake {
    /// A device's interrupt ends the halt without being delivered (KVM's "remote read" behaviour).
    pub const SILENT: u32 = 1;
    /// A device's interrupt is delivered to the kernel, which returns from the halt.
    pub const INTERRUPT: u32 = 2;
}

/// Longest argument string in bytes.
pub const ARGUMENTS_BYTES: usize = 1024;

/// Handles of the capabilities that the VMM gave an environment at boot; [`Handle::NONE`] for what it did not get.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capabilities {
    /// The places for further environments.
    pub environments: Handle,
    /// One for each range of [`EnvironmentPage::heap`].
    pub heap: [Handle; 4],
    /// The queues of each device.
    pub queues: [Handle; DEVICES],
    /// The blocks of each disk.
    pub extents: [Handle; DEVICES],
    /// The flow of each network device.
    pub flows: [Handle; DEVICES],
    /// Slices of each vCPU. Those of the one on which it begins are bound.
    pub slices: [Handle; VCPUS_MAX],
    /// Environments that run from the start, by their numbers: what may be done with them. The one at its own number is itself,
    /// to be given to others.
    pub neighbours: [Handle; DOMAINS],
    /// The environments of which it is the parent.
    pub children: [Child; CHILDREN],
}

impl Default for Capabilities {
    /// Nothing.
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

/// Children that an environment has handles of from the start.
pub const CHILDREN: usize = 8;

/// What an environment holds of another one that runs from the start, if the image says that it is the parent of all others.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Child {
    /// The environment.
    pub environment: Handle,
    /// The first range of its heap.
    pub memory: Handle,
    /// The child's own handle for that, which was derived from it.
    pub theirs: Handle,
}

/// What an environment finds at [`crate::layout::ENVIRONMENT_VA`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EnvironmentPage {
    /// [`ENVIRONMENT_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub abi_version: u32,
    /// Number of this environment.
    pub environment: u32,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// Pages this environment owns, readable and writable at [`crate::layout::WINDOW_VA`]; length 0 ends the list.
    pub heap: [MemoryRange; 4],
    /// Host entropy for this environment.
    pub entropy: [u8; 64],
    /// The machine's devices. Guest-physical register addresses are zero here, and [`Device::first_queue`] and
    /// [`Device::queues`] say which queues are this environment's.
    pub devices: [Device; DEVICES],
    /// What it may do.
    pub capabilities: Capabilities,
    /// Address of the first network device.
    pub ipv4: Ipv4Config,
    /// The same of IPv6.
    pub ipv6: Ipv6Config,
    /// Whom to ask for names; none: nobody, or whom a DHCP server says.
    pub name_servers: NameServers,
    /// Bytes of [`Self::arguments`] in use.
    pub arguments_len: u32,
    /// The image's arguments, UTF-8, separated by NUL.
    pub arguments: [u8; ARGUMENTS_BYTES],
}

/// What the VMM tells an environment while it runs, at [`crate::layout::HOST_VA`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct HostPage {
    /// 1: take a turn when the receive ring is empty. 0: device work runs elsewhere; poll, then halt. 0 for good in a
    /// machine with several vCPUs, where a turn returns at once.
    pub take_turns: AtomicU32,
    /// 1: the user wants the machine to end; finish what is cheap to finish and exit.
    pub stop: AtomicU32,
    /// Which accounts and records it is to keep.
    pub trace: crate::trace::Wanted,
}

/// Moments that the guest stamps with its TSC, in [`StatusPage::phases`].
pub mod phase {
    /// First instruction of the kernel.
    pub const KERNEL: usize = 0;
    /// The kernel leaves for ring 3.
    pub const ENVIRONMENT: usize = 1;
    /// The library OS is initialised.
    pub const RUNTIME: usize = 2;
    /// Queues are bound.
    pub const NETWORK: usize = 3;
    /// The service listens.
    pub const READY: usize = 4;
    /// The first request was answered.
    pub const FIRST_RESPONSE: usize = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
    /// Their names, for tables.
    pub const NAMES: [&str; COUNT] =
        ["kernel", "environment", "library OS", "network", "ready", "first response"];
}

/// What an environment tells of itself, at [`crate::layout::STATUS_VA`]. Untrusted.
#[derive(Debug, Default)]
#[repr(C)]
pub struct StatusPage {
    /// TSC of each [`phase`]; 0: not reached.
    pub phases: [AtomicU64; phase::COUNT],
    /// TCP port that is served; 0: none.
    pub port: AtomicU32,
    /// Gate in use: 1 `int3`, 2 `syscall` (written by the kernel).
    pub gate: AtomicU32,
    /// A value of [`wake`] (written by the kernel).
    pub wake: AtomicU32,
    /// IPv4 address that a DHCP server has leased, most significant byte first; 0: none.
    pub address: AtomicU32,
    /// Of the IPv4 address that it was given, a value of [`address_state`]; [`address_state::NONE`]: nothing is said of it, so it is
    /// used.
    pub given_ipv4: AtomicU32,
    /// Zero.
    pub reserved: u32,
    /// IPv6 addresses of its interface; what is behind the last is [`address_state::NONE`].
    pub ipv6: [Ipv6Status; IPV6_ADDRESSES],
}

/// Most IPv6 addresses of which [`StatusPage::ipv6`] tells.
pub const IPV6_ADDRESSES: usize = 8;

/// An IPv6 address, and what is known of it. While the halves change, the state is [`address_state::NONE`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Ipv6Status {
    /// The first eight bytes, most significant first.
    pub high: AtomicU64,
    /// The last eight bytes, most significant first.
    pub low: AtomicU64,
    /// A value of [`address_state`].
    pub state: AtomicU32,
    /// Zero.
    pub reserved: u32,
}

/// Values of [`Ipv6Status::state`].
pub mod address_state {
    /// There is no address.
    pub const NONE: u32 = 0;
    /// It is being found out whether somebody else has it.
    pub const TENTATIVE: u32 = 1;
    /// It is in use.
    pub const USED: u32 = 2;
    /// Somebody else has it, so it is not used.
    pub const DUPLICATE: u32 = 3;
    /// It is in use, and no port is served there.
    pub const UNSERVED: u32 = 4;
}

const _: () = assert!(size_of::<BootPage>() <= 4096);
const _: () = assert!(size_of::<EnvironmentPage>() <= 4096);
