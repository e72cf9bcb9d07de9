//! Which of the names there are was meant by one that there is not: for messages.

/// Names less alike than this are not taken for a slip of the fingers.
const ALIKE: f64 = 0.7;

/// The most similar of `names`, if it is similar enough to be asked for.
pub(crate) fn closest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|other| (likeness(name, other), other))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .map(|(_, name)| name)
}

/// How alike two names are, from 0 to 1.
pub(crate) fn likeness(name: &str, other: &str) -> f64 {
    strsim::jaro_winkler(name, other)
}

/// `; did you mean NAME?`, or nothing.
pub(crate) fn question<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, names).map_or(String::new(), |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_is_the_one_with_a_slip_in_it() {
        let names = ["cheetah", "hello", "probe"];
        assert_eq!(closest("chetah", names), Some("cheetah"));
        assert_eq!(closest("hello-2", names), Some("hello"));
        assert_eq!(closest("xyz", names), None);
        assert_eq!(closest("", names), None);
        assert_eq!(closest("hello", []), None);
    }
}
