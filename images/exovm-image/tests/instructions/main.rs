//! What the guests are made of, seen in their machine code: ring 0 holds only what KVM's emulator knows, ring 3 holds
//! nothing that belongs to the kernel, and neither needs anything that nobody here sets up.
//!
//! Each rule is also fed with what it forbids, so that a rule that sees nothing fails.
//!
//! | module | what |
//! | --- | --- |
//! | [`guests`] | builds all guests of the workspace and takes the image files apart |
//! | [`walk`] | decodes every executable byte |
//! | [`ring0`] | what the kernel may execute |
//! | [`ring3`] | what an image may not execute |
//! | [`file`] | what the ELF files may not contain |

mod file;
mod guests;
mod ring0;
mod ring3;
mod walk;
