//! The last lines of a guest's log, and what the VMM had to say meanwhile, kept in bounded memory, for everybody who wants to read them at a pace of their own:
//! standard output, the log file of a detached machine, clients of the control socket.
//!
//! Readers pull from a sequence number. Whoever is too slow loses lines and is told how many; nobody makes the writer wait.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What the lines that are kept may take, each counted with what it costs besides its text.
pub const KEPT_BYTES: usize = 256 << 10;
/// What a line costs besides its text.
const LINE_COST_BYTES: usize = size_of::<Line>();

/// How bad a line is, as the guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// For who looks for a defect.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word at the beginning of a guest's line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    /// Takes the level off a line: a word of at least five characters' width, then a space.
    pub(crate) fn split(line: &str) -> (Option<Self>, &str) {
        for level in [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace] {
            let rest = line.strip_prefix(level.word()).and_then(|rest| {
                let padding = 5usize.saturating_sub(level.word().len());
                rest.get(..padding + 1)
                    .filter(|gap| gap.bytes().all(|byte| byte == b' '))
                    .map(|gap| &rest[gap.len()..])
            });
            if let Some(text) = rest {
                return (Some(level), text);
            }
        }
        (None, line)
    }
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The guest.
    #[default]
    Guest,
    /// The VMM, about the guest or itself.
    Vmm,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, counted from 0 at the start of the machine, without gaps.
    pub seq: u64,
    /// When the VMM read it, in microseconds since the epoch: up to 50 ms after the guest wrote it.
    pub utc_us: u64,
    /// Who wrote it.
    #[serde(default)]
    pub source: Source,
    /// How bad it is; `None` if the guest did not say.
    pub level: Option<Level>,
    /// What it says, without its level.
    pub text: String,
}

impl Line {
    /// The line as the guest wrote it.
    pub fn as_written(&self) -> String {
        match self.level {
            Some(level) => format!("{:<5} {}", level.word(), self.text),
            None => self.text.clone(),
        }
    }

    fn cost_bytes(&self) -> usize {
        LINE_COST_BYTES + self.text.len()
    }
}

/// What a reader gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Lines between the number asked for and the first one here, which are not kept any more.
    pub lost: u64,
    /// Lines in order, without a gap.
    pub lines: Vec<Line>,
    /// Where to read on.
    pub next_seq: u64,
}

/// The log. Shared by its writer and its readers.
#[derive(Debug)]
pub struct GuestLog {
    kept: Mutex<Kept>,
    changed: Condvar,
    /// Readable when something came after [`Self::watch`].
    news: EventFd,
    watched: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    next_seq: u64,
    closed: bool,
}

impl GuestLog {
    /// An empty log.
    pub fn new() -> std::io::Result<Self> {
        let news = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Self { kept: Mutex::default(), changed: Condvar::new(), news, watched: AtomicBool::new(false) })
    }

    /// Adds a line as the guest wrote it. Never waits for a reader.
    pub fn push(&self, written: &str) {
        let (level, text) = Level::split(written);
        self.add(Source::Guest, level, text.to_owned());
    }

    /// Adds what the VMM has to say.
    pub fn push_of_vmm(&self, level: Level, text: String) {
        self.add(Source::Vmm, Some(level), text);
    }

    fn add(&self, source: Source, level: Option<Level>, text: String) {
        let utc_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let mut kept = self.lock();
        let line = Line { seq: kept.next_seq, utc_us, source, level, text };
        kept.next_seq += 1;
        kept.bytes += line.cost_bytes();
        kept.lines.push_back(line);
        while kept.bytes > KEPT_BYTES
            && let Some(oldest) = kept.lines.pop_front()
        {
            kept.bytes -= oldest.cost_bytes();
        }
        drop(kept);
        self.tell();
    }

    /// Nothing will be added any more: readers who have everything need not wait.
    pub fn close(&self) {
        self.lock().closed = true;
        self.tell();
    }

    fn tell(&self) {
        self.changed.notify_all();
        if self.watched.swap(false, Ordering::AcqRel) {
            // A full counter means that it is readable already.
            let _ = self.news.write(1);
        }
    }

    /// Lines from number `seq` on, about `max_bytes` of them and at least one if there is one.
    pub fn read(&self, seq: u64, max_bytes: usize) -> Batch {
        Self::read_kept(&self.lock(), seq, max_bytes)
    }

    /// As [`Self::read`], after waiting for a line. `None`: the log is closed and has nothing from `seq` on.
    pub fn wait(&self, seq: u64, max_bytes: usize) -> Option<Batch> {
        let kept = self.lock();
        let nothing = |kept: &mut Kept| kept.next_seq <= seq && !kept.closed;
        let kept = self.changed.wait_while(kept, nothing).unwrap_or_else(PoisonError::into_inner);
        (kept.next_seq > seq).then(|| Self::read_kept(&kept, seq, max_bytes))
    }

    fn read_kept(kept: &Kept, seq: u64, max_bytes: usize) -> Batch {
        let first = kept.lines.front().map_or(kept.next_seq, |line| line.seq);
        // A number from the future waits for its line.
        let start = seq.max(first);
        let mut bytes = 0;
        let fits = |line: &&Line| {
            let before = bytes;
            bytes += line.cost_bytes();
            before == 0 || bytes <= max_bytes
        };
        let lines: Vec<Line> =
            kept.lines.iter().skip((start - first) as usize).take_while(fits).cloned().collect();
        Batch {
            lost: start.min(kept.next_seq).saturating_sub(seq),
            next_seq: start + lines.len() as u64,
            lines,
        }
    }

    /// Number of the first of the last `count` lines; of the lines since a moment, if one is given.
    pub fn seek(&self, count: Option<u64>, since_utc_us: Option<u64>) -> u64 {
        let kept = self.lock();
        let since = since_utc_us.map_or(0, |since| {
            kept.lines.iter().find(|line| line.utc_us >= since).map_or(kept.next_seq, |line| line.seq)
        });
        since.max(count.map_or(0, |count| kept.next_seq.saturating_sub(count)))
    }

    /// Number that the next line will have.
    pub fn next_seq(&self) -> u64 {
        self.lock().next_seq
    }

    /// Has [`Self::news`] tell of the next change. Whoever reads `news` watches anew before looking at the log.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Release);
    }

    /// Readable after a change that was watched for, until it is read.
    pub fn news(&self) -> &EventFd {
        &self.news
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Last moment that has four digits for its year.
const LATEST_UTC_US: u64 = 253_402_300_799_999_999;

/// A moment of [`Line::utc_us`] for people and scripts (RFC 3339).
pub fn rfc_3339(utc_us: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_micros(utc_us.min(LATEST_UTC_US));
    humantime::format_rfc3339_millis(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn log(lines: &[&str]) -> GuestLog {
        let log = GuestLog::new().expect("a descriptor");
        lines.iter().for_each(|line| log.push(line));
        log
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn level_is_taken_off_where_the_guest_wrote_one() {
        let log = log(&["INFO  hello", "ERROR worse", "WARN odd", "INFORMAL", "WARN  odd", "INFO ", ""]);
        let lines = log.read(0, usize::MAX).lines;
        let split: Vec<_> = lines.iter().map(|line| (line.level, line.text.as_str())).collect();
        assert_eq!(
            split,
            [
                (Some(Level::Info), "hello"),
                (Some(Level::Error), "worse"),
                (None, "WARN odd"),
                (None, "INFORMAL"),
                (Some(Level::Warn), "odd"),
                (None, "INFO "),
                (None, ""),
            ]
        );
        assert_eq!(lines[0].as_written(), "INFO  hello");
    }

    #[test]
    fn read_goes_on_where_the_last_one_ended() {
        let log = log(&["a", "b"]);
        let first = log.read(0, usize::MAX);
        log.push("c");
        let second = log.read(first.next_seq, usize::MAX);
        assert_eq!((texts(&first), texts(&second)), (vec!["a", "b"], vec!["c"]));
        assert_eq!(log.read(second.next_seq, usize::MAX), Batch { lost: 0, lines: vec![], next_seq: 3 });
    }

    #[test]
    fn read_takes_at_least_one_line_and_then_what_fits() {
        let long = "x".repeat(1000);
        let log = log(&[&long, &long, &long]);
        assert_eq!(log.read(0, 1).lines.len(), 1);
        assert_eq!(log.read(0, 2200).lines.len(), 2);
    }

    #[test]
    fn old_lines_go_and_their_number_is_said() {
        let log = log(&[]);
        let count = 10_000;
        for number in 0..count {
            log.push(&format!("line {number} {}", "x".repeat(100)));
        }
        let batch = log.read(0, usize::MAX);
        assert_eq!(batch.lost + batch.lines.len() as u64, count);
        assert!(batch.lost > 0 && batch.lines[0].text.starts_with(&format!("line {} ", batch.lost)));
        let bytes: usize = batch.lines.iter().map(Line::cost_bytes).sum();
        assert!((KEPT_BYTES - 300..=KEPT_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn line_longer_than_everything_leaves_an_empty_log() {
        let log = log(&["short", &"x".repeat(KEPT_BYTES)]);
        assert_eq!(log.read(0, usize::MAX), Batch { lost: 2, lines: vec![], next_seq: 2 });
    }

    #[test]
    fn seek_finds_the_last_lines_and_those_since() {
        let log = log(&["a", "b", "c"]);
        assert_eq!(log.seek(Some(2), None), 1);
        assert_eq!(log.seek(Some(9), None), 0);
        assert_eq!(log.seek(Some(0), None), 3);
        assert_eq!(log.seek(None, Some(u64::MAX)), 3);
        let since = log.read(0, usize::MAX).lines[0].utc_us;
        assert_eq!(log.seek(None, Some(since)), 0);
        assert_eq!(log.seek(Some(1), Some(since)), 2);
    }

    #[test]
    fn wait_ends_with_the_log() {
        let log = Arc::new(log(&["a"]));
        let reader = {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut seq = 0;
                while let Some(batch) = log.wait(seq, usize::MAX) {
                    seq = batch.next_seq;
                    seen.extend(batch.lines.into_iter().map(|line| line.text));
                }
                seen
            })
        };
        log.push("b");
        log.close();
        assert_eq!(reader.join().expect("no panic"), ["a", "b"]);
    }

    #[test]
    fn news_come_only_to_who_watches() {
        let log = log(&["a"]);
        assert!(log.news().read().is_err(), "nobody watched");
        log.watch();
        log.push("b");
        log.push("c");
        assert_eq!(log.news().read().expect("news"), 1, "one is enough");
    }
}
