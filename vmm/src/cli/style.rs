//! How output looks: colours (on a terminal only, and not where `NO_COLOR` is set), numbers of things, and columns.

use super::Failure;
pub(super) use crate::text::counted;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use std::io::{ErrorKind, Write};

/// Headings.
pub(super) const HEADING: Style = Style::new().bold();
/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is worth knowing.
pub(super) const ODD: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is there for completeness.
pub(super) const FAINT: Style = Style::new().dimmed();

/// Text in a style, for [`print`].
pub(super) fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// Whether a stream shows colours.
pub(super) fn colours(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Whether somebody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Yes.
    Listens,
    /// The pipe is closed, as in `exovm logs -f | head`.
    Gone,
}

/// Prints text with styles to standard output, a line or more.
pub(super) fn print(text: &str) -> Result<Reader, Failure> {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(format!("standard output: {error}").into()),
    }
}

/// Rows under a heading, in columns as wide as their content.
pub(super) fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![styled(&line(heading), HEADING)];
    lines.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_takes_the_singular_for_one_only() {
        let entries = |count| counted(count, "directory", "directories");
        assert_eq!([0, 1, 2].map(entries), ["0 directories", "1 directory", "2 directories"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = columns(["NAME", "STATE"], &[row("größer", "ready"), row("x", "")]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME    STATE\ngrößer  ready\nx");
    }
}
