//! The stack from outside: frames in at a time, frames out. Scripted segments for single rules, smoltcp as an
//! independent client over a bad link for the whole, garbage for robustness.

mod address;
mod attacks;
mod bottleneck;
mod close;
mod connect;
mod data_path;
mod ecn;
mod examination;
mod garbage;
mod groups;
mod handshake;
mod harness;
mod icmp;
mod ipv6;
mod link;
mod many;
mod mtu;
mod ndisc;
mod rack;
mod reassembly;
mod receive;
mod retransmission;
mod room;
mod sack;
mod simulation;
mod syn_cookies;
mod timestamps;
mod transfer;
mod udp;
mod windows;
mod withhold;
