//! The image: the server, from its entry on.
#![no_std]
#![no_main]

exos_runtime::entry!(cheetah::main);
