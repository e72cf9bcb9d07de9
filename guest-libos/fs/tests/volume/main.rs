//! Making volumes from real directories and reading them back.

mod common;
mod make;
