//! Volumes made from real directories: read back, damaged, cut off, and forged.

mod common;
mod damage;
mod forged;
mod make;
