//! Builds the kernel and the images with a cargo of their own and embeds them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("..");
    let root = root.canonicalize().expect("the workspace above vmm/");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    for source in exovm_image::build::SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let images = exovm_image::build::workspace_images(&root, &target_dir(&out).join("guest"))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut table = String::from("&[\n");
    for image in images {
        let path = out.join(format!("{}.image", image.name));
        fs::write(&path, image.file).expect("OUT_DIR is writable");
        table.push_str(&format!("    ({:?}, include_bytes!({path:?})),\n", image.name));
    }
    table.push(']');
    fs::write(out.join("embedded.rs"), table).expect("OUT_DIR is writable");
}

/// The target directory that OUT_DIR lies in: shared by all profiles, so that guests are built once.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists() || dir.ends_with("target"))
        .unwrap_or(out)
        .to_owned()
}
