//! The driver against a fake device: ports found by name, bytes both ways, devices that keep to no rule, sleep.

mod bytes;
mod harness;
mod hostile;
mod opening;
mod sleeping;
