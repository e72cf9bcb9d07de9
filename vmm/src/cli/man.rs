//! `exovm man`: a manual page for each command, generated from the command line's own description.

use super::Failure;
use super::style::{counted, print};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `man`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm man | man -l -                         exovm(1)
  exovm man run | man -l -                     exovm-run(1)
  exovm man --out ~/.local/share/man/man1      all of them, as files")]
pub(super) struct ManArguments {
    /// A command, such as `run` or `bench http`; none: exovm itself.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    path: Vec<String>,
    /// Write the pages of all commands into this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn man(arguments: &ManArguments) -> Result<ExitCode, Failure> {
    let mut root = super::Cli::command();
    // Gives subcommands their full names and inherited flags.
    root.build();
    match &arguments.out {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            let count = write_all(&root, dir)?;
            print(&format!("{} in {}", counted(count as u64, "page", "pages"), dir.display()))?;
        }
        None => print(page(find(&root, &arguments.path)?)?.trim_end()).map(|_| ())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(root: &'a Command, path: &[String]) -> Result<&'a Command, Failure> {
    path.iter().try_fold(root, |command, name| {
        command.find_subcommand(name).ok_or_else(|| {
            let known: Vec<_> = visible(command).map(Command::get_name).collect();
            let what = command.get_display_name().unwrap_or(command.get_name()).replace('-', " ");
            match known.as_slice() {
                [] => format!("{what} has no command {name:?} below it"),
                known => format!("{what} has no command {name:?}; it has {}", known.join(", ")),
            }
            .into()
        })
    })
}

/// Commands that users see, without clap's own `help`.
fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn write_all(command: &Command, dir: &std::path::Path) -> Result<usize, Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).map_err(|error| format!("{}: {error}", path.display()))?;
    visible(command).try_fold(1, |count, command| Ok(count + write_all(command, dir)?))
}

fn page(command: &Command) -> Result<String, Failure> {
    // Its examples and tables go into sections of their own, line by line as they are.
    let extra = command.get_after_long_help().map(ToString::to_string);
    let man = Man::new(command.clone()).manual("exovm");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if visible(command).next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut page = String::from_utf8(text)?;
    page.push_str(&sections(extra.as_deref().unwrap_or_default()));
    Ok(page)
}

/// Text below headings, which are lines that are not indented and end with a colon or stand before indented ones.
fn sections(text: &str) -> String {
    let mut roff = Roff::new();
    let mut lines = text.lines().peekable();
    let mut verbatim = false;
    roff.control("SH", ["NOTES"]);
    while let Some(line) = lines.next() {
        let below = lines.peek().is_some_and(|next| next.starts_with("  ") || next.is_empty());
        let is_heading = !line.is_empty() && !line.starts_with(' ') && line.len() < 30 && below;
        if is_heading {
            if std::mem::take(&mut verbatim) {
                roff.control("fi", []);
            }
            roff.control("SH", [line.trim_end_matches(':').to_uppercase().as_str()]);
        } else {
            if !std::mem::replace(&mut verbatim, true) {
                roff.control("nf", []);
            }
            roff.text([roman(line)]);
        }
    }
    if verbatim {
        roff.control("fi", []);
    }
    let text = roff.to_roff();
    // Nothing stood before the first heading.
    text.replace(".SH NOTES\n.SH", ".SH").trim_end_matches(".SH NOTES\n").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_headings_and_lines_as_they_are() {
        let text = sections("Examples:\n  exovm ps\n\nExit codes\n  0 good\n  1 bad");
        let expected =
            ".SH EXAMPLES\n.nf\n  exovm ps\n\n.fi\n.SH \"EXIT CODES\"\n.nf\n  0 good\n  1 bad\n.fi\n";
        assert_eq!(text, expected);
        assert_eq!(sections(""), "");
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut root = crate::cli::Cli::command();
        root.build();
        let count = write_all(&root, dir.path()).expect("pages");
        fn leaves(command: &Command) -> usize {
            1 + visible(command).map(leaves).sum::<usize>()
        }
        assert_eq!(count, leaves(&root));
        for page in std::fs::read_dir(dir.path()).expect("a directory") {
            let text = std::fs::read_to_string(page.expect("readable").path()).expect("text");
            assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{text}");
        }
    }
}
