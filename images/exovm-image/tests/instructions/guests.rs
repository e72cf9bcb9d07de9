//! The guests of this workspace. They are built in the target directory that holds this test, where `cargo build` has put
//! them already if it was there before.

use exovm_image::build::workspace_images;
use exovm_image::container::Image;
use std::path::Path;
use std::sync::OnceLock;

/// An image, whole and in parts.
pub(crate) struct Guest {
    pub(crate) image: Image,
    pub(crate) kernel_file: Vec<u8>,
    pub(crate) program_file: Vec<u8>,
}

/// All of them, built once.
pub(crate) fn all() -> &'static [Guest] {
    static GUESTS: OnceLock<Vec<Guest>> = OnceLock::new();
    GUESTS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace");
        let own = std::env::current_exe().expect("the path of this test");
        // As the VMM's build script finds it.
        let target =
            own.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).expect("a target directory");
        let built = workspace_images(&root, &target.join("guest")).unwrap_or_else(|error| panic!("{error}"));
        built.into_iter().map(|built| take_apart(&built.file)).collect()
    })
}

/// The one of this name.
pub(crate) fn named(name: &str) -> &'static Guest {
    all().iter().find(|guest| guest.image.manifest.name == name).expect("an image of this workspace")
}

/// As [`exovm_image::container`] describes the file: magic, format, ABI, three lengths, three parts.
fn take_apart(file: &[u8]) -> Guest {
    let len = |part: usize| {
        let at = 16 + 8 * part;
        u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize
    };
    let kernel = 40 + len(0);
    let program = kernel + len(1);
    Guest {
        image: Image::parse(file).expect("just packed"),
        kernel_file: file[kernel..program].to_vec(),
        program_file: file[program..].to_vec(),
    }
}

#[test]
fn all_finds_the_images_of_the_workspace() {
    let names: Vec<&str> = all().iter().map(|guest| guest.image.manifest.name.as_str()).collect();
    for name in ["cheetah", "hello", "probe"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(all().iter().all(|guest| guest.kernel_file.starts_with(b"\x7fELF")));
    assert!(all().iter().all(|guest| guest.program_file.starts_with(b"\x7fELF")));
}
