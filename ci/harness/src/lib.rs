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
//! | [`host`] | what the host must have |
//!
//! A test wraps its body in [`in_namespace!`]; nothing here touches the host's own network.

pub mod guest;
pub mod host;
pub mod http;
pub mod network;
pub mod site;

pub use exovm::backend::disk::Access;
pub use exovm_netns::in_namespace;
pub use guest::{Guest, GuestBuilder};
pub use http::{Client, Response};
pub use site::Site;
