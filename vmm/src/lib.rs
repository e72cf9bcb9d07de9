//! The VMM of exovm: plays the hardware for an exokernel guest and accounts for every cycle from outside.
//!
//! | module | what |
//! | --- | --- |
//! | [`machine`] | a VM: memory, boot, vCPU, start and end |
//! | [`device`] | PCI and virtio; knows only `abi` |
//! | [`tables`] | the hardware's view of the kernel's tables: DMA domains, flows, extents, queue owners |
//! | [`backend`] | where frames go: a tap, sockets of the host, another machine; faults and captures around it |
//! | [`placement`] | who does device work, and when |
//! | [`attacks`] | what environments try, and what it must get |
//! | [`probe`] | count and measure the calls of any function of a running machine |
//! | [`account`] | where the cycles went |
//! | [`trace`] | who looks at accounts and records, and how those get out |
//! | `perf_events` | what the host's kernel counts and records: its PMU, its tracepoints |
//! | [`profile`] | where vCPUs and threads are, sampled |
//! | [`stat`] | what every layer has counted |
//! | [`channel`] | who is attached to the ports of the host channel |
//! | [`control`] | how tools speak to a running machine |
//! | [`docroot_image`] | disk images of document roots, made once and kept |
//! | [`guest_log`] | the last lines of a guest's log |
//! | [`images`] | the images embedded in this binary |
//! | [`sample_site`] | the site that is served when none is given |
//! | [`span_costs`] | what a span costs in the guest |
//! | `output` | files that are there as a whole, or valid as far as they go |
//! | `text` | numbers of things; strangers' text for terminals |
//! | [`project`] | images of one's own: made from a template, built against the sources embedded in this binary |
//! | [`cache_dir`](mod@cache_dir) | where what can be made again is kept |
//! | [`cli`] | the `exovm` command |

pub mod account;
pub mod attacks;
pub mod backend;
pub mod cache_dir;
pub mod channel;
pub mod cli;
mod closest;
pub mod control;
pub mod debug;
pub mod device;
pub mod docroot_image;
pub mod guest_log;
pub mod images;
pub mod kernel_costs;
pub mod machine;
mod output;
pub(crate) mod perf_events;
pub mod placement;
pub mod probe;
pub mod profile;
pub mod project;
pub mod sample_site;
pub mod span_costs;
pub mod stat;
pub mod tables;
mod text;
pub mod trace;
