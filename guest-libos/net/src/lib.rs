//! The TCP/IP stack of the library OS, without input and output: it takes frames, a clock and random bits as arguments
//! and returns events and frames. The same code runs in the guest, in a host test, under a fuzzer and over a TAP.
//!
//! A segment in gives events and a prepared reply; the application sends, merges or delays it. Data to send is a list of
//! references to bytes that stay put, and retransmission reads them again: there is no socket buffer. Data received is
//! lent from the frame it came in. Sockets, if somebody wants them, are a layer on top.
//!
//! - [`Stack`] is the whole of it: frames in ([`Stack::input`]), data out ([`Stack::send`], [`Stack::output`]), time
//!   ([`Stack::expire`], [`Stack::next_deadline`]).
//! - [`driver`] is the device's side: [`Transmit`] and what it is handed. [`events`] is the application's side.
//! - [`wire`] turns bytes into packets and back.
//!
//! Nobody trusts the wire: any bytes of any length may come in; what they can take up is bounded by [`Config`]. On the hot
//! path (a request in, a response out) nothing is allocated, formatted or copied but headers.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod counters;
pub mod data;
pub mod driver;
pub mod events;
mod frame;
mod ip;
mod ipv6;
mod multicast;
pub mod options;
mod stack;
mod tcp;
pub mod time;
pub mod wire;

pub use config::{
    Config, ConfigError, CongestionControl, Ecn, MAX_TSO_BYTES, OnConflict, Probing, Rate, SlowStart,
    SynCookies, TxChecksum,
};
pub use counters::Counters;
pub use data::Data;
pub use driver::{
    ChecksumRequest, Full, Gso, GsoKind, MAX_HEADER_BYTES, MAX_PIECES, Payload, Piece, RxChecksum, RxMeta,
    Transmit, TxSegment,
};
pub use events::{
    AckDue, AckPolicy, AddressConflict, BindError, ConflictOutcome, ConnId, ConnectError, Datagram,
    DatagramError, End, Evicted, Input, KeepError, ListenError, SegmentEvents, SendDatagramError, SendError,
    Sent, StaleConnection, TimerEvent,
};
pub use frame::ControlFrame;
pub use ipv6::{AddressState, InterfaceId, Ipv6Address, Ipv6Config};
pub use multicast::JoinError;
pub use options::{Coalesce, DatagramOptions, Dscp, KeepAlive};
pub use stack::{Local, Stack};
pub use tcp::Seq;
#[cfg(feature = "check")]
pub use tcp::check::{Numbers, Recovery};
pub use time::{Duration, Instant};
pub use wire::ethernet::MacAddress;
pub use wire::icmp::Problem;
