//! `exovm cat`: the content of a file in an image.

use super::{find, open};
use crate::cli::Failure;
use exos_fs::image::ImageError;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `cat`.
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = "The checksum of each block is compared before it is printed; damage ends the output with an error.

Examples
  exovm cat site.img /index.html
  exovm cat site.img /logo.png | cmp - site/logo.png"
)]
pub(in crate::cli) struct CatArguments {
    /// The image.
    image: PathBuf,
    /// File in it.
    path: OsString,
}

pub(in crate::cli) fn cat(arguments: &CatArguments) -> Result<ExitCode, Failure> {
    let mut image = open(&arguments.image)?;
    let node = find(&mut image, &arguments.path)?;
    if node.is_directory() {
        let path = &arguments.path;
        return Err(format!("{path:?} is a directory: `exovm ls` lists what is in it").into());
    }
    let mut output = std::io::stdout().lock();
    match image.copy(&node, &mut output).and_then(|()| output.flush().map_err(ImageError::Output)) {
        // Whoever read it has seen enough.
        Err(ImageError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS).map_err(Failure::from),
    }
}
