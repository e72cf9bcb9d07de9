//! Media types by file name extension. Text types carry `charset=utf-8`, because a browser would otherwise guess
//! (RFC 9110 8.3.2). Names come from the IANA registry of media types.

/// What a file is served as when its extension says nothing (RFC 9110 8.3).
pub const DEFAULT: &str = "application/octet-stream";

/// The number of [`DEFAULT`].
const DEFAULT_NUMBER: u16 = 0;

/// The types by their numbers in volumes. The numbers are part of the format: new types go to the end, and none is taken out.
const BY_NUMBER: &[&str] = &[
    "application/octet-stream",
    "application/atom+xml",
    "application/epub+zip",
    "application/gzip",
    "application/java-archive",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/msword",
    "application/pdf",
    "application/postscript",
    "application/rss+xml",
    "application/rtf",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/vnd.debian.binary-package",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.oasis.opendocument.presentation",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.oasis.opendocument.text",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/wasm",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-tar",
    "application/x-xz",
    "application/xhtml+xml",
    "application/xml",
    "application/yaml",
    "application/zip",
    "application/zstd",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "font/otf",
    "font/ttf",
    "font/woff",
    "font/woff2",
    "image/apng",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/heic",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/svg+xml",
    "image/tiff",
    "image/vnd.microsoft.icon",
    "image/webp",
    "text/calendar; charset=utf-8",
    "text/css; charset=utf-8",
    "text/csv; charset=utf-8",
    "text/html; charset=utf-8",
    "text/javascript; charset=utf-8",
    "text/markdown; charset=utf-8",
    "text/plain; charset=utf-8",
    "text/vtt; charset=utf-8",
    "video/matroska",
    "video/mp2t",
    "video/mp4",
    "video/mpeg",
    "video/ogg",
    "video/quicktime",
    "video/webm",
    "video/x-msvideo",
];

/// Extensions and the numbers of their types. Sorted, so that a look-up is a binary search and a double entry shows.
const BY_EXTENSION: &[(&str, u16)] = &[
    ("7z", 25),
    ("aac", 34),
    ("apng", 45),
    ("atom", 1),
    ("avi", 72),
    ("avif", 46),
    ("bin", 0),
    ("bmp", 47),
    ("bz2", 26),
    ("c", 63),
    ("cjs", 61),
    ("conf", 63),
    ("cpp", 63),
    ("css", 58),
    ("csv", 59),
    ("deb", 15),
    ("doc", 8),
    ("docx", 23),
    ("epub", 2),
    ("flac", 35),
    ("gif", 48),
    ("gz", 3),
    ("h", 63),
    ("heic", 49),
    ("htm", 60),
    ("html", 60),
    ("ico", 55),
    ("ics", 57),
    ("iso", 0),
    ("jar", 4),
    ("jpeg", 50),
    ("jpg", 50),
    ("js", 61),
    ("json", 5),
    ("jsonld", 6),
    ("jxl", 51),
    ("log", 63),
    ("m3u8", 14),
    ("m4a", 36),
    ("m4v", 67),
    ("map", 5),
    ("md", 62),
    ("mjs", 61),
    ("mkv", 65),
    ("mov", 70),
    ("mp3", 37),
    ("mp4", 67),
    ("mpeg", 68),
    ("odp", 18),
    ("ods", 19),
    ("odt", 20),
    ("oga", 38),
    ("ogg", 38),
    ("ogv", 69),
    ("opus", 38),
    ("otf", 41),
    ("pdf", 9),
    ("png", 52),
    ("ppt", 17),
    ("pptx", 21),
    ("ps", 10),
    ("py", 63),
    ("rs", 63),
    ("rss", 11),
    ("rtf", 12),
    ("sh", 63),
    ("svg", 53),
    ("tar", 27),
    ("tif", 54),
    ("tiff", 54),
    ("toml", 13),
    ("ts", 66),
    ("ttf", 42),
    ("txt", 63),
    ("vtt", 64),
    ("wasm", 24),
    ("wav", 39),
    ("weba", 40),
    ("webm", 71),
    ("webmanifest", 7),
    ("webp", 56),
    ("woff", 43),
    ("woff2", 44),
    ("xhtml", 29),
    ("xls", 16),
    ("xlsx", 22),
    ("xml", 30),
    ("xz", 28),
    ("yaml", 31),
    ("yml", 31),
    ("zip", 32),
    ("zst", 33),
];

/// Longer than any extension in the table.
const MAX_EXTENSION_BYTES: usize = 16;

/// The type with this number in a volume; [`DEFAULT`] for one that a newer program has given.
pub fn by_number(number: u16) -> &'static str {
    BY_NUMBER.get(usize::from(number)).copied().unwrap_or(DEFAULT)
}

/// The media type of a file by the last component of its path. Upper and lower case count the same; a leading dot
/// (`.profile`) does not begin an extension.
pub fn media_type(path: &[u8]) -> &'static str {
    by_number(number_of(path))
}

/// The number of the type of a file by the last component of its path.
pub(crate) fn number_of(path: &[u8]) -> u16 {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = match name.iter().rposition(|&byte| byte == b'.') {
        None | Some(0) => return DEFAULT_NUMBER,
        Some(dot) => &name[dot + 1..],
    };
    let mut lower = [0; MAX_EXTENSION_BYTES];
    let Some(lower) = lower.get_mut(..extension.len()) else { return DEFAULT_NUMBER };
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    match BY_EXTENSION.binary_search_by(|(known, _)| known.as_bytes().cmp(lower)) {
        Ok(at) => BY_EXTENSION[at].1,
        Err(_) => DEFAULT_NUMBER,
    }
}

/// Whether the bytes may stand in a `Content-Type` field: visible ASCII and single spaces, nothing that could end
/// the field.
pub fn is_field_value(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_has_no_doubles() {
        assert!(BY_EXTENSION.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn table_extensions_are_lower_case_and_fit() {
        assert!(BY_EXTENSION.iter().all(|(extension, _)| extension.len() <= MAX_EXTENSION_BYTES
            && extension.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())));
    }

    #[test]
    fn table_text_types_name_their_charset_and_others_do_not() {
        for media_type in BY_NUMBER {
            assert_eq!(
                media_type.starts_with("text/"),
                media_type.ends_with("; charset=utf-8"),
                "{media_type}"
            );
            assert!(is_field_value(media_type.as_bytes()), "{media_type}");
        }
    }

    #[test]
    fn table_numbers_are_known_and_each_type_has_one() {
        assert!(BY_EXTENSION.iter().all(|(_, number)| usize::from(*number) < BY_NUMBER.len()));
        for (number, media_type) in BY_NUMBER.iter().enumerate() {
            assert_eq!(BY_NUMBER.iter().position(|other| other == media_type), Some(number));
        }
        assert_eq!(BY_NUMBER[usize::from(DEFAULT_NUMBER)], DEFAULT);
    }

    /// Volumes that are there already say these numbers.
    #[test]
    fn table_numbers_of_version_1_do_not_move() {
        let hash = xxhash_rust::xxh3::xxh3_64(BY_NUMBER[..VERSION_1_TYPES].join("\n").as_bytes());
        assert_eq!(hash, VERSION_1_HASH, "{hash:#x}");
    }
    const VERSION_1_TYPES: usize = 73;
    const VERSION_1_HASH: u64 = 0x333b_8a4c_249f_b0dd;

    #[test]
    fn by_number_of_a_newer_program_returns_default() {
        assert_eq!(by_number(u16::MAX), DEFAULT);
    }

    #[test]
    fn media_type_ignores_case_and_directories() {
        assert_eq!(media_type(b"a/b.d/INDEX.HtMl"), "text/html; charset=utf-8");
        assert_eq!(media_type(b"x.tar.gz"), "application/gzip");
        assert_eq!(media_type(b"photo.JPG"), "image/jpeg");
    }

    #[test]
    fn media_type_without_known_extension_returns_default() {
        for path in
            [&b"README"[..], b"", b".html", b"a.html/x", b"x.", b"x.unknownextension-longer", b"x.\xff"]
        {
            assert_eq!(media_type(path), DEFAULT, "{path:?}");
        }
    }
}
