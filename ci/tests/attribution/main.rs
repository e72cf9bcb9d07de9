//! Attribution: cycles that were burnt in a known place are found there by the account, within 2 %, and nowhere else.
//!
//! | room | burnt in |
//! | --- | --- |
//! | [`guest`] | spans, kernel calls, turns, halts, page faults, no span |
//! | [`devices`] | device work of each device in each placement |
//! | [`off_cpu`] | a competitor on the vCPU's core |
//! | [`several`] | several environments, several vCPUs |
//! | [`tools`] | what tools have a vCPU do |
//! | [`load`] | nothing known: a server under load and one that idles; what is not explained |
//!
//! How many cycles were burnt the burner says: it counts them as they pass, without the gaps in which it had no CPU. So the tests
//! hold on a busy host, too.

mod devices;
mod fixture;
mod guest;
mod load;
mod off_cpu;
mod several;
mod tools;
