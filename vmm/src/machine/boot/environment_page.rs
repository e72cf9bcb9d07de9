//! The page that tells an environment what it is and has.

use super::{BootConfig, MachineError};
use abi::boot::{ARGUMENTS_BYTES, ENVIRONMENT_MAGIC, EnvironmentPage};
use zerocopy::FromZeros;

/// What an environment is told, whatever it holds.
pub(super) fn new(config: &BootConfig, environment: u32) -> Result<EnvironmentPage, MachineError> {
    let mut page = EnvironmentPage::new_zeroed();
    page.magic = ENVIRONMENT_MAGIC;
    page.abi_version = abi::VERSION;
    page.environment = environment;
    page.tsc_khz = config.tsc_khz;
    page.entropy = entropy()?;
    page.ipv4 = config.ipv4;
    page.ipv6 = config.ipv6;
    page.name_servers = config.name_servers;
    let arguments = config.arguments.join("\0");
    if arguments.len() > ARGUMENTS_BYTES {
        return Err(MachineError::ArgumentsTooLong { len: arguments.len() });
    }
    page.arguments_len = arguments.len() as u32;
    page.arguments[..arguments.len()].copy_from_slice(arguments.as_bytes());
    Ok(page)
}

/// 64 bytes from the host.
pub(super) fn entropy() -> Result<[u8; 64], MachineError> {
    let mut bytes = [0; 64];
    // SAFETY: the buffer is 64 bytes long.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(MachineError::host("getrandom")(std::io::Error::last_os_error()));
    }
    Ok(bytes)
}
