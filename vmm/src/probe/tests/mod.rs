//! The generated code, run in the test's own process: functions that are called through a patched entry, and their numbers.

mod arena;
mod cost;
mod images;
mod run;
mod stacks;
