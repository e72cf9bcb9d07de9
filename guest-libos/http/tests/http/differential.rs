//! Beside another parser: `httparse` and this one accept and refuse the same request lines and fields, but for the
//! differences that are listed here, each with its reason.

use exos_http::Malformed;
use exos_http::request::{Progress, RequestParser};
use proptest::prelude::*;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    NeedMore,
    Complete { bytes: usize, method: String, target: Vec<u8> },
    Refused,
}

fn ours(bytes: &[u8]) -> Result<Verdict, Malformed> {
    match RequestParser::default().parse(bytes) {
        Progress::NeedMore => Ok(Verdict::NeedMore),
        Progress::Complete { request, bytes: length } => Ok(Verdict::Complete {
            bytes: length,
            method: String::from_utf8(bytes.split(|&byte| byte == b' ').next().unwrap().to_vec()).unwrap(),
            target: request.target().to_vec(),
        }),
        Progress::Malformed(malformed) => Err(malformed),
    }
}

fn theirs(bytes: &[u8]) -> Verdict {
    let mut fields = [httparse::EMPTY_HEADER; 600];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Verdict::NeedMore,
        Ok(httparse::Status::Complete(length)) => Verdict::Complete {
            bytes: length,
            method: request.method.unwrap().to_string(),
            target: request.path.unwrap().as_bytes().to_vec(),
        },
        Err(_) => Verdict::Refused,
    }
}

/// Why the two may differ, where they do.
fn exception(bytes: &[u8], ours: &Result<Verdict, Malformed>, theirs: &Verdict) -> Option<&'static str> {
    let bare_line_feed =
        bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'));
    match (ours, theirs) {
        // httparse reads syntax only; these are about what the fields mean.
        (
            Err(
                Malformed::HostMissing
                | Malformed::HostRepeated
                | Malformed::HostInvalid
                | Malformed::ContentLengthInvalid
                | Malformed::ContentLengthRepeated
                | Malformed::ContentLengthWithTransferEncoding
                | Malformed::TransferEncodingInvalid
                | Malformed::TransferEncodingInHttp10
                | Malformed::TransferEncodingUnknown,
            ),
            _,
        ) => Some("semantics"),
        (Err(Malformed::TargetTooLong | Malformed::FieldsTooLarge | Malformed::MethodTooLong), _) => {
            Some("limits")
        }
        // RFC 9112 2.2 permits a line feed alone as the end of a line, and httparse takes it.
        (_, _) if bare_line_feed => Some("bare line feed"),
        // httparse skips empty lines before a request; here the connection does.
        (Err(_), _) if bytes.starts_with(b"\r") => Some("empty lines before the request"),
        // httparse knows 1.0 and 1.1 only; RFC 9110 2.5 wants later minor versions to be treated as 1.1. And it
        // refuses a wrong version at its first wrong byte as we do, but 505 needs the whole line.
        (Ok(_) | Err(Malformed::Version), Verdict::Refused | Verdict::NeedMore) if other_version(bytes) => {
            Some("other versions")
        }
        // httparse wants UTF-8 in a target; raw bytes above ASCII are taken as they are here.
        (Ok(_), Verdict::Refused) if std::str::from_utf8(bytes).is_err() => Some("target not in UTF-8"),
        // RFC 9110 4.1: no fragment; and a backslash is no character of a URI. httparse lets both pass.
        (Err(Malformed::Target), _) if bytes.iter().any(|&byte| matches!(byte, b'#' | b'\\')) => {
            Some("# and \\")
        }
        _ => None,
    }
}

fn other_version(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/").skip(1).any(|version| !version.starts_with("1.1\r") && !version.starts_with("1.0\r"))
}

/// Compares; returns the exception that applied.
fn compare(bytes: &[u8]) -> Result<Option<&'static str>, String> {
    let (ours, theirs) = (ours(bytes), theirs(bytes));
    let same = match &ours {
        Ok(ours) => *ours == theirs,
        Err(_) => theirs == Verdict::Refused,
    };
    if same {
        return Ok(None);
    }
    match exception(bytes, &ours, &theirs) {
        Some(exception) => Ok(Some(exception)),
        None => Err(format!("{}: ours {ours:?}, theirs {theirs:?}", bytes.escape_ascii())),
    }
}

/// Parts of requests, with wrong ones among them.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec()),
        2 => Just(b"GET ".to_vec()),
        2 => Just(b"/path?query".to_vec()),
        2 => Just(b" HTTP/1.1\r\n".to_vec()),
        1 => Just(b" HTTP/1.0\r\n".to_vec()),
        3 => Just(b"Name: value\r\n".to_vec()),
        1 => Just(b"Name:\tva\tlue  \r\n".to_vec()),
        4 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b" ".to_vec()),
        1 => Just(b":".to_vec()),
        1 => Just(b"x".to_vec()),
        2 => prop::collection::vec(any::<u8>(), 1..3),
        2 => prop::collection::vec(0x20..0x7fu8, 1..6),
    ]
}

fn request_with_a_change() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}: ?[ -~\t]{0,20}\r\n", 0..6);
    ("[A-Z]{1,8} /[!-~]{0,20} HTTP/1.[01]\r\n", fields, any::<prop::sample::Index>(), any::<u8>(), 0..4u8)
        .prop_map(|(line, fields, at, byte, change)| {
            let mut bytes = format!("{line}Host: h\r\n{}\r\n", fields.concat()).into_bytes();
            let at = at.index(bytes.len());
            match change {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 4_000 } else { 200_000 }))]

    #[test]
    fn parts_in_any_order_are_judged_as_by_httparse(parts in prop::collection::vec(part(), 0..8)) {
        prop_assert!(compare(&parts.concat()).map_err(TestCaseError::fail).is_ok());
    }

    #[test]
    fn requests_with_a_change_are_judged_as_by_httparse(bytes in request_with_a_change()) {
        compare(&bytes).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn each_exception_is_real() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "semantics"),
        (b"GET / HTTP/1.1\nHost: h\n\n", "bare line feed"),
        (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "empty lines before the request"),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", "other versions"),
        (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", "target not in UTF-8"),
        (b"GET /#x HTTP/1.1\r\nHost: h\r\n\r\n", "# and \\"),
        (&[b"GET /", &b"a".repeat(5000)[..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat(), "limits"),
    ] {
        assert_eq!(compare(bytes), Ok(Some(expected)), "{}", bytes[..bytes.len().min(80)].escape_ascii());
    }
}
