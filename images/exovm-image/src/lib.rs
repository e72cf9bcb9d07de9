//! How guests are built, checked and packed, on the host.
//!
//! An image is one file: the kernel, the programs of its environments, a manifest. [`build`] runs a cargo of its own for
//! the parts that have no `std`, with all compiler flags in one place; [`program`] reads and checks an ELF file;
//! [`container`] is the file format; [`sources`] and [`template`] are what an image of one's own starts from. The VMM's
//! build script and its `build` command both come here.

pub mod build;
pub mod container;
pub mod manifest;
pub mod options;
pub mod program;
pub mod sources;
pub mod template;
