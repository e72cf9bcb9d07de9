//! Images of one's own, built for a test.

use exovm::project::{self, Dependencies, Messages};
use exovm_image::manifest::Manifest;
use exovm_netns::test_harness::INSIDE_VARIABLE;
use std::path::{Path, PathBuf};

/// Builds the image of the project in `dir` as `exovm build` does, and gives back where it lies, for
/// [`Guest::file`](crate::Guest::file).
///
/// A test calls it before it enters its namespace, where there is no network for cargo to fetch anything from. The run
/// inside takes what the one outside has built.
///
/// # Panics
/// If it cannot be built, with what cargo said.
pub fn build(dir: impl AsRef<Path>) -> PathBuf {
    let dir = dir.as_ref();
    if std::env::var_os(INSIDE_VARIABLE).is_none() {
        let packed = project::build(dir, Dependencies::AsNeeded, Messages::Kept);
        return packed.unwrap_or_else(|error| panic!("{error}")).path;
    }
    let path = dir.join("image.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    dir.join(format!("{}.image", manifest.name))
}
