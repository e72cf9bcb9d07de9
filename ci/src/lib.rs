//! What our own tests have besides the fixture that everybody can use ([`exovm_test`], whose names are here as well).
//!
//! | module | what |
//! | --- | --- |
//! | [`corpus`] | a real documentation tree of more than 10,000 files |
//! | [`dnsmasq`] | a server for names and addresses |
//! | [`host`] | what a process uses of the host |
//! | [`name_server`] | a name server that says over UDP that there is more, with manners of every kind over TCP |
//! | [`pair`] | two Cheetahs in one machine |
//! | [`relay`] | a TCP relay on sockets, for comparison |
//! | [`routed`] | a client and a server on networks of their own, with a guest between |
//! | [`scene`] | the `exovm` command, as its user meets it |
//! | [`sockets`] | what the kernel says of a socket |
//! | [`swamp`] | runs of webswamp, and the servers that it meets |
//! | [`tracefs`] | tracefs for one test, there or not |
//! | [`under_attack`] | an honest load beside attacks on TCP/IP |
//!
//! A test wraps its body in `exovm_netns::in_namespace!`; nothing here touches the host's own network.

pub mod corpus;
pub mod dnsmasq;
pub mod host;
pub mod name_server;
pub mod pair;
pub mod relay;
pub mod routed;
pub mod scene;
pub mod sockets;
pub mod swamp;
pub mod tracefs;
pub mod under_attack;

pub use exovm_test::builder::make_image;
pub use exovm_test::{Client, Guest, GuestBuilder, Response, Site, guest, http, network, site};
