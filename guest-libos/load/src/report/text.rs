//! Numbers for people. No floating point: the images have no use for it elsewhere.

use super::{ErrorKind, PER_MILLE, Report};
use crate::plan::Reuse;
use core::fmt::{self, Display, Formatter, Write};

/// What the last second brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since the start.
    pub elapsed_ns: u64,
    /// How long this piece of it is.
    pub interval_ns: u64,
    /// Answered in it.
    pub answered: u64,
    /// Bytes received in it.
    pub bytes: u64,
    /// Errors since the start.
    pub errors: u64,
    /// Connections that are open or being opened.
    pub connections: u32,
}

impl Display for Progress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let per_second =
            |value: u64| (u128::from(value) * 1_000_000_000 / u128::from(self.interval_ns.max(1))) as u64;
        write!(
            f,
            "{:>4} s: {} requests/s, {}/s, {} connections, {} errors",
            (self.elapsed_ns + 500_000_000) / 1_000_000_000,
            Grouped(per_second(self.answered)),
            Bytes(per_second(self.bytes)),
            Grouped(self.connections.into()),
            Grouped(self.errors),
        )
    }
}

impl Report<'_> {
    /// The report for people, line by line.
    pub fn write_lines(&self, mut line: impl FnMut(fmt::Arguments<'_>)) {
        let reuse = match self.plan.reuse {
            Reuse::KeepAlive => "kept alive",
            Reuse::Close => "one request each",
        };
        line(format_args!(
            "{}: {} connections, {reuse}, {}",
            self.plan.target,
            Grouped(self.plan.connections.into()),
            Time(self.elapsed_ns)
        ));
        let rate = self.rate_milli(self.answered);
        line(format_args!(
            "  answered    {}: {} requests/s",
            Grouped(self.answered),
            Grouped(rate.saturating_add(500) / 1000)
        ));
        line(format_args!(
            "  received    {}: {}/s",
            Bytes(self.bytes),
            Bytes(self.rate_milli(self.bytes) / 1000)
        ));
        if self.latency_ns.count() > 0 {
            let at = |place: usize| Time(self.latency_ns.per_mille(PER_MILLE[place].0));
            line(format_args!(
                "  latency     min {}, 50 % {}, 90 % {}, 99 % {}, 99.9 % {}, max {}",
                Time(self.latency_ns.min()),
                at(0),
                at(1),
                at(2),
                at(3),
                Time(self.latency_ns.max())
            ));
        }
        let packets = self.packets;
        line(format_args!(
            "  packets     {} in, {} out ({} of them bare acknowledgments, {} sent again), {} connections opened",
            Grouped(packets.segments_in),
            Grouped(packets.frames_out),
            Grouped(packets.acks_out),
            Grouped(packets.retransmitted),
            Grouped(self.connections)
        ));
        if self.errors.total() == 0 {
            line(format_args!("  errors      none"));
        } else {
            let total = Grouped(self.errors.total());
            line(format_args!("  errors      {total} of {} requests", Grouped(self.asked)));
            for kind in ErrorKind::ALL.into_iter().filter(|&kind| self.errors.of(kind) > 0) {
                line(format_args!("    {:<16}{}", kind.label(), Grouped(self.errors.of(kind))));
            }
        }
    }
}

/// A number with commas between its thousands.
pub(crate) struct Grouped(pub(crate) u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut unit = 1_000_000_000_000_000_000;
        while unit > 1 && self.0 < unit {
            unit /= 1000;
        }
        write!(f, "{}", self.0 / unit)?;
        while unit > 1 {
            unit /= 1000;
            write!(f, ",{:03}", self.0 / unit % 1000)?;
        }
        Ok(())
    }
}

/// A number with three digits or so, and the prefix of its unit.
fn scaled(f: &mut Formatter<'_>, value: u64, units: &[(u64, &str)]) -> fmt::Result {
    let (size, name) =
        units.iter().copied().find(|(size, _)| value >= *size).unwrap_or((1, units[units.len() - 1].1));
    let (whole, rest) = (value / size, value % size);
    if size == 1 || whole >= 100 {
        write!(f, "{whole} {name}")
    } else if whole >= 10 {
        write!(f, "{whole}.{} {name}", rest / (size / 10))
    } else {
        write!(f, "{whole}.{:02} {name}", rest / (size / 100))
    }
}

/// Bytes.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &[(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"), (1, "B")])
    }
}

/// Nanoseconds.
struct Time(u64);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &[(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")])
    }
}

/// A string of JSON (RFC 8259 7) out of what is displayed.
pub(super) fn json_string(out: &mut dyn Write, value: &dyn Display) -> fmt::Result {
    struct Escaped<'a>(&'a mut dyn Write);
    impl Write for Escaped<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                match character {
                    '"' | '\\' => write!(self.0, "\\{character}")?,
                    control if control < ' ' => write!(self.0, "\\u{:04x}", control as u32)?,
                    other => self.0.write_char(other)?,
                }
            }
            Ok(())
        }
    }
    out.write_char('"')?;
    write!(Escaped(out), "{value}")?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    #[test]
    fn numbers_read_as_people_write_them() {
        let grouped = [0, 7, 999, 1_000, 1_000_000, 1_020_304].map(|number| Grouped(number).to_string());
        assert_eq!(grouped, ["0", "7", "999", "1,000", "1,000,000", "1,020,304"]);
        assert_eq!(Grouped(u64::MAX).to_string(), "18,446,744,073,709,551,615");
        let times =
            [0, 999, 1_000, 12_340, 123_456, 1_050_000, 59_999_999_999].map(|ns| Time(ns).to_string());
        assert_eq!(times, ["0 ns", "999 ns", "1.00 us", "12.3 us", "123 us", "1.05 ms", "59.9 s"]);
        assert_eq!(Bytes(1_234_567_890_123).to_string(), "1234 GB");
    }

    #[test]
    fn json_string_escapes_what_must_be() {
        let mut out = String::new();
        json_string(&mut out, &"a\"b\\c\nd").unwrap();
        assert_eq!(out, r#""a\"b\\c\u000ad""#);
    }
}
