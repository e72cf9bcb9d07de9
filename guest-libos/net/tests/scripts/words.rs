//! The words of a line, taken from the left.

use std::str::{FromStr, SplitWhitespace};

use crate::parse::When;

/// Nanoseconds of `5s`, `20ms`, `7us`, `0`.
pub(crate) fn time(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "min" => 60e9,
        "h" => 3_600e9,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| (number * scale).round() as u64)
}

pub(crate) struct Words<'a> {
    words: SplitWhitespace<'a>,
    peeked: Option<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        Self { words: line.split_whitespace(), peeked: None }
    }

    pub(crate) fn peek(&mut self) -> Option<&'a str> {
        if self.peeked.is_none() {
            self.peeked = self.words.next();
        }
        self.peeked
    }

    pub(crate) fn next(&mut self) -> Option<&'a str> {
        self.peeked.take().or_else(|| self.words.next())
    }

    pub(crate) fn value<T: FromStr>(&mut self, of: &str) -> Result<T, String> {
        let word = self.next().ok_or_else(|| format!("{of}: a value is missing"))?;
        word.parse().map_err(|_| format!("{of}: {word:?} is no value for it"))
    }

    /// The value after `word`, if that is next.
    pub(crate) fn after<T: FromStr>(&mut self, word: &str) -> Result<Option<T>, String> {
        if self.peek() != Some(word) {
            return Ok(None);
        }
        self.next();
        self.value(word).map(Some)
    }

    pub(crate) fn number_or_any(&mut self, of: &str, must: bool) -> Result<Option<u32>, String> {
        if !must && self.peek() == Some("*") {
            self.next();
            return Ok(None);
        }
        self.value(of).map(Some)
    }

    pub(crate) fn one_of(&mut self, of: &str, words: &[&str]) -> Result<String, String> {
        let word = self.next().unwrap_or_default();
        if words.contains(&word) {
            Ok(word.into())
        } else {
            Err(format!("{of} is one of: {}", words.join(", ")))
        }
    }

    pub(crate) fn hex(&mut self, of: &str) -> Result<Vec<u8>, String> {
        let word: String = self.value(of)?;
        let byte = |at| u8::from_str_radix(word.get(at..at + 2).unwrap_or("?"), 16);
        let bytes = (0..word.len()).step_by(2).map(byte).collect::<Result<_, _>>();
        bytes.map_err(|_| format!("{of}: {word:?} is no hexadecimal string of whole bytes"))
    }

    pub(crate) fn time(&mut self, of: &str) -> Result<u64, String> {
        let word = self.next().ok_or_else(|| format!("{of}: a time is missing"))?;
        time(word).ok_or_else(|| format!("{of}: {word:?} is no time; write 5s, 20ms or 7us"))
    }

    /// The time that a line may begin with.
    pub(crate) fn when(&mut self) -> Result<When, String> {
        let Some(word) =
            self.peek().filter(|word| word.starts_with(|c: char| c.is_ascii_digit() || c == '+'))
        else {
            return Ok(When::Same);
        };
        self.next();
        let bad = || format!("{word:?} is no time; write 5s, +20ms or 1s..2s");
        if let Some(after) = word.strip_prefix('+') {
            return time(after).map(When::After).ok_or_else(bad);
        }
        match word.split_once("..") {
            None => time(word).map(When::At).ok_or_else(bad),
            Some((from, to)) => match (time(from), time(to)) {
                (Some(from), Some(to)) if from <= to => Ok(When::Between(from, to)),
                _ => Err(bad()),
            },
        }
    }

    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        while let Some(word) = self.next() {
            rest.push(word);
        }
        rest.join(" ")
    }

    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.next().map_or(Ok(()), |word| Err(format!("unknown word {word:?} at the line's end")))
    }
}
