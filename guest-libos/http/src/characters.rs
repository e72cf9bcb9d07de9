//! Which bytes may stand where: the character classes of RFC 9110 and RFC 3986 as tables.

/// `tchar` of RFC 9110 5.6.2: methods, field names and other tokens.
pub(crate) const TOKEN: [bool; 256] = class(b"!#$%&'*+-.^_`|~", HighBytes::Refused);

/// What a request target may hold. RFC 3986 allows less; like other servers, this one takes what browsers and people
/// type (`"<>^{|}` and the backquote, raw UTF-8) as if it were percent-encoded. Never white space or control
/// characters; no fragment, which RFC 9110 4.1 does not send; no backslash, which some systems take for a slash.
pub(crate) const TARGET: [bool; 256] = class(b"!$%&'()*+,-./:;=?@[]_~\"<>^`{|}", HighBytes::Allowed);

/// What `uri-host [ ":" port ]` is made of (RFC 9112 3.2, RFC 3986 3.2.2): no user information, no path.
pub(crate) const HOST: [bool; 256] = class(b"!$%&'()*+,-.:;=[]_~", HighBytes::Refused);

/// What may stand unencoded in the path of a `Location` (`pchar` of RFC 3986 3.3, and the slash).
pub(crate) const PATH: [bool; 256] = class(b"!$&'()*+,-./:;=@_~", HighBytes::Refused);

#[derive(Clone, Copy)]
enum HighBytes {
    Refused,
    Allowed,
}

/// Letters, digits and `others`.
const fn class(others: &[u8], high: HighBytes) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        table[byte] |= (byte as u8).is_ascii_alphanumeric();
        match high {
            HighBytes::Allowed => table[byte] |= byte >= 0x80,
            HighBytes::Refused => {}
        }
        byte += 1;
    }
    table
}

/// How many bytes at the beginning of `bytes` are in the class.
#[inline]
pub(crate) fn span_of(bytes: &[u8], class: &[bool; 256]) -> usize {
    bytes.iter().position(|&byte| !class[usize::from(byte)]).unwrap_or(bytes.len())
}

/// Whether a byte may stand in a field value (RFC 9110 5.5): visible characters, space, tab and bytes above ASCII.
#[inline]
pub(crate) fn is_field_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// How many bytes at the beginning of `bytes` may stand in a field value. Most of a request is field values, so this
/// looks at eight bytes at a time and only where one of them is suspicious at each.
#[inline]
pub(crate) fn span_of_field_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH_BITS: u64 = ONES * 0x80;
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut at = 0;
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH_BITS;
        let not_delete = word ^ (ONES * 0x7f);
        let deletes = not_delete.wrapping_sub(ONES) & !not_delete & HIGH_BITS;
        if controls | deletes != 0 {
            // The end of the value, or a tab within it.
            if let Some(within) = chunk.iter().position(|&byte| !is_field_byte(byte)) {
                return at + within;
            }
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|&byte| !is_field_byte(byte)).unwrap_or(bytes.len() - at)
}

/// `bytes` without the optional white space around them (RFC 9110 5.6.3).
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_hold_no_white_space_control_or_slash_where_it_matters() {
        for class in [&TOKEN, &TARGET, &HOST, &PATH] {
            assert!((0..=0x20).chain([0x7f, usize::from(b'\\')]).all(|byte| !class[byte]));
        }
        assert!(!TOKEN[usize::from(b':')] && !HOST[usize::from(b'/')] && !HOST[usize::from(b'@')]);
        assert!(!TARGET[usize::from(b'#')] && !PATH[usize::from(b'?')] && !PATH[usize::from(b'%')]);
    }

    proptest! {
        #[test]
        fn span_of_field_bytes_equals_one_byte_at_a_time(
            bytes in prop::collection::vec(prop_oneof![0x20..0x7fu8, any::<u8>(), Just(b'\t'), 0x7e..0x82u8], 0..60)
        ) {
            let expected = bytes.iter().position(|&byte| !is_field_byte(byte)).unwrap_or(bytes.len());
            prop_assert_eq!(span_of_field_bytes(&bytes), expected);
        }
    }
}
