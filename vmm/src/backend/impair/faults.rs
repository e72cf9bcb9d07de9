//! What `--impair` says, parsed: the faults of each direction.

use std::str::FromStr;
use std::time::Duration;

/// The keys, for messages.
const KEYS: &str = "loss=, burst=, duplicate=, corrupt=, mark=, reorder=, late=, delay=, jitter=, rate=, queue=, mark-from=, seed=";
/// Longest time that can be asked for.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How late a reordered packet is, if nobody says it.
const LATE: Duration = Duration::from_millis(5);
/// Packets that wait for a line with a rate, if nobody says how many.
const QUEUE_PACKETS: usize = 1000;
/// Most packets that can be asked to wait for a line.
const QUEUE_PACKETS_MAX: usize = 100_000;

/// The faults of one direction. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Share of packets that are lost.
    pub loss: f64,
    /// Packets that are lost in one go, on average; 1: each for itself.
    pub burst: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets of which a bit is flipped, behind the Ethernet header.
    pub corrupt: f64,
    /// Share of packets that are marked Congestion Experienced, of those that can be (RFC 3168 5).
    pub mark: f64,
    /// Share of packets that are overtaken by later ones.
    pub reorder: f64,
    /// By how much they are late, at most.
    pub late: Duration,
    /// How long the way takes.
    pub delay: Duration,
    /// By how much more or less, uniformly; order is kept.
    pub jitter: Duration,
    /// Bits per second; `None`: no limit.
    pub rate_bits: Option<u64>,
    /// Packets that wait for the line; what comes then is dropped.
    pub queue_packets: usize,
    /// Packets that find so many waiting for the line are marked, if they can be; `None`: it marks nothing.
    pub mark_from_packets: Option<usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: 1.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mark: 0.0,
            reorder: 0.0,
            late: LATE,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits: None,
            queue_packets: QUEUE_PACKETS,
            mark_from_packets: None,
        }
    }
}

/// Faults of both directions: the value of `--impair`, such as `loss=1%,rx:delay=20ms,seed=7`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairments {
    /// Of what the guest sends.
    pub tx: Faults,
    /// Of what the guest receives.
    pub rx: Faults,
    /// The same seed, the same faults.
    pub seed: u64,
}

impl Default for Impairments {
    fn default() -> Self {
        Self { tx: Faults::default(), rx: Faults::default(), seed: 1 }
    }
}

impl FromStr for Impairments {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut impairments = Self::default();
        for item in text.split(',') {
            impairments.set(item.trim())?;
        }
        impairments.check()?;
        Ok(impairments)
    }
}

impl Impairments {
    /// Takes over one item of the text: `[tx:|rx:]KEY=VALUE`.
    fn set(&mut self, item: &str) -> Result<(), String> {
        let (tx, rx, rest) = match item.split_once(':') {
            Some(("tx", rest)) => (true, false, rest),
            Some(("rx", rest)) => (false, true, rest),
            Some((other, _)) => {
                return Err(format!(
                    "{other:?} is no direction: tx: is what the guest sends, rx: what it receives"
                ));
            }
            None => (true, true, item),
        };
        let (key, value) =
            rest.split_once('=').ok_or_else(|| format!("{item:?}: say KEY=VALUE, with one of {KEYS}"))?;
        if key == "seed" {
            if !(tx && rx) {
                return Err("seed= is for both directions; leave the tx: or rx: out".into());
            }
            self.seed =
                value.parse().map_err(|_| format!("seed={value}: say a number, for example seed=7"))?;
            return Ok(());
        }
        for faults in [tx.then_some(&mut self.tx), rx.then_some(&mut self.rx)].into_iter().flatten() {
            faults.set(key, value)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        for faults in [&self.tx, &self.rx] {
            if faults.jitter > faults.delay {
                return Err(format!(
                    "jitter={:?} is more than delay={:?}, so packets would arrive before they were sent; make the delay longer",
                    faults.jitter, faults.delay
                ));
            }
            if faults.mark_from_packets.is_some() && faults.rate_bits.is_none() {
                return Err(
                    "mark-from= says how long the queue of the line is when it marks; say also how fast the line is: rate=10mbit"
                        .into(),
                );
            }
            if faults.burst > 1.0 && faults.loss == 0.0 {
                return Err(
                    "burst= says how many packets are lost in one go; say also how many are lost: loss=1%"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

impl Faults {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "loss" => self.loss = share(key, value)?,
            "duplicate" => self.duplicate = share(key, value)?,
            "corrupt" => self.corrupt = share(key, value)?,
            "mark" => self.mark = share(key, value)?,
            "reorder" => self.reorder = share(key, value)?,
            "burst" => {
                let packets = value.parse().ok().filter(|packets| (1.0..=1000.0).contains(packets));
                self.burst = packets.ok_or_else(|| {
                    format!("burst={value}: say how many packets are lost in one go on average, 1 to 1000")
                })?;
            }
            "late" => self.late = time(key, value)?,
            "delay" => self.delay = time(key, value)?,
            "jitter" => self.jitter = time(key, value)?,
            "rate" => self.rate_bits = Some(rate(value)?),
            "queue" => self.queue_packets = waiting(key, value)?,
            "mark-from" => self.mark_from_packets = Some(waiting(key, value)?),
            _ => return Err(format!("{key:?} is none of {KEYS}")),
        }
        Ok(())
    }
}

/// How many packets wait for the line.
fn waiting(key: &str, value: &str) -> Result<usize, String> {
    let packets = value.parse().ok().filter(|packets| (1..=QUEUE_PACKETS_MAX).contains(packets));
    packets.ok_or_else(|| {
        format!("{key}={value}: say how many packets may wait for the line, 1 to {QUEUE_PACKETS_MAX}")
    })
}

/// A percentage.
fn share(key: &str, value: &str) -> Result<f64, String> {
    let percent = value.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| {
        format!(
            "{key}={value}: say a percentage of packets from 0% to 100%, for example {key}=1% or {key}=0.1%"
        )
    })
}

/// A time with its unit.
fn time(key: &str, value: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{key}={value}: say a time of at most 10 s with its unit, for example {key}=20ms or {key}=150us"
        )
    };
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = value.split_at(digits);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong()),
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().map_err(|_| wrong())? * seconds);
    time.ok().filter(|time| *time <= TIME_MAX).ok_or_else(wrong)
}

/// A rate in bits per second.
fn rate(value: &str) -> Result<u64, String> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = value.split_at(digits);
    let bits = match unit {
        "kbit" => Some(1e3),
        "mbit" => Some(1e6),
        "gbit" => Some(1e9),
        _ => None,
    };
    let rate = bits.zip(number.parse::<f64>().ok()).map(|(unit, number)| unit * number);
    rate.filter(|rate| (1e3..=1e12).contains(rate)).map(|rate| rate as u64).ok_or_else(|| {
        format!("rate={value}: say bits per second, at least 1kbit, for example rate=10mbit or rate=1gbit")
    })
}
