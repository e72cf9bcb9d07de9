//! The `exovm` command as its user meets it: started as a process, in a network of its own, judged by what it prints, how
//! it ends, and what it leaves behind.

mod account;
mod attack;
mod console;
mod control;
mod detach;
mod disk;
mod disk_image;
mod docroot;
mod doctor;
mod faults;
mod gdb;
mod help;
mod host;
mod host_events;
mod image;
mod image_file;
mod image_options;
mod images;
mod input;
mod lifecycle;
mod logs;
mod machines;
mod names;
mod network;
mod output;
mod probe;
mod profile;
mod project;
mod ps;
mod stat;
mod stop;
mod terminal;
mod top;
mod trace;
mod user_network;
mod vcpus;

use exovm_ci::scene::Scene;

/// A stage for the command under test.
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_exovm"))
}
