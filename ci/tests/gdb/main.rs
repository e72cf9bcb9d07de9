//! Debuggers, by gdb's remote protocol: what they see is there, what they change happens, and when they have gone nothing of them is
//! left. Those named `core_` run on both kinds of host.
//!
//! | module | what |
//! | --- | --- |
//! | [`client`] | the other side of the protocol |
//! | [`program`] | programs of a few instructions, to be stopped in |
//! | [`breakpoints`] | in ring 3, in one environment of several, over and over |
//! | [`steps`] | in both rings |
//! | [`ends`] | whatever ends a session puts everything back |
//! | [`load`] | a server under load |

mod breakpoints;
mod client;
mod ends;
mod load;
mod program;
mod steps;
