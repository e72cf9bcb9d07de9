//! What the command's exit codes mean: said once, here, and printed by `exovm --help`.

/// A success.
pub(super) const SUCCESS: u8 = 0;
/// An error that the message explains.
pub(super) const ERROR: u8 = 1;
/// Wrong usage; clap's own choice.
pub(super) const USAGE: u8 = 2;
/// The guest ended with a fault.
pub(super) const FAULT: u8 = 3;
/// Added to the number of the signal that ended the process of a machine.
pub(super) const SIGNAL: u8 = 128;

/// For the help.
pub(super) fn help() -> String {
    format!(
        "\
Exit codes
  {SUCCESS}      success; also of a machine that was asked to end (Ctrl-C, exovm stop)
  {ERROR}      an error, which the message explains; stop: a machine has not ended;
         doctor: machines cannot run here; fsck: there is damage;
         attack: an attack was not refused
  {USAGE}      wrong usage
  {FAULT}      run: the guest ended with a fault
  {SIGNAL}+N  run --detach: signal N ended the machine before it was ready
  run of an image that ends by itself gives the image's own status."
    )
}
