//! The store over a volume that `exos-fs` made, with a disk in memory that completes reads in any order, fails them, and
//! lies.

mod disk;
mod faults;
mod readers;
mod sharing;
mod shrinking;
