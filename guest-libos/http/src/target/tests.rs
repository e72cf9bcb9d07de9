//! Targets that try to leave the root, and those that merely look odd.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn normalised(path: &[u8]) -> Result<Vec<u8>, PathError> {
    normalise(path, &mut Vec::new()).map(<[u8]>::to_vec)
}

#[test]
fn normalise_table() {
    let cases: &[(&str, Result<&str, PathError>)] = &[
        ("/", Ok("/")),
        ("/a/b.html", Ok("/a/b.html")),
        ("/a/b/", Ok("/a/b/")),
        ("/a%20b", Ok("/a b")),
        ("/%61%2Fb", Err(PathError::NoSuchName)),
        ("/%41%c3%bc", Ok("/Aü")),
        ("/%", Err(PathError::Malformed)),
        ("/%4", Err(PathError::Malformed)),
        ("/%4g", Err(PathError::Malformed)),
        ("/%+1", Err(PathError::Malformed)),
        ("/a%00b", Err(PathError::Malformed)),
        ("/a%00", Err(PathError::Malformed)),
        // Decoded once, not twice.
        ("/%252e%252e/x", Ok("/%2e%2e/x")),
        ("/%2500", Ok("/%00")),
        // Dot segments.
        ("/.", Ok("/")),
        ("/./", Ok("/")),
        ("/a/.", Ok("/a/")),
        ("/a/./b", Ok("/a/b")),
        ("/a/..", Ok("/")),
        ("/a/../", Ok("/")),
        ("/a/../b", Ok("/b")),
        ("/a/b/../../c", Ok("/c")),
        ("/a/b/..", Ok("/a/")),
        ("/a/%2e%2E/b", Ok("/b")),
        ("/a/.%2e/b", Ok("/b")),
        ("/a/%2e/b", Ok("/a/b")),
        ("/...", Ok("/...")),
        ("/.a", Ok("/.a")),
        ("/a/..b/", Ok("/a/..b/")),
        // Doubled slashes.
        ("//", Ok("/")),
        ("//a//b//", Ok("/a/b/")),
        ("/a//../b", Ok("/b")),
        // Out of the root.
        ("/..", Err(PathError::Malformed)),
        ("/../", Err(PathError::Malformed)),
        ("/../etc/passwd", Err(PathError::Malformed)),
        ("/%2e%2e/etc/passwd", Err(PathError::Malformed)),
        ("/a/../../etc/passwd", Err(PathError::Malformed)),
        ("/a/..//..//etc/passwd", Err(PathError::Malformed)),
        ("//../etc/passwd", Err(PathError::Malformed)),
        ("/./../etc/passwd", Err(PathError::Malformed)),
        ("/..%2f..%2fetc/passwd", Err(PathError::NoSuchName)),
        ("/%2e%2e%2fetc/passwd", Err(PathError::NoSuchName)),
        // A backslash is a letter like any other on this side of the parser.
        ("/..%5c..%5cetc", Ok("/..\\..\\etc")),
        // Over-long UTF-8 of a dot stays what it is.
        ("/%c0%ae%c0%ae/", Ok("")),
    ];
    for (path, expected) in cases {
        match expected {
            Ok("") => {
                assert_eq!(normalised(path.as_bytes()).unwrap(), b"/\xc0\xae\xc0\xae/");
            }
            _ => assert_eq!(normalised(path.as_bytes()), expected.map(|path| path.into()), "{path}"),
        }
    }
}

#[test]
fn form_table() {
    let path = |path: &'static [u8], query: Option<&'static [u8]>| Target::Path { path, query };
    let cases: &[(&[u8], Target<'_>)] = &[
        (b"/", path(b"/", None)),
        (b"/a?b=c?d", path(b"/a", Some(b"b=c?d"))),
        (b"/?", path(b"/", Some(b""))),
        (b"*", Target::Asterisk),
        (b"**", Target::Other),
        (b"http://host", path(b"/", None)),
        (b"http://host?x", path(b"/", Some(b"x"))),
        (b"http://host:80/a/b?c", path(b"/a/b", Some(b"c"))),
        (b"HTTPS://[::1]:443/a", path(b"/a", None)),
        (b"http://host/../../etc/passwd", path(b"/../../etc/passwd", None)),
        (b"http:///etc/passwd", Target::Other),
        (b"http://", Target::Other),
        (b"http:/a", Target::Other),
        (b"http://user@host/", Target::Other),
        (b"http://user:password@host/", Target::Other),
        (b"file:///etc/passwd", Target::Other),
        (b"ftp://host/", Target::Other),
        (b"host:80", Target::Other),
        (b"a/b", Target::Other),
        (b"?x", Target::Other),
    ];
    for (target, expected) in cases {
        assert_eq!(form(target), *expected, "{}", target.escape_ascii());
    }
}

fn tricky_path() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&[u8]] = &[b"/", b".", b"..", b"%2e", b"%2F", b"%5c", b"%", b"%00", b"a", b"%25", b"\xff"];
    let part = prop::sample::select(PARTS).prop_map(<[u8]>::to_vec);
    prop::collection::vec(part, 0..20).prop_map(|parts| [b"/", &parts.concat()[..]].concat())
}

proptest! {
    #[test]
    fn normalise_any_path_stays_below_the_root(path in tricky_path()) {
        if let Ok(path) = normalised(&path) {
            prop_assert!(path.starts_with(b"/"));
            let segments: Vec<_> = path[1..].split(|&byte| byte == b'/').collect();
            let (last, directories) = segments.split_last().unwrap();
            prop_assert!(directories.iter().all(|segment| !segment.is_empty()));
            prop_assert!(!segments.iter().any(|segment| *segment == b"." || *segment == b".."), "{last:?}");
            prop_assert!(!path.contains(&0));
        }
    }

    #[test]
    fn normalise_path_without_percent_equals_rewriting_it(path in "/[a-z./-]{0,20}") {
        let mut scratch = Vec::new();
        prop_assert_eq!(normalised(path.as_bytes()), rewrite(path.as_bytes(), &mut scratch).map(<[u8]>::to_vec));
    }

    #[test]
    fn form_and_normalise_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = form(&bytes);
        let _ = normalised(&[b"/", &bytes[..]].concat());
    }
}
