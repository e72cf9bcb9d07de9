//! Options of the image that `exovm run` is to run, as its manifest declares them: taken, checked and shown in the help as those of
//! `run` itself, from the image's name on. Their values go to the guest as words (`abi::options`).
//!
//! Which image it is must be known before the line can be read. Up to the image's name there are only options of `run`'s own, so a
//! first look that knows which of those take a value finds the name.

use super::{Cli, Command, exit};
use crate::images;
use abi::options::Word;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use exovm_image::manifest::Manifest;
use exovm_image::options::ImageOption;
use std::ffi::OsString;

/// The command that runs images.
const RUN: &str = "run";

/// Reads the command line of this process. Ends it if that is wrong or asks for help.
pub(super) fn parse() -> Cli {
    let words: Vec<OsString> = std::env::args_os().collect();
    let plain = Cli::command();
    let place = place_of_image(&plain, &words);
    let manifest = match place.as_ref().and_then(|place| words[place.index].to_str()).map(images::manifest) {
        Some(Ok(manifest)) => Some(manifest),
        None => None,
        Some(Err(unknown)) => {
            // Whose options they are cannot be said; that the image cannot be had can.
            if let Err(error) = plain.clone().try_get_matches_from(&words)
                && error.kind() == ErrorKind::UnknownArgument
            {
                complain!("exovm: {unknown}");
                std::process::exit(exit::ERROR.into());
            }
            None
        }
    };
    let (mut command, words) = match (manifest.as_ref(), place) {
        (Some(manifest), Some(place)) if !manifest.options.is_empty() => {
            (with_options(plain, manifest), place.with_long_names_before_it(words))
        }
        _ => (plain, words),
    };
    let matches = command.clone().get_matches_from(words);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    if let (Command::Run(arguments), Some(manifest), Some((_, run))) =
        (&mut cli.command, &manifest, matches.subcommand())
    {
        arguments.prepend(words_of(&manifest.options, run));
    }
    cli
}

/// Where the image's name stands on a command line, and what `run`'s short options before it are for long.
struct Place {
    index: usize,
    /// Words to put in the place of others.
    long_names: Vec<(usize, Vec<OsString>)>,
}

/// The place of the image's name, if the command is `run` and only options that it knows come before.
fn place_of_image(command: &clap::Command, words: &[OsString]) -> Option<Place> {
    let run = command.find_subcommand(RUN)?;
    if words.get(1).is_none_or(|word| word != RUN) {
        return None;
    }
    let takes_value = |option: &Arg| option.get_action().takes_values();
    let mut long_names = Vec::new();
    let mut index = 2;
    while let Some(word) = words.get(index) {
        let text = word.to_string_lossy();
        if let Some(name) = text.strip_prefix("--") {
            let (name, value) =
                name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            let option = run.get_arguments().find(|option| option.get_long() == Some(name))?;
            index += usize::from(takes_value(option) && value.is_none());
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            // All of `run`'s short options are flags.
            let long = |letter| {
                let option = run.get_arguments().find(|option| option.get_short() == Some(letter))?;
                option
                    .get_long()
                    .filter(|_| !takes_value(option))
                    .map(|name| OsString::from(format!("--{name}")))
            };
            long_names.push((index, letters.chars().map(long).collect::<Option<_>>()?));
        } else {
            return Some(Place { index, long_names });
        }
        index += 1;
    }
    None
}

impl Place {
    /// The same command line; a short letter that is the image's behind its name is `run`'s before it.
    fn with_long_names_before_it(mut self, words: Vec<OsString>) -> Vec<OsString> {
        let long = |(index, word): (usize, OsString)| match self
            .long_names
            .iter_mut()
            .find(|(at, _)| *at == index)
        {
            Some((_, names)) => std::mem::take(names),
            None => vec![word],
        };
        words.into_iter().enumerate().flat_map(long).collect()
    }
}

/// The command line with an image's options on `run`.
fn with_options(command: clap::Command, manifest: &Manifest) -> clap::Command {
    command.mut_subcommand(RUN, |mut run| {
        let taken: Vec<clap::Id> = run
            .get_arguments()
            .filter(|option| option.get_short().is_some_and(|short| is_taken(&manifest.options, short)))
            .map(|option| option.get_id().clone())
            .collect();
        for id in taken {
            run = run.mut_arg(id, |option| option.short(None));
        }
        let heading = format!("Options of {}", manifest.name);
        run = run.override_usage(usage(manifest)).next_help_heading(heading);
        run.args(manifest.options.iter().map(argument))
    })
}

fn is_taken(options: &[ImageOption], short: char) -> bool {
    options.iter().any(|option| option.short == Some(short))
}

/// The options stand behind the image's name, which clap would not say.
fn usage(manifest: &Manifest) -> String {
    let mut text = format!("exovm run [OPTIONS] {}", manifest.name);
    for ImageOption { name, value, .. } in manifest.options.iter().filter(|option| option.required) {
        text.push_str(&format!(" --{name} <{}>", value.as_deref().unwrap_or_default()));
    }
    text + &format!(" [OPTIONS OF {}] [-- <ARGUMENTS>...]", manifest.name)
}

/// The name under which clap knows an image's option: none of `run`'s own has such a one.
fn id(option: &ImageOption) -> String {
    format!("--{}", option.name)
}

fn argument(option: &ImageOption) -> Arg {
    let action = match (&option.value, option.repeatable) {
        (None, _) => ArgAction::SetTrue,
        (Some(_), false) => ArgAction::Set,
        (Some(_), true) => ArgAction::Append,
    };
    let mut help = option.help.clone();
    if option.repeatable {
        help.push_str("; may be repeated");
    }
    let mut argument = Arg::new(id(option)).long(option.name.clone()).action(action).help(help);
    argument = argument.short(option.short).required(option.required);
    if let Some(value) = &option.value {
        argument = argument.value_name(value.clone());
    }
    match &option.default {
        Some(default) => argument.default_value(default.clone()),
        None => argument,
    }
}

/// What the guest gets: options in the order of their declaration.
fn words_of(options: &[ImageOption], matches: &ArgMatches) -> Vec<String> {
    let mut words = Vec::new();
    for option in options {
        let name = option.name.as_str();
        if option.value.is_none() {
            if matches.get_flag(&id(option)) {
                words.push(Word { name, value: None }.to_string());
            }
            continue;
        }
        for value in matches.get_many::<String>(&id(option)).into_iter().flatten() {
            words.push(Word { name, value: Some(value) }.to_string());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
name = "swarm"
description = "x"
program = "x"
memory_mib = 32
[[options]]
name = "to"
value = "ADDRESS"
help = "Where to"
required = true
repeatable = true
[[options]]
name = "duration"
short = "d"
value = "TIME"
help = "How long"
default = "10s"
[[options]]
name = "close"
short = "c"
help = "A connection for each request"
"#;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// What the guest gets of a command line.
    fn guest_words(line: &str) -> Result<(Vec<String>, super::super::run::RunArguments), clap::Error> {
        let manifest = Manifest::parse(MANIFEST).expect("good");
        let place = place_of_image(&Cli::command(), &words(line)).expect("an image");
        let matches = with_options(Cli::command(), &manifest)
            .try_get_matches_from(place.with_long_names_before_it(words(line)))?;
        let (_, run) = matches.subcommand().expect("run");
        let Command::Run(arguments) = Cli::from_arg_matches(&matches)?.command else { panic!("{line}") };
        Ok((words_of(&manifest.options, run), *arguments))
    }

    #[test]
    fn image_is_the_first_word_that_is_no_option_of_runs() {
        let place = |line: &str| place_of_image(&Cli::command(), &words(line)).map(|place| place.index);
        assert_eq!(place("exovm run hello"), Some(2));
        assert_eq!(place("exovm run -dq --net tap=x --io=turn --publish 1:2 --quiet hello --net x"), Some(9));
        for line in [
            "exovm run",
            "exovm",
            "exovm ps hello",
            "exovm run --net",
            "exovm run -- hello",
            "exovm run --to x hello",
            "exovm run -c hello",
        ] {
            assert_eq!(place(line), None, "{line}");
        }
    }

    #[test]
    fn options_go_to_the_guest_in_the_order_of_their_declaration() {
        let (got, _) =
            guest_words("exovm run swarm -c --duration 3s --to a:1 --memory 64 --to=b:2").expect("good");
        assert_eq!(got, ["--to=a:1", "--to=b:2", "--duration=3s", "--close"]);
        let (got, _) = guest_words("exovm run swarm --to a").expect("good");
        assert_eq!(got, ["--to=a", "--duration=10s"], "the default");
    }

    #[test]
    fn letter_of_both_is_runs_before_the_images_name_and_the_images_behind_it() {
        let (got, run) = guest_words("exovm run -dq swarm --to a -d 5s").expect("good");
        assert_eq!(got, ["--to=a", "--duration=5s"]);
        assert!(run.is_detached());
        let (_, run) = guest_words("exovm run swarm --to a -d 5s").expect("good");
        assert!(!run.is_detached());
        let (_, run) = guest_words("exovm run swarm --to a -d 5s --detach").expect("good");
        assert!(run.is_detached());
    }

    #[test]
    fn wrong_options_are_wrong_usage_as_run_s_own() {
        for (line, kind) in [
            ("exovm run swarm", ErrorKind::MissingRequiredArgument),
            ("exovm run swarm --to a --too b", ErrorKind::UnknownArgument),
            ("exovm run swarm --to a -d 1s -d 2s", ErrorKind::ArgumentConflict),
            ("exovm run swarm --to", ErrorKind::InvalidValue),
            ("exovm run swarm --to a --close=yes", ErrorKind::TooManyValues),
        ] {
            let error = guest_words(line).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn help_shows_the_images_options_beside_runs() {
        let help = guest_words("exovm run swarm --help").expect_err("help").to_string();
        for part in [
            "exovm run [OPTIONS] swarm --to <ADDRESS> [OPTIONS OF swarm]",
            "Options of swarm:",
            "--to <ADDRESS>",
            "Where to; may be repeated",
            "-d, --duration <TIME>",
            "[default: 10s]",
            "--memory <MIB>",
        ] {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(!help.contains("-d, --detach"), "{help}");
    }

    #[test]
    fn names_that_images_may_not_take_are_those_of_run() {
        let mut command = Cli::command();
        command.build();
        let run = command.find_subcommand(RUN).expect("run");
        let mut names: Vec<&str> = run.get_arguments().filter_map(Arg::get_long).collect();
        names.sort_unstable();
        assert_eq!(names, exovm_image::options::RUN_OPTIONS);
    }
}
