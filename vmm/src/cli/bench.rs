//! `exovm bench`: beside today's servers.

use super::Failure;
use std::process::ExitCode;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub(super) struct BenchArguments {}

pub(super) fn bench(_: BenchArguments) -> Result<ExitCode, Failure> {
    Err("not yet".into())
}
