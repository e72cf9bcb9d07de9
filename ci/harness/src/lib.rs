//! A VM as a test fixture: boots an image on a TAP of the test's own network namespace and drives it with real clients.
//!
//! ```no_run
//! use exovm_test::{Guest, in_namespace};
//!
//! #[test]
//! fn hello_says_hello() {
//!     let image = exovm_test::build("../hello"); // a project made by `exovm new`; or Guest::image("hello"), built in
//!     in_namespace!(|| {
//!         let guest = Guest::file(&image).pcap("hello.pcapng").start();
//!         guest.wait_for_log("serving port 80");
//!         guest.get("/").assert_status(200).assert_text("hello from ring 3\n");
//!         let cost = guest.cost_of(|| (0..100).for_each(|_| drop(guest.get("/"))));
//!         assert!(cost.bucket_cycles("vcpu", "guest") < cost.elapsed_cycles());
//!         guest.stop();
//!     });
//! }
//! # fn main() {}
//! ```
//!
//! Everything here is for tests. What goes wrong is a panic with a sentence that says what, so tests read from top to
//! bottom without error handling. Where there is no /dev/kvm a test fails and says so; it is not skipped.
//!
//! | module | what |
//! | --- | --- |
//! | [`channel`] | bytes through the ports of its host channel |
//! | [`builder`] | what a machine is made of, until it starts |
//! | [`guest`] | a running machine: ask it things, stop it |
//! | [`project`] | build an image of one's own |
//! | [`http`] | a small HTTP client, and what a response should be |
//! | [`cost`] | what something cost, by the account |
//! | [`link`](mod@link) | machines of one test that speak to each other, and the host's end of a link |
//! | [`network`] | a guest's TAP |
//! | [`site`](mod@site) | document roots made for a test, and bodies that are computed instead of stored |
//! | [`host`] | what the host must have |
//!
//! A test wraps its body in [`in_namespace!`]; nothing here touches the host's own network.

pub mod builder;
pub mod channel;
pub mod cost;
pub mod guest;
pub mod host;
pub mod http;
pub mod link;
mod log;
pub mod network;
pub mod project;
pub mod site;

pub use builder::GuestBuilder;
pub use cost::Cost;
pub use exovm::backend::disk::Access;
pub use exovm_netns::in_namespace;
pub use guest::Guest;
pub use http::{Client, Response};
pub use project::build;
pub use site::Site;
