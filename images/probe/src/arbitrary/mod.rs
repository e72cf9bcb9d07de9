//! Kernel calls with arbitrary arguments, by somebody who may be lost, beside a neighbour who watches what is its own.
//!
//! The first environment is the judge. It makes a child that has a part of everything, and lets that one make every call there
//! is: mostly with arguments that make it succeed but for one of them, otherwise with handles that are good, stale, forged or of
//! another kind, and with numbers of all sizes; what the call answered it writes down. A child that takes from itself what it lives by, ends itself, or waits for good, ends; another one follows. The
//! table of calls is [`Call::ALL`]: a new call is tried without a change here. At the end everything is taken back, and there
//! must be as much of everything as before. The second environment is the neighbour: see [`neighbour`].

mod attacker;
mod companions;
mod exhaust;
mod held;
mod neighbour;
mod random;
mod recipes;

use crate::{BROKEN, Case, HELD};
use abi::call::{Call, Error};
use alloc::vec::Vec;
use attacker::{Attacker, BATCH, Request};
use exos_runtime::pages;
use random::Random;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("arbitrary-calls", arbitrary_calls), ("fill-tables", exhaust::exhaust)];

/// Answers by call: bit `n` says that status `n` was answered. Beyond the known calls: those of numbers that are none.
struct Answers([u64; Call::ALL.len() + 1]);

impl Answers {
    /// Notes one. False: no status that there is.
    fn note(&mut self, request: &Request) -> bool {
        let index = Call::ALL.iter().position(|call| *call as u64 == request.number);
        self.0[index.unwrap_or(Call::ALL.len())] |= 1 << (request.status & 63);
        request.status == 0 || Error::from_status(request.status).is_some()
    }
}

/// `arbitrary-calls SEED CALLS`.
fn arbitrary_calls(arguments: Arguments<'_>) -> Option<u32> {
    let (seed, calls) = (crate::number(arguments.next())?, crate::number(arguments.next())?);
    if pages::environment().environment != 0 {
        return neighbour::watch();
    }
    let before = exhaust::capacity()?;
    let mut random = Random::new(seed);
    let mut answers = Answers([0; Call::ALL.len() + 1]);
    let (mut made, mut attackers) = (0, 0);
    while made < calls {
        attackers += 1;
        let mut attacker = Attacker::new()?;
        // Not for ever: what it has lost it cannot try any more.
        for _ in 0..128 {
            attacker.holding.begin_batch(&mut random);
            let batch: Vec<Request> = (0..BATCH).map(|_| attacker.holding.invent(&mut random)).collect();
            let (done, goes_on) = attacker.make(&batch)?;
            for request in &done {
                if !answers.note(request) {
                    log::error!("probe: {request:x?} answered something that there is not");
                    return Some(BROKEN);
                }
            }
            made += done.len() as u64;
            if !goes_on || made >= calls {
                break;
            }
        }
        attacker.end()?;
    }
    for (call, seen) in Call::ALL.iter().zip(&answers.0) {
        log::info!("probe: {call:?} answered {seen:#x}");
    }
    log::info!("probe: others answered {:#x}", answers.0[Call::ALL.len()]);
    let after = exhaust::capacity()?;
    log::info!(
        "probe: {} of {made} calls by {attackers} children; as much as before: {}",
        calls,
        before == after
    );
    if before != after {
        log::error!("probe: before {before:?}, after {after:?}");
    }
    Some(if before == after { HELD } else { BROKEN })
}
