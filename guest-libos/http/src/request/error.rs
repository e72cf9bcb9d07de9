//! What can be wrong with a request, and the status that says so.

use core::fmt;

use crate::Status;

/// Why bytes are not a request that this server accepts. The connection closes after each of these, because where
/// the next request begins is no longer certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// A control character where none may be (RFC 9110 5.5).
    ControlCharacter,
    /// A carriage return or a line feed alone (RFC 9112 2.2; section 2.2 would let a line feed alone pass).
    LineEnding,
    /// The request line is not method, space, target, space, version (RFC 9112 3).
    RequestLine,
    /// The method is longer than any that is known.
    MethodTooLong,
    /// The target is longer than [`MAX_TARGET_BYTES`](crate::MAX_TARGET_BYTES).
    TargetTooLong,
    /// The target has a form or a byte that it must not have (RFC 9112 3.2), or leads above the root.
    Target,
    /// The version is not `HTTP/` digit `.` digit (RFC 9112 2.3).
    Version,
    /// The version is not 1.x.
    VersionNotSupported,
    /// The fields are longer than [`MAX_FIELDS_BYTES`](crate::MAX_FIELDS_BYTES).
    FieldsTooLarge,
    /// A field name is empty, not a token, or has white space before its colon (RFC 9112 5.1).
    FieldName,
    /// A byte in a field value that must not be there (RFC 9110 5.5).
    FieldValue,
    /// A field goes on in the next line (RFC 9112 5.2).
    ObsoleteFolding,
    /// HTTP/1.1 without `Host` (RFC 9112 3.2).
    HostMissing,
    /// More than one `Host` (RFC 9112 3.2).
    HostRepeated,
    /// `Host` is not a host with an optional port.
    HostInvalid,
    /// `Content-Length` is not a number (RFC 9112 6.3).
    ContentLengthInvalid,
    /// More than one `Content-Length`. RFC 9112 6.3 lets equal ones pass; refusing them is always right.
    ContentLengthRepeated,
    /// `Content-Length` and `Transfer-Encoding` (RFC 9112 6.3).
    ContentLengthWithTransferEncoding,
    /// `Transfer-Encoding` does not end in `chunked`, names it twice, or comes twice (RFC 9112 6.3).
    TransferEncodingInvalid,
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 6.1).
    TransferEncodingInHttp10,
    /// A transfer coding other than `chunked` (RFC 9112 6.1).
    TransferEncodingUnknown,
    /// A chunk that does not follow the grammar (RFC 9112 7.1).
    Chunk,
    /// A body longer than [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES).
    BodyTooLarge,
}

impl Malformed {
    /// The status to answer with.
    pub fn status(self) -> Status {
        match self {
            Malformed::MethodTooLong | Malformed::TransferEncodingUnknown => Status::NotImplemented,
            Malformed::TargetTooLong => Status::UriTooLong,
            Malformed::VersionNotSupported => Status::HttpVersionNotSupported,
            Malformed::FieldsTooLarge => Status::RequestHeaderFieldsTooLarge,
            Malformed::BodyTooLarge => Status::ContentTooLarge,
            _ => Status::BadRequest,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::ControlCharacter => "a control character where none may be",
            Malformed::LineEnding => "a line that does not end in CR LF",
            Malformed::RequestLine => "a request line that is not method, target and version",
            Malformed::MethodTooLong => "a method longer than any known",
            Malformed::TargetTooLong => "a target that is too long",
            Malformed::Target => "a target that is not a path below the root",
            Malformed::Version => "a version that is not HTTP's",
            Malformed::VersionNotSupported => "a version other than HTTP/1.1 and HTTP/1.0",
            Malformed::FieldsTooLarge => "fields that are too large",
            Malformed::FieldName => "a field name that is not a token right before its colon",
            Malformed::FieldValue => "a control character in a field value",
            Malformed::ObsoleteFolding => "a field that goes on in the next line",
            Malformed::HostMissing => "HTTP/1.1 without Host",
            Malformed::HostRepeated => "more than one Host",
            Malformed::HostInvalid => "a Host that is not a host",
            Malformed::ContentLengthInvalid => "a Content-Length that is not a number",
            Malformed::ContentLengthRepeated => "more than one Content-Length",
            Malformed::ContentLengthWithTransferEncoding => "both Content-Length and Transfer-Encoding",
            Malformed::TransferEncodingInvalid => "a Transfer-Encoding that does not end in one chunked",
            Malformed::TransferEncodingInHttp10 => "a Transfer-Encoding in HTTP/1.0",
            Malformed::TransferEncodingUnknown => "a transfer coding other than chunked",
            Malformed::Chunk => "a chunk that does not follow the grammar",
            Malformed::BodyTooLarge => "a body that is too large",
        })
    }
}

impl core::error::Error for Malformed {}
