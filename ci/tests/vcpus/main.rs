//! Machines with several vCPUs, seen from both sides: how each begins, how one of them ends them all, what the VMM keeps of
//! each. The kernel is one of these tests' own ([`kernel`]), so that they hold whatever xok does with its vCPUs; that xok
//! and its programs run on such a machine is in [`images`].

mod ask;
mod ends;
mod images;
mod kernel;
mod pause;
mod routes;
mod serving;
mod start;
