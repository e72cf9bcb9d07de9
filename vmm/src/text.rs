//! Text for people: numbers of things, and what a guest, an image or a machine says, for terminals, which must not obey it.

use serde_json::Value;

/// What takes the place of a control character.
const HARMLESS: &str = "\u{FFFD}";

/// A number of things: `1 file`, `2 files`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A stranger's text within a line: no control characters at all.
pub(crate) fn harmless(text: &str) -> String {
    text.replace(char::is_control, HARMLESS)
}

/// All strings of a stranger's JSON, which may have lines: of control characters, only line ends and tabs stay.
pub(crate) fn make_harmless(value: &mut Value) {
    let is_obeyed = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    match value {
        Value::String(text) if text.contains(is_obeyed) => *text = text.replace(is_obeyed, HARMLESS),
        Value::Array(values) => values.iter_mut().for_each(make_harmless),
        Value::Object(map) => map.values_mut().for_each(make_harmless),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{9b}c"), "a\u{FFFD}[2Jb\u{FFFD}\u{FFFD}c");
        let mut value = serde_json::json!({ "a": ["one\n\ttwo \u{1b}[2J", { "b": "\u{7f}\r" }], "n": 1 });
        make_harmless(&mut value);
        assert_eq!(
            value,
            serde_json::json!({ "a": ["one\n\ttwo \u{FFFD}[2J", { "b": "\u{FFFD}\u{FFFD}" }], "n": 1 })
        );
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "fly", "flies")), ["0 flies", "1 fly", "2 flies"]);
    }
}
