//! What is fuzzed. Each target is a function of bytes that returns, whatever the bytes are; what it promises it asserts.
//!
//! | target | what reads the bytes, and as what |
//! | --- | --- |
//! | [`net`](device::net) | the NIC: a hostile driver's rings, registers and memory, and frames from the wire |
//! | [`block`](device::block) | the disk: the same |
//! | [`console`](device::console) | the host channel: the same, and a client at a port |
//! | [`user_net`](network::user_net) | the user backend: frames of a hostile guest |
//! | [`stack`](network::stack) | exos-net: frames of a hostile network, beside an application |
//! | [`wire`](adversary::wire) | two stacks of exos-net: what somebody does who owns the wire between them, over either family |
//! | [`fragments`](fragments::fragments) | exos-net: datagrams of either family in fragments |
//! | [`groups`](groups::groups) | exos-net: what is said of groups (IGMP, MLD) |
//! | [`dns`](names::dns), [`dhcp`](names::dhcp) | exos-dns, exos-dhcp: answers of servers, or of anybody |
//! | [`forward`](forward::forward) | exos-forward: frames from both sides and from anybody |
//! | [`responses`](responses::responses) | exos-load: bytes of a hostile HTTP server |
//! | [`flows`](flows::flows) | the flow table: frames are classified among flows that come and go |
//! | [`kernel`](kernel::kernel) | the kernel's tables: capabilities, page tables, and ranges given back while they are in use, by arbitrary calls |
//!
//! `fuzz/README.md` says how to run them.

pub mod adversary;
pub mod device;
pub mod flows;
pub mod forward;
pub mod fragments;
pub mod groups;
pub mod input;
pub mod kernel;
pub mod names;
pub mod network;
pub mod responses;

/// A target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("net", device::net),
    ("block", device::block),
    ("console", device::console),
    ("user_net", network::user_net),
    ("stack", network::stack),
    ("wire", adversary::wire),
    ("fragments", fragments::fragments),
    ("groups", groups::groups),
    ("dns", names::dns),
    ("dhcp", names::dhcp),
    ("forward", forward::forward),
    ("responses", responses::responses),
    ("flows", flows::flows),
    ("kernel", kernel::kernel),
];
