//! From request target to path (RFC 9112 3.2, RFC 3986 5.2.4 and 6.2.2). A path that comes out of here is absolute,
//! decoded once, and has no dot segments, empty segments or NUL: it names something below the root or nothing.

use alloc::vec::Vec;

use crate::characters::{HOST, span_of};

/// A request target by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/path?query`, or what remains of `http://host/path?query`: a server accepts both (RFC 9112 3.2.2).
    Path {
        /// Begins with a slash; not decoded.
        path: &'a [u8],
        /// What follows the question mark; `None` without one.
        query: Option<&'a [u8]>,
    },
    /// `*`, which only OPTIONS may have (RFC 9112 3.2.4).
    Asterisk,
    /// Anything else. For CONNECT it may be the right `host:port` (RFC 9112 3.2.3).
    Other,
}

/// Tells the forms apart.
#[inline]
pub fn form(target: &[u8]) -> Target<'_> {
    match target {
        [b'/', ..] => path_and_query(target),
        b"*" => Target::Asterisk,
        _ => absolute(target).unwrap_or(Target::Other),
    }
}

#[inline]
fn path_and_query(target: &[u8]) -> Target<'_> {
    match target.iter().position(|&byte| byte == b'?') {
        None => Target::Path { path: target, query: None },
        Some(at) => Target::Path { path: &target[..at], query: Some(&target[at + 1..]) },
    }
}

/// `http` and `https` URIs (RFC 9110 4.2). The host must not be empty and must not hide behind user information
/// (RFC 9110 4.2.4).
fn absolute(target: &[u8]) -> Option<Target<'_>> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = rest.strip_prefix(b"://")?;
    let host_bytes = span_of(rest, &HOST);
    if host_bytes == 0 {
        return None;
    }
    match rest.get(host_bytes) {
        None => Some(Target::Path { path: b"/", query: None }),
        Some(b'/') => Some(path_and_query(&rest[host_bytes..])),
        // An empty path is the root (RFC 9110 4.2.3).
        Some(b'?') => Some(Target::Path { path: b"/", query: Some(&rest[host_bytes + 1..]) }),
        Some(_) => None,
    }
}

/// Why a path names nothing below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A percent sign without two hexadecimal digits, an encoded NUL, or more `..` than there are directories: 400.
    Malformed,
    /// A segment with an encoded slash in it, which no file name has: 404. Taking it for a separator would make two
    /// paths out of one (RFC 3986 2.2).
    NoSuchName,
}

/// Decodes and normalises a path that begins with a slash. What needs no change, nearly every path, comes back as it
/// is; otherwise the path is made in `scratch`. Doubled slashes count as one, as in a file system.
#[inline]
pub fn normalise<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], PathError> {
    let mut previous = 0;
    for &byte in path {
        // A file whose name begins with a dot takes the long way, too.
        if byte == b'%' || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return rewrite(path, scratch);
        }
        previous = byte;
    }
    Ok(path)
}

fn rewrite<'a>(path: &[u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], PathError> {
    scratch.clear();
    // Ends with a slash before each segment.
    scratch.push(b'/');
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let segment_start = scratch.len();
        decode(segment, scratch)?;
        match &scratch[segment_start..] {
            b"" => {}
            b"." => scratch.truncate(segment_start),
            b".." => {
                let parent = &scratch[..segment_start - 1];
                let above = parent.iter().rposition(|&byte| byte == b'/').ok_or(PathError::Malformed)?;
                scratch.truncate(above + 1);
            }
            _ if segments.peek().is_some() => scratch.push(b'/'),
            _ => {}
        }
    }
    Ok(scratch)
}

/// Appends a segment, percent-decoded (RFC 3986 2.1).
fn decode(segment: &[u8], decoded: &mut Vec<u8>) -> Result<(), PathError> {
    let mut rest = segment;
    loop {
        rest = match rest {
            [] => return Ok(()),
            [b'%', high, low, rest @ ..] => {
                match digit(*high)? << 4 | digit(*low)? {
                    0 => return Err(PathError::Malformed),
                    b'/' => return Err(PathError::NoSuchName),
                    byte => decoded.push(byte),
                }
                rest
            }
            [b'%', ..] => return Err(PathError::Malformed),
            [byte, rest @ ..] => {
                decoded.push(*byte);
                rest
            }
        };
    }
}

fn digit(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(PathError::Malformed),
    }
}

#[cfg(test)]
mod tests;
