//! `exovm completions`: scripts that complete commands and flags, generated from the command line's own description, and
//! names of machines, which bash, zsh and fish ask `exovm ps --names` for.

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
    print(with_machines(arguments.shell, String::from_utf8(script)?).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The script, for commands that take the name of a machine.
fn with_machines(shell: Shell, script: String) -> String {
    match shell {
        Shell::Bash => script.replace("complete -F _exovm ", "complete -F _exovm_with_machines ") + BASH,
        Shell::Fish => script + FISH,
        // An argument's words are completed by the function that its description ends with.
        Shell::Zsh => {
            let mut lines: Vec<_> = script.lines().map(ToOwned::to_owned).collect();
            for line in &mut lines {
                let is_name = ["'::machine -- ", "'*::names -- ", "'*::machines -- "];
                if is_name.iter().any(|start| line.starts_with(start)) {
                    *line = line.replace(":_default'", ":_exovm_machines'");
                }
            }
            // Before the script's last part, which registers it or, autoloaded, runs it.
            let end = lines.iter().rposition(|line| line.starts_with("if [ ")).unwrap_or(lines.len());
            lines.insert(end, ZSH.to_owned());
            lines.join("\n")
        }
        _ => script,
    }
}

/// Also takes out the placeholders (`[MACHINE]`) among the generated words.
const BASH: &str = r#"
_exovm_with_machines() {
    _exovm "$@"
    local word words=()
    for word in "${COMPREPLY[@]}"; do
        [[ $word == [\[\<]* ]] || words+=("$word")
    done
    case "$((COMP_CWORD > 1)) ${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD]}" in
        "0 "* | *" -"*) ;;
        "1 stop "* | "1 logs "* | "1 console "* | "1 account "* | "1 trace "* | "1 gdb "* | "1 stat "* | "1 top "*)
            words+=($(compgen -W "$("$1" ps --names 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
            ;;
    esac
    COMPREPLY=("${words[@]}")
}
"#;

const FISH: &str = r#"
complete -c exovm -n "__fish_exovm_using_subcommand stop logs console account trace gdb stat top" -f -a "(exovm ps --names 2>/dev/null)"
"#;

const ZSH: &str = r#"_exovm_machines() {
    local -a names
    names=(${(f)"$(exovm ps --names 2>/dev/null)"})
    compadd -a names
}
"#;
