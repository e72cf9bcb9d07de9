//! Options that an image declares in its `image.toml`, for `exovm run IMAGE` to take and say in its help. They reach the guest as
//! words of its command line (`abi::options`).

use serde::{Deserialize, Serialize};

/// One option, as `[[options]]` declares it. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOption {
    /// Its name on the command line, without the dashes, and in the guest.
    pub name: String,
    /// One letter for short. If `exovm run` has it too, it is the image's behind the image's name.
    #[serde(default)]
    pub short: Option<char>,
    /// What its value is called in the help, such as `PORT`; without it the option is a flag.
    #[serde(default)]
    pub value: Option<String>,
    /// One line for people.
    pub help: String,
    /// Whether the image does not run without it.
    #[serde(default)]
    pub required: bool,
    /// Whether it may be given several times.
    #[serde(default)]
    pub repeatable: bool,
    /// The value if none is given.
    #[serde(default)]
    pub default: Option<String>,
}

/// The long names of the options of `exovm run` itself.
pub const RUN_OPTIONS: &[&str] = &[
    "detach",
    "disk",
    "docroot",
    "environments",
    "help",
    "impair",
    "io",
    "memory",
    "name",
    "net",
    "pcap",
    "publish",
    "quiet",
    "vcpu-cpu",
    "vcpus",
];
/// The short letter that stays everybody's: help.
const HELP: char = 'h';
/// What the help can show in a column.
const NAME_BYTES_MAX: usize = 32;

/// Why an option cannot be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Its shape.
    #[error(
        "option {0:?}: a name is a small letter, then small letters, digits or '-', at least 2 and at most {NAME_BYTES_MAX} in all"
    )]
    Name(String),
    /// Its short form.
    #[error("option --{name}: short must be a letter other than '{HELP}' (is {short:?})")]
    Short {
        /// Of which.
        name: String,
        /// What was given.
        short: char,
    },
    /// Not printable on one line.
    #[error("option --{0}: value and help must be one line each, and not empty")]
    Text(String),
    /// `exovm run` has one of that name.
    #[error("option --{0} is one of `exovm run` itself; choose another name")]
    Taken(String),
    /// Two of the image's own.
    #[error("option {0} is declared twice")]
    Twice(String),
    /// Keys that mean nothing together.
    #[error("option --{0}: {1}")]
    Meaningless(String, &'static str),
}

/// Checks the options of one image.
pub(crate) fn check(options: &[ImageOption]) -> Result<(), OptionError> {
    for (index, option) in options.iter().enumerate() {
        option.check()?;
        let others = &options[..index];
        if others.iter().any(|other| other.name == option.name) {
            return Err(OptionError::Twice(format!("--{}", option.name)));
        }
        if let Some(short) = option.short
            && others.iter().any(|other| other.short == option.short)
        {
            return Err(OptionError::Twice(format!("-{short}")));
        }
    }
    Ok(())
}

impl ImageOption {
    fn check(&self) -> Result<(), OptionError> {
        let name = || self.name.clone();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let starts_well = self.name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if !starts_well || !(2..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(OptionError::Name(name()));
        }
        if RUN_OPTIONS.contains(&self.name.as_str()) {
            return Err(OptionError::Taken(name()));
        }
        if let Some(short) = self.short
            && (!short.is_ascii_alphabetic() || short == HELP)
        {
            return Err(OptionError::Short { name: name(), short });
        }
        let one_line = |text: &str| !text.trim().is_empty() && !text.contains(char::is_control);
        if !one_line(&self.help) || !self.value.as_deref().is_none_or(one_line) {
            return Err(OptionError::Text(name()));
        }
        let is_flag = self.value.is_none();
        for (wrong, why) in [
            (is_flag && self.required, "a flag (an option without `value`) cannot be required"),
            (is_flag && self.repeatable, "a flag (an option without `value`) cannot be repeatable"),
            (is_flag && self.default.is_some(), "a flag (an option without `value`) has no default"),
            (self.required && self.default.is_some(), "what is required needs no default"),
        ] {
            if wrong {
                return Err(OptionError::Meaningless(name(), why));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, ManifestError};

    /// A manifest with these options, each given as the keys in its table.
    fn parse(options: &[&str]) -> Result<Vec<ImageOption>, ManifestError> {
        let mut text = "name = \"x\"\ndescription = \"x\"\nprogram = \"x\"\nmemory_mib = 32\n".to_owned();
        options.iter().for_each(|keys| text.push_str(&format!("[[options]]\n{keys}\n")));
        Manifest::parse(&text).map(|manifest| manifest.options)
    }

    fn refused(options: &[&str]) -> OptionError {
        match parse(options) {
            Err(ManifestError::Option(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parse_good_options() {
        let options = parse(&[
            "name = \"to\"\nshort = \"t\"\nvalue = \"ADDRESS\"\nhelp = \"x\"\nrequired = true\nrepeatable = true",
            "name = \"verbose\"\nhelp = \"x\"",
            "name = \"for-2\"\nshort = \"d\"\nvalue = \"TIME\"\nhelp = \"x\"\ndefault = \"\"",
        ])
        .expect("good");
        let [to, verbose, time] = options.as_slice() else { panic!("{options:?}") };
        assert!(
            to.required && to.repeatable && to.short == Some('t') && to.value.as_deref() == Some("ADDRESS")
        );
        assert!(!verbose.required && verbose.value.is_none());
        assert_eq!((time.default.as_deref(), time.short), (Some(""), Some('d')), "a letter of run's own");
        assert_eq!(parse(&[]).expect("none"), []);
    }

    #[test]
    fn parse_name_that_is_none_returns_name() {
        for name in ["", "x", "-x", "2x", "Listen", "a b", "a=b", "ä-x", &"x".repeat(33)] {
            let error = refused(&[&format!("name = {name:?}\nhelp = \"x\"")]);
            assert_eq!(error, OptionError::Name(name.to_owned()));
        }
    }

    #[test]
    fn parse_name_of_runs_own_returns_taken() {
        for name in RUN_OPTIONS {
            let error = refused(&[&format!("name = {name:?}\nhelp = \"x\"")]);
            assert_eq!(error, OptionError::Taken((*name).to_owned()));
        }
    }

    #[test]
    fn parse_short_that_is_no_letter_or_help_returns_short() {
        for short in ['h', '1', '-', 'ä'] {
            let error = refused(&[&format!("name = \"xx\"\nshort = \"{short}\"\nhelp = \"x\"")]);
            assert_eq!(error, OptionError::Short { name: "xx".to_owned(), short });
        }
        assert!(matches!(
            parse(&["name = \"xx\"\nshort = \"ab\"\nhelp = \"x\""]),
            Err(ManifestError::Syntax(_))
        ));
    }

    #[test]
    fn parse_same_option_twice_returns_twice() {
        let error = refused(&["name = \"xx\"\nhelp = \"x\"", "name = \"xx\"\nhelp = \"x\""]);
        assert_eq!(error, OptionError::Twice("--xx".to_owned()));
        let short = |name| format!("name = {name:?}\nshort = \"a\"\nhelp = \"x\"");
        let error = refused(&[&short("xx"), &short("yy")]);
        assert_eq!(error, OptionError::Twice("-a".to_owned()));
    }

    #[test]
    fn parse_text_that_is_no_line_returns_text() {
        for keys in [
            "help = \"\"",
            "help = \"a\\nb\"",
            "help = \"x\"\nvalue = \" \"",
            "help = \"x\"\nvalue = \"\\t\"",
        ] {
            assert_eq!(refused(&[&format!("name = \"xx\"\n{keys}")]), OptionError::Text("xx".to_owned()));
        }
    }

    #[test]
    fn parse_keys_that_mean_nothing_together_returns_meaningless() {
        for keys in [
            "required = true",
            "repeatable = true",
            "default = \"1\"",
            "value = \"N\"\nrequired = true\ndefault = \"1\"",
        ] {
            let error = refused(&[&format!("name = \"xx\"\nhelp = \"x\"\n{keys}")]);
            assert!(matches!(error, OptionError::Meaningless(..)), "{keys}: {error:?}");
        }
    }
}
