//! Media types by file name extension. Text types carry `charset=utf-8`, because a browser would otherwise guess
//! (RFC 9110 8.3.2). Names come from the IANA registry of media types.

/// What a file is served as when its extension says nothing (RFC 9110 8.3).
pub const DEFAULT: &str = "application/octet-stream";

/// Sorted by extension, so that a look-up is a binary search and a double entry shows.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("atom", "application/atom+xml"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain; charset=utf-8"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"),
    ("cpp", "text/plain; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("h", "text/plain; charset=utf-8"),
    ("heic", "image/heic"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("iso", "application/octet-stream"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain; charset=utf-8"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("py", "text/plain; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("sh", "text/plain; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Longer than any extension in the table.
const MAX_EXTENSION_BYTES: usize = 16;

/// The media type of a file by the last component of its path. Upper and lower case count the same; a leading dot
/// (`.profile`) does not begin an extension.
pub fn media_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = match name.iter().rposition(|&byte| byte == b'.') {
        None | Some(0) => return DEFAULT,
        Some(dot) => &name[dot + 1..],
    };
    let mut lower = [0; MAX_EXTENSION_BYTES];
    let Some(lower) = lower.get_mut(..extension.len()) else { return DEFAULT };
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    match BY_EXTENSION.binary_search_by(|(known, _)| known.as_bytes().cmp(lower)) {
        Ok(at) => BY_EXTENSION[at].1,
        Err(_) => DEFAULT,
    }
}

/// Whether the bytes may stand in a `Content-Type` field: visible ASCII and single spaces, nothing that could end
/// the field. The reader holds archives to it.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
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
        for (extension, media_type) in BY_EXTENSION {
            assert_eq!(
                media_type.starts_with("text/"),
                media_type.ends_with("; charset=utf-8"),
                "{extension}: {media_type}"
            );
            assert!(is_field_value(media_type.as_bytes()), "{extension}");
        }
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
