//! Two Cheetahs in one machine, on one NIC, with a disk each; `/who` says which of them answers.

use exovm::backend::disk::Access;
use exovm_test::builder::make_image;
use exovm_test::{Guest, GuestBuilder, Site};
use std::net::SocketAddr;
use std::path::Path;

/// What they answer.
pub const NAMES: [&str; 2] = ["first", "second"];

/// Starts them, with their disks' images in `scratch`; and where they serve.
pub fn two_cheetahs(
    scratch: &Path,
    set: impl FnOnce(GuestBuilder) -> GuestBuilder,
) -> (Guest, [SocketAddr; 2]) {
    let images = NAMES.map(|who| {
        let path = scratch.join(who);
        make_image(Site::new().file("who", who).path(), &path);
        path
    });
    let builder = Guest::image("cheetah").environments(2).memory_mib(512);
    let builder = images.iter().fold(builder, |builder, image| builder.disk(image, Access::ReadOnly));
    let guest = set(builder).start();
    let first = guest.address();
    (guest, [first, SocketAddr::new(first.ip(), first.port() + 1)])
}
