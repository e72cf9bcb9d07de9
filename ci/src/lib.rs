//! A VM as a test fixture: boots an image on a TAP of the test's own network namespace and drives it with real clients.
//!
//! Everything here is for tests. What goes wrong is a panic with a sentence that says what, so tests read from top to
//! bottom without error handling.
//!
//! | module | what |
//! | --- | --- |
//! | [`guest`] | start an image, ask it things, stop it |
//! | [`network`] | its TAP |
//! | [`http`] | a small HTTP client |
//! | [`site`](mod@site) | document roots made for a test, and bodies that are computed instead of stored |
//! | [`corpus`] | a real documentation tree of more than 10,000 files |
//! | [`host`] | what the host must have, and what this process uses of it |
//! | [`link_layer`] | frames put on the wire by hand |
//! | [`scene`] | the `exovm` command, as its user meets it |
//!
//! A test wraps its body in `exovm_netns::in_namespace!`; nothing here touches the host's own network.

pub mod corpus;
pub mod guest;
pub mod host;
pub mod http;
pub mod link_layer;
pub mod network;
pub mod scene;
pub mod site;

pub use guest::{Guest, GuestBuilder};
pub use http::{Client, Response};
pub use site::Site;
