//! Values of arguments, out of the rings of the last calls: every call while there are few, otherwise what is there at each look.

use super::function::ARGUMENTS;
use super::numbers::Numbers;
use super::stream::{Arguments, Values};
use std::collections::HashMap;

/// Different values that are remembered of a register; of further ones it is only counted how many there were.
const REMEMBERED: usize = 4096;
/// Values that are told.
const TOLD: usize = 8;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Sampled {
    calls: u64,
    /// By environment (the kernel's is `None`), the last call that was looked at.
    last: HashMap<Option<u32>, u64>,
    values: [HashMap<u64, u64>; 6],
    forgotten: [u64; 6],
}

impl Sampled {
    /// Adds the calls that were not there at the last look.
    pub(super) fn look(&mut self, numbers: &Numbers) {
        let last = self.last.entry(numbers.environment).or_default();
        let new = numbers.last.iter().filter(|call| call.number > *last);
        let mut highest = *last;
        for call in new {
            highest = highest.max(call.number);
            self.calls += 1;
            for ((&value, values), forgotten) in
                call.registers.iter().zip(&mut self.values).zip(&mut self.forgotten)
            {
                if let Some(count) = values.get_mut(&value) {
                    *count += 1;
                } else if values.len() < REMEMBERED {
                    values.insert(value, 1);
                } else {
                    *forgotten += 1;
                }
            }
        }
        *last = highest;
    }

    /// What it comes to.
    pub(super) fn tell(&self) -> Arguments {
        let register = |((values, forgotten), (_, name)): ((&HashMap<u64, u64>, &u64), &(_, &str))| {
            let mut most: Vec<(u64, u64)> = values.iter().map(|(&value, &count)| (value, count)).collect();
            most.sort_unstable_by_key(|&(value, count)| (std::cmp::Reverse(count), value));
            let others = most.iter().skip(TOLD).map(|(_, count)| count).sum::<u64>() + forgotten;
            most.truncate(TOLD);
            Values { name: (*name).to_owned(), most, others }
        };
        let registers = self.values.iter().zip(&self.forgotten).zip(&ARGUMENTS).map(register).collect();
        Arguments { sampled: self.calls, registers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::numbers::Call;

    #[test]
    fn each_call_is_looked_at_once_and_the_most_frequent_values_come_first() {
        let mut sampled = Sampled::default();
        let call = |number: u64| Call { number, tsc: 0, registers: [number % 3, number, 7, 0, 0, 0] };
        let mut numbers = Numbers { environment: Some(0), ..Numbers::default() };
        for first in 1..100 {
            numbers.last = (first..first + 3).map(call).collect();
            sampled.look(&numbers);
        }
        let told = sampled.tell();
        assert_eq!(told.sampled, 101);
        let [first, second, third, ..] = &told.registers[..] else { panic!("six") };
        assert_eq!((first.name.as_str(), &first.most[..]), ("rdi", &[(1, 34), (2, 34), (0, 33)][..]));
        assert_eq!((second.most.len(), second.others), (TOLD, 101 - TOLD as u64));
        assert_eq!(third.most, [(7, 101)]);
    }

    #[test]
    fn values_that_are_all_different_do_not_fill_memory() {
        let mut sampled = Sampled::default();
        for number in 1..=3 * REMEMBERED as u64 {
            let call = Call { number, tsc: 0, registers: [number; 6] };
            sampled.look(&Numbers { last: vec![call], ..Numbers::default() });
        }
        assert_eq!(sampled.values[0].len(), REMEMBERED);
        assert_eq!(sampled.tell().registers[5].others, 3 * REMEMBERED as u64 - TOLD as u64);
    }
}
