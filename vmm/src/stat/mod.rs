//! Statistics: what every layer has counted, from the guest's TCP down to KVM, at one moment.
//!
//! Each layer counts in plain numbers of its own, on its own thread or behind its own lock; nothing is added up, formatted or even
//! looked at before somebody asks. What the guest counts it writes to its statistics area ([`abi::statistics`]); that is shown and
//! never relied on.
//!
//! | module | what |
//! | --- | --- |
//! | [`family`] | what a statistic is: name, unit, help text, samples with labels |
//! | [`metrics`] | how devices declare their counters, with help texts |
//! | [`histogram`] | durations by powers of two |
//! | [`snapshot`] | all families of a machine, and the difference of two moments |
//! | `collect` | reads the layers, one room each |
//! | `pmu` | the processor's counters, which go only while somebody looks |
//! | [`table`] | for people |
//! | [`prometheus`] | the text format 0.0.4 |

mod collect;
pub mod family;
pub mod histogram;
pub(crate) mod metrics;
pub(crate) mod pmu;
pub mod prometheus;
pub mod snapshot;
pub mod table;

pub use family::{Family, Kind, Sample};
pub use metrics::Metric;
pub use pmu::described as pmu_families;
pub use snapshot::{Absent, StatSnapshot};

/// The layers, from the wire up and then down to the host, with what each is.
pub const LAYERS: [(&str, &str); 19] = [
    ("machine", "the machine as a whole, and where device work is done"),
    ("nic", "the network interface and each of its queue pairs, as the VMM sees them"),
    ("flow", "the flow table: whose is a frame, and may it be sent"),
    ("backend", "where frames go: the tap, or the user network"),
    ("ip", "Ethernet, ARP, IPv4 and ICMP, as the guest says"),
    ("tcp", "TCP by the terms of RFC 4022 and RFC 4898, as the guest says"),
    ("udp", "UDP by the terms of RFC 4113, as the guest says"),
    ("http", "HTTP, as the guest says"),
    ("cache", "the guest's cache of file pages and what it reads of its file system"),
    ("forward", "the forwarder's connections, what went each way, and why frames went nowhere"),
    ("disk", "disks and their requests, as the VMM sees them"),
    ("channel", "the host channel: consoles and control streams"),
    ("kernel", "kernel calls by name, as the guest says, and what the kernel says of its environments"),
    ("vcpu", "exits from the guest to the VMM, by reason"),
    ("kvm", "what KVM itself counts of each vCPU and of the machine"),
    ("pmu", "the processor's own counters of the guest alone, while somebody looks; not on every host"),
    ("account", "cycles of the VMM's threads, by bucket"),
    ("guest", "spans, events and counters of the guest"),
    ("host", "what the VMM's process and its threads take of the host"),
];
