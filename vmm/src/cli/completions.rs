//! `exovm completions`: scripts that complete commands and flags, generated from the command line's own description.

use super::Failure;
use super::style::print;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

/// Arguments of `completions`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm completions bash > ~/.local/share/bash-completion/completions/exovm
  exovm completions zsh  > ~/.zfunc/_exovm      (with ~/.zfunc in $fpath)
  exovm completions fish > ~/.config/fish/completions/exovm.fish")]
pub(super) struct CompletionsArguments {
    /// For which shell.
    shell: Shell,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Cli::command(), "exovm", &mut script);
    print(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
