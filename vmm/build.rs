//! Builds the kernel and the images with a cargo of their own and embeds them; packs the sources that images of one's own
//! are built from.

use exovm_image::{sources, template};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("..");
    let root = root.canonicalize().expect("the workspace above vmm/");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    for source in exovm_image::build::SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={}", exovm_image::build::WITHOUT_SPANS);
    embed_sources(&root, &out);
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

/// Packs the guest side's sources, and makes the Cargo.lock of a project that is built from them: by cargo, in such a
/// project, out of the workspace's own.
fn embed_sources(root: &Path, out: &Path) {
    let archive = sources::pack(root).unwrap_or_else(|error| panic!("{error}"));
    let project = out.join("template");
    // Left from the last time.
    let _ = fs::remove_dir_all(&project);
    let files = sources::files(&archive).expect("just packed");
    sources::unpack(&files, &project.join(template::SOURCES)).expect("OUT_DIR is writable");
    for (path, text) in template::files(&template::ProjectName::placeholder(), "") {
        let path = project.join(path);
        fs::create_dir_all(path.parent().expect("below the project")).expect("OUT_DIR is writable");
        fs::write(path, text).expect("OUT_DIR is writable");
    }
    let workspace_lock = fs::read_to_string(root.join("Cargo.lock")).expect("the workspace's Cargo.lock");
    let lock =
        exovm_image::build::project_lock(&project, &workspace_lock).unwrap_or_else(|error| panic!("{error}"));
    fs::write(out.join("project.lock"), lock).expect("OUT_DIR is writable");
    fs::write(out.join("sources.tar.gz"), archive).expect("OUT_DIR is writable");
}

/// The target directory that OUT_DIR lies in: shared by all profiles, so that guests are built once.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists() || dir.ends_with("target"))
        .unwrap_or(out)
        .to_owned()
}
