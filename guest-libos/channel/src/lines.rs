//! Lines typed by a person: the few editing keys that a terminal in raw mode leaves to whoever reads it. Bytes in, edits
//! out; what is echoed is the caller's business, so that a program at the other end gets no echo.

use alloc::vec::Vec;

/// Longest line.
pub const LINE_BYTES_MAX: usize = 256;

/// What a byte did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Added to the line: echo it.
    Typed(u8),
    /// Took the last character off the line.
    Erased,
    /// Threw the line away, which had so many bytes.
    Cleared {
        /// How many.
        bytes: usize,
    },
    /// Ended the line: [`LineEditor::take`] it.
    Ended,
    /// Did nothing.
    Ignored,
}

/// Where in a terminal's control sequence the input is (ECMA-48 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    /// Behind ESC.
    Escape,
    /// Behind CSI.
    Control,
}

/// A line in the making.
#[derive(Clone, Debug, Default)]
pub struct LineEditor {
    line: Vec<u8>,
    sequence: Sequence,
    /// The last byte was a carriage return: a line feed behind it is the same key.
    after_return: bool,
}

impl LineEditor {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a byte of the terminal.
    pub fn push(&mut self, byte: u8) -> Edit {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.sequence, byte) {
            (Sequence::Escape, b'[') => self.sequence = Sequence::Control,
            (Sequence::Escape, _) => self.sequence = Sequence::None,
            (Sequence::Control, 0x40..=0x7E) => self.sequence = Sequence::None,
            (Sequence::Control, 0x20..=0x3F) => {}
            (_, 0x1B) => self.sequence = Sequence::Escape,
            (_, b'\n') if after_return => {}
            (_, b'\r' | b'\n') => return Edit::Ended,
            // Backspace and delete.
            (_, 0x08 | 0x7F) => {
                return if self.line.pop().is_some() { Edit::Erased } else { Edit::Ignored };
            }
            // Ctrl-C and Ctrl-U.
            (_, 0x03 | 0x15) => {
                let bytes = self.line.len();
                self.line.clear();
                return Edit::Cleared { bytes };
            }
            (_, 0x20..=0x7E) if self.line.len() < LINE_BYTES_MAX => {
                self.line.push(byte);
                return Edit::Typed(byte);
            }
            _ => self.sequence = Sequence::None,
        }
        Edit::Ignored
    }

    /// The line, after [`Edit::Ended`]; a new one begins.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.line)
    }

    /// Forgets everything: somebody else types now.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut editor = LineEditor::new();
        let mut lines = Vec::new();
        for &byte in bytes {
            if editor.push(byte) == Edit::Ended {
                lines.push(editor.take());
            }
        }
        lines
    }

    #[test]
    fn lines_end_with_return_line_feed_or_both() {
        let expected = vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec(), Vec::new()];
        assert_eq!(lines(b"one\ntwo\r\nthree\r\r"), expected);
    }

    #[test]
    fn erasing_and_clearing_edit_the_line() {
        assert_eq!(lines(b"\x7fhelo\x08lp\n"), [b"hellp"]);
        assert_eq!(lines(b"rubbish\x15help\n"), [b"help"]);
        assert_eq!(lines(b"rubbish\x03help\n"), [b"help"]);
    }

    #[test]
    fn arrow_keys_and_control_characters_are_no_text() {
        assert_eq!(lines(b"\x1b[Ahe\x1b[1;5Clp\x1bO\x07\x00\xff\n"), [b"help"]);
    }

    #[test]
    fn line_that_is_too_long_is_cut() {
        let mut bytes = vec![b'x'; 10_000];
        bytes.push(b'\n');
        assert_eq!(lines(&bytes), [vec![b'x'; LINE_BYTES_MAX]]);
    }
}
