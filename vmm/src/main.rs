//! The `exovm` command; all of it is in [`exovm::cli`].

fn main() -> std::process::ExitCode {
    // The benchmark runs parts of itself as processes of their own; they come here first.
    exovm_bench::run_role().unwrap_or_else(exovm::cli::main)
}
