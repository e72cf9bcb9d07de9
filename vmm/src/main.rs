//! The `exovm` command; all of it is in [`exovm::cli`].

fn main() -> std::process::ExitCode {
    exovm::cli::main()
}
