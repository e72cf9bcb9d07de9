//! The core set: what must hold on every kind of host. This binary needs no other program and no file, so it also runs on
//! an emulated host with hardware virtualisation, where the other gate is in use (ci/svm-host).

mod channel;
mod faults;
mod http;
mod kvm_events;
mod machines;
