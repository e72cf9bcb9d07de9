//! Bytes of a connection to responses (RFC 9112). A head is parsed where it was received, and if it is not complete it is left
//! there; of a body only the length is of interest, whatever way it is framed.

mod chunks;

use chunks::{Chunks, Read};
use core::mem::MaybeUninit;
use httparse::{Header, ParserConfig, Response, Status};

/// A head that is longer than this is refused.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// Fields of a head; one with more is refused.
const MAX_FIELDS: usize = 64;

/// Where in its responses a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseCounter {
    at: At,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before or in a head.
    #[default]
    Head,
    /// So many bytes of the body are to come.
    Bytes(u64),
    /// In a chunked body.
    Chunks(Chunks),
    /// In a body that ends with the connection.
    UntilClose,
}

/// A response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status code, 100 to 999.
    pub status: u16,
    /// Another request may follow on the connection.
    pub keeps_alive: bool,
    /// Bytes of its body, without what frames them.
    pub body_bytes: u64,
}

/// What a server sent that is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// Not HTTP, a status below 100, or too many fields.
    Malformed,
    /// No end within [`MAX_HEAD_BYTES`].
    HeadTooLong,
    /// The length of its body is not a number, several numbers, or given in two ways at once.
    Length,
    /// A chunk that is none.
    Chunk,
    /// It switches to another protocol (101), which nobody asked for.
    Upgrade,
}

/// What came of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// So many are done with. The rest is the beginning of a head, to come again with what follows it, or lies behind the response.
    pub bytes: usize,
    /// The response is complete.
    pub answer: Option<Answer>,
}

impl ResponseCounter {
    /// Takes bytes of one response, up to its end. The next call begins with the next response.
    #[inline]
    pub fn input(&mut self, bytes: &[u8]) -> Result<Counted, BadResponse> {
        let mut at = 0;
        while let At::Head = self.at {
            match self.head(&bytes[at..])? {
                Some(len) => at += len,
                None => return Ok(Counted { bytes: at, answer: None }),
            }
        }
        let (taken, ended) = self.body(&bytes[at..])?;
        Ok(Counted { bytes: at + taken, answer: ended.then(|| self.complete()) })
    }

    /// The server sends no more. The response that ends so, if it does; otherwise it was cut short.
    pub fn end(&mut self) -> Option<Answer> {
        (self.at == At::UntilClose).then(|| self.complete())
    }

    fn complete(&mut self) -> Answer {
        self.at = At::Head;
        core::mem::take(&mut self.answer)
    }

    /// Reads a head; how long it is, `None`: it is not complete.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadResponse> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            &bytes[..bytes.len().min(MAX_HEAD_BYTES)],
            &mut fields,
        );
        let len = match parsed {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
            Ok(Status::Partial) => return Err(BadResponse::HeadTooLong),
            Err(_) => return Err(BadResponse::Malformed),
        };
        let status = response.code.unwrap_or_default();
        match status {
            // RFC 9110 15: no class begins with 0.
            ..100 => return Err(BadResponse::Malformed),
            101 => return Err(BadResponse::Upgrade),
            // Interim: the response proper follows (RFC 9110 15.2).
            100..200 => return Ok(Some(len)),
            _ => {}
        }
        let framing = Framing::of(response.headers, response.version == Some(1))?;
        self.at = match framing {
            // RFC 9112 6.3: these have no body, whatever they say.
            _ if matches!(status, 204 | 304) => At::Bytes(0),
            Framing { length: Length::Chunked, .. } => At::Chunks(Chunks::default()),
            Framing { length: Length::Bytes(bytes), .. } => At::Bytes(bytes),
            Framing { length: Length::UntilClose, .. } => At::UntilClose,
        };
        let keeps_alive = framing.keeps_alive && self.at != At::UntilClose;
        self.answer = Answer { status, keeps_alive, body_bytes: 0 };
        Ok(Some(len))
    }

    /// Reads on in a body: so many bytes, and whether it ended there.
    #[inline]
    fn body(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadResponse> {
        match &mut self.at {
            At::Head => Ok((0, false)),
            At::Bytes(rest) => {
                let taken = usize::try_from(*rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
                *rest -= taken as u64;
                self.answer.body_bytes += taken as u64;
                Ok((taken, *rest == 0))
            }
            At::UntilClose => {
                self.answer.body_bytes += bytes.len() as u64;
                Ok((bytes.len(), false))
            }
            At::Chunks(chunks) => {
                let Read { bytes, data_bytes, ended } = chunks.input(bytes)?;
                self.answer.body_bytes += data_bytes;
                Ok((bytes, ended))
            }
        }
    }
}

/// How a body is framed, and what becomes of the connection.
struct Framing {
    length: Length,
    keeps_alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// RFC 9112 6.3 (length) and 9.3 (persistence).
    fn of(fields: &[Header<'_>], is_1_1: bool) -> Result<Self, BadResponse> {
        let mut content_length = None;
        let mut chunked = None;
        let (mut says_close, mut says_keep_alive) = (false, false);
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    let length = decimal(field.value)?;
                    if content_length.is_some_and(|before| before != length) {
                        return Err(BadResponse::Length);
                    }
                    content_length = Some(length);
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    // What counts is the last coding that was applied.
                    chunked = elements(field.value).last().map(|last| last.eq_ignore_ascii_case(b"chunked"));
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    for option in elements(field.value) {
                        says_close |= option.eq_ignore_ascii_case(b"close");
                        says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        let length = match (chunked, content_length) {
            (Some(_), Some(_)) => return Err(BadResponse::Length),
            (Some(true), None) => Length::Chunked,
            (Some(false), None) | (None, None) => Length::UntilClose,
            (None, Some(bytes)) => Length::Bytes(bytes),
        };
        Ok(Self { length, keeps_alive: !says_close && (is_1_1 || says_keep_alive) })
    }
}

/// The elements of a list (RFC 9110 5.6.1).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// A number of digits only.
fn decimal(value: &[u8]) -> Result<u64, BadResponse> {
    if value.is_empty() {
        return Err(BadResponse::Length);
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(BadResponse::Length)?;
        number.checked_mul(10).and_then(|number| number.checked_add(digit.into())).ok_or(BadResponse::Length)
    })
}
