//! The numbers of a probe as text, and as JSON.

use super::histogram::percentile;
use super::names::Function;
use super::numbers::Numbers;
use super::stream::Arguments;
use serde_json::{Value, json};
use std::fmt::Write;

/// Version of the JSON form.
pub const SCHEMA: &str = "exovm-probe/1";
/// Characters of the longest bar.
const BAR: u64 = 40;
/// Calls that are printed of those that were kept.
const LAST: usize = 8;

/// What a client has learnt of a probe.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Name of the machine.
    pub machine: String,
    /// What was probed.
    pub function: Function,
    /// Registers that it reads as arguments.
    pub reads: Vec<String>,
    /// Whether the time until it returns was measured.
    pub returns: bool,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// TSC ticks that the probe was there.
    pub cycles: u64,
    /// By environment.
    pub by: Vec<Numbers>,
    /// Values of the arguments.
    pub arguments: Option<Arguments>,
    /// Whether the probe was there as long as it was wanted.
    pub complete: bool,
}

impl Seen {
    fn seconds(&self) -> f64 {
        self.cycles as f64 / 1000.0 / self.tsc_khz.max(1) as f64
    }

    fn us(&self, cycles: f64) -> f64 {
        cycles * 1000.0 / self.tsc_khz.max(1) as f64
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let by = self.by.iter().map(|numbers| {
            let mut value = serde_json::to_value(numbers).unwrap_or_default();
            if self.returns && numbers.returned > 0 {
                value["mean_cycles"] = json!(numbers.cycles / numbers.returned);
                for (name, share) in
                    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)]
                {
                    value[format!("{name}_cycles")] = json!(percentile(&numbers.histogram, share));
                }
            }
            value
        });
        json!({
            "schema": SCHEMA,
            "machine": self.machine,
            "function": self.function,
            "reads": self.reads,
            "seconds": self.seconds(),
            "tsc_khz": self.tsc_khz,
            "complete": self.complete,
            "calls": self.calls(),
            "by": by.collect::<Vec<_>>(),
            "arguments": self.arguments,
        })
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.by.iter().map(|numbers| numbers.calls).fold(0, u64::saturating_add)
    }

    /// For people, several lines.
    pub fn text(&self) -> String {
        let Function { name, ring, va, .. } = &self.function;
        let mut text = format!(
            "{}: {name}\n{} function at {va:#x}, probed for {:.1} s\n",
            self.machine,
            ring.name(),
            self.seconds()
        );
        for numbers in &self.by {
            self.numbers(numbers, &mut text);
        }
        if let Some(arguments) = &self.arguments {
            self.values(arguments, &mut text);
        }
        text
    }

    fn numbers(&self, numbers: &Numbers, text: &mut String) {
        let whose = numbers.environment.map_or("kernel".to_owned(), |number| format!("environment {number}"));
        let rate = numbers.calls as f64 / self.seconds().max(1e-9);
        let _ = writeln!(text, "\n{whose}: {}, {}/s", calls(numbers.calls), grouped(rate.round() as u64));
        if self.returns && numbers.returned == 0 && numbers.calls > 0 {
            let _ = writeln!(text, "  none has returned");
        }
        if self.returns && numbers.returned > 0 {
            let mean = numbers.cycles as f64 / numbers.returned as f64;
            let _ = writeln!(
                text,
                "  from entry to return, {} measured: {} cycles in the mean ({:.2} us)",
                grouped(numbers.returned),
                grouped(mean.round() as u64),
                self.us(mean)
            );
            let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
            let shares = shares.map(|(name, share)| {
                format!("{name} {}", grouped(percentile(&numbers.histogram, share).unwrap_or(0)))
            });
            let _ = writeln!(text, "  {}", shares.join("   "));
            let most = numbers.histogram.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
            for bucket in &numbers.histogram {
                let bar =
                    "#".repeat((u128::from(bucket.count) * u128::from(BAR) / u128::from(most)) as usize);
                let below = bucket.below.map_or("and more".to_owned(), |below| grouped(below - 1));
                let range = format!("{} - {below}", grouped(bucket.least));
                let _ = writeln!(text, "  {range:>27} {:>13}  {bar}", grouped(bucket.count));
            }
        }
        if numbers.missed > 0 {
            let _ = writeln!(
                text,
                "  {} more not measured: too many were under way at once",
                calls(numbers.missed)
            );
        }
    }

    fn values(&self, arguments: &Arguments, text: &mut String) {
        let seen = arguments.sampled;
        let of = if seen < self.calls() { format!(" of {}", grouped(self.calls())) } else { String::new() };
        let _ = writeln!(text, "\narguments, in {}{of} that were looked at:", calls(seen));
        let read: Vec<_> =
            arguments.registers.iter().filter(|values| self.reads.contains(&values.name)).collect();
        if read.is_empty() {
            let _ = writeln!(text, "  the function reads none of the registers that carry arguments");
        }
        for values in &read {
            let most = values.most.iter().map(|(value, count)| {
                format!("{value:#x} ({:.0} %)", 100.0 * *count as f64 / seen.max(1) as f64)
            });
            let mut line = most.collect::<Vec<_>>().join("  ");
            if values.others > 0 {
                let _ = write!(line, "  others ({:.0} %)", 100.0 * values.others as f64 / seen.max(1) as f64);
            }
            let _ = writeln!(text, "  {:>3}  {line}", values.name);
        }
        for numbers in self.by.iter().filter(|numbers| !numbers.last.is_empty()) {
            let whose =
                numbers.environment.map_or("the kernel".to_owned(), |number| format!("environment {number}"));
            let _ = writeln!(text, "\nlast calls in {whose}:");
            let last = &numbers.last[numbers.last.len().saturating_sub(LAST)..];
            let end = last.last().map_or(0, |call| call.tsc);
            for call in last {
                let registers = arguments.registers.iter().zip(&call.registers);
                let registers = registers.filter(|(values, _)| self.reads.contains(&values.name));
                let registers: Vec<_> =
                    registers.map(|(values, value)| format!("{} {value:#x}", values.name)).collect();
                let before = self.us(end.saturating_sub(call.tsc) as f64);
                let _ = writeln!(
                    text,
                    "  {:>13}  {before:>10.1} us before the last  {}",
                    grouped(call.number),
                    registers.join("  ")
                );
            }
        }
    }
}

fn calls(count: u64) -> String {
    format!("{} call{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Bucket, Call, Ring, Values};

    fn seen() -> Seen {
        let bucket = |least, below, count| Bucket { least, below: Some(below), count };
        let numbers = Numbers {
            environment: Some(1),
            calls: 1_000_003,
            returned: 1_000_000,
            missed: 3,
            cycles: 1_100_000_000,
            histogram: vec![bucket(896, 1024, 600_000), bucket(1280, 1536, 400_000)],
            last: vec![Call { number: 1_000_003, tsc: 5, registers: [16, 2, 3, 4, 5, 6] }],
        };
        let values = Values { name: "rdi".to_owned(), most: vec![(16, 300)], others: 100 };
        Seen {
            machine: "cheetah".to_owned(),
            function: Function { name: "serve".to_owned(), ring: Ring::Image, va: 0x40_1000, bytes: 7 },
            reads: vec!["rdi".to_owned()],
            returns: true,
            tsc_khz: 2_000_000,
            cycles: 4_000_000_000,
            by: vec![numbers],
            arguments: Some(Arguments { sampled: 400, registers: vec![values] }),
            complete: true,
        }
    }

    #[test]
    fn text_says_how_many_how_long_and_with_what() {
        let text = seen().text();
        for part in [
            "cheetah: serve",
            "0x401000, probed for 2.0 s",
            "environment 1: 1,000,003 calls, 500,002/s",
            "1,000,000 measured: 1,100 cycles in the mean (0.55 us)",
            "p50 1,023   p90 1,535",
            "896 - 1,023       600,000  ########################################",
            "3 calls more not measured",
            "400 calls of 1,000,003",
            "rdi  0x10 (75 %)  others (25 %)",
            "last calls in environment 1",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn json_has_the_numbers_and_what_follows_from_them() {
        let json = seen().json();
        assert_eq!((&json["schema"], &json["calls"]), (&json!(SCHEMA), &json!(1_000_003)));
        let by = &json["by"][0];
        assert_eq!((&by["mean_cycles"], &by["p50_cycles"]), (&json!(1100), &json!(1023)));
        assert_eq!(json["function"]["ring"], json!("image"));
    }
}
