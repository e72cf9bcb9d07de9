//! How the options that an image declares in its `image.toml` reach it: as words of its command line, `--name` for a flag and
//! `--name=value` for one with a value, a word for each value. A default that the declaration has is such a word too.

use core::fmt::{Display, Formatter};
use core::str::FromStr;

/// The word for an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The option's long name, without dashes.
    pub name: &'a str,
    /// Its value; none: it is a flag.
    pub value: Option<&'a str>,
}

impl Display for Word<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self.value {
            Some(value) => write!(f, "--{}={value}", self.name),
            None => write!(f, "--{}", self.name),
        }
    }
}

/// The options among the words of a command line.
#[derive(Clone, Debug)]
pub struct Options<W>(W);

/// A value that does not mean what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue<'a> {
    /// The option's name.
    pub name: &'a str,
    /// What was given.
    pub value: &'a str,
}

impl Display for BadValue<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "--{} {:?} cannot be read; `exovm run IMAGE --help` says what it takes",
            self.name, self.value
        )
    }
}

impl core::error::Error for BadValue<'_> {}

impl<'a, W: Iterator<Item = &'a str> + Clone> Options<W> {
    /// Of these words.
    pub fn new(words: W) -> Self {
        Self(words)
    }

    /// Whether a flag was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.clone().any(|word| word.strip_prefix("--") == Some(name))
    }

    /// The values of an option, in the order in which they were given.
    pub fn values(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.clone().filter_map(move |word| word.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
    }

    /// The first value of an option.
    pub fn value(&self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The first value of an option, as what it means; none if the option was not given.
    pub fn parse<T: FromStr>(&self, name: &'a str) -> Result<Option<T>, BadValue<'a>> {
        self.value(name).map(|value| value.parse().map_err(|_| BadValue { name, value })).transpose()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn of<'a>(words: &'a [&'a str]) -> Options<impl Iterator<Item = &'a str> + Clone> {
        Options::new(words.iter().copied())
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        let words = [
            Word { name: "to", value: Some("10.0.0.2:80") },
            Word { name: "to", value: Some("--to=x") },
            Word { name: "to", value: Some("") },
            Word { name: "verbose", value: None },
        ]
        .map(|word| word.to_string());
        let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
        let options = of(&words);
        assert_eq!(options.values("to").collect::<Vec<_>>(), ["10.0.0.2:80", "--to=x", ""]);
        assert_eq!(options.value("to"), Some("10.0.0.2:80"));
        assert!(options.is_set("verbose"));
    }

    #[test]
    fn words_of_others_are_not_taken() {
        let options = of(&["to=1", "--too=2", "-to=3", "--t", "--to", "verbose"]);
        assert_eq!(options.value("to"), None);
        assert!(options.is_set("to") && !options.is_set("verbose") && !options.is_set("too"));
    }

    #[test]
    fn value_that_does_not_parse_returns_bad_value() {
        let options = of(&["--listen=80", "--count=-1"]);
        assert_eq!(options.parse::<u16>("listen"), Ok(Some(80)));
        assert_eq!(options.parse::<u16>("count"), Err(BadValue { name: "count", value: "-1" }));
        assert_eq!(options.parse::<u16>("other"), Ok(None));
        assert!(BadValue { name: "count", value: "-1" }.to_string().contains("--count \"-1\""));
    }
}
