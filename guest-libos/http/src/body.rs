//! Request bodies. No method that is served has a use for one (RFC 9110 9.3.1), but it must be read to find the next
//! request. It is discarded as it comes, up to [`MAX_BODY_BYTES`], and its framing is checked all the same.

use crate::characters::{TOKEN, is_field_byte, span_of_field_bytes};
use crate::request::{BodyLength, Malformed};

/// A longer body, counted with its chunk framing, is answered with 413.
pub const MAX_BODY_BYTES: u32 = 65_536;

/// Where in a body the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes are still to come.
    Bytes(u32),
    /// Chunks; `budget_bytes` is what may still come, framing included.
    Chunked { state: Chunk, budget_bytes: u32 },
}

/// Where in the chunks (RFC 9112 7.1). Every line ends in CR LF; states that end in `Feed` wait for the LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In the digits of a size, some of which may have come.
    Size {
        size: u32,
        digits: Digits,
    },
    /// Behind the semicolon (RFC 9112 7.1.1). Extensions are not understood and passed over.
    Extension {
        size: u32,
    },
    SizeFeed {
        size: u32,
    },
    Data {
        rest_bytes: u32,
    },
    DataReturn,
    DataFeed,
    /// At the beginning of a line behind the last chunk: a trailer field or the end (RFC 9112 7.1.2).
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    EndFeed,
}

/// Whether a size has a digit yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    None,
    Some,
}

/// What reading on in a body came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// All bytes, and more is to come.
    All,
    /// So many bytes: the body ended there.
    Ended { bytes: usize },
}

impl Body {
    /// The body that follows a request's fields; `None` if there is none.
    pub(crate) fn new(length: BodyLength) -> Result<Option<Body>, Malformed> {
        match length {
            BodyLength::None => Ok(None),
            BodyLength::Bytes(bytes) if bytes > MAX_BODY_BYTES => Err(Malformed::BodyTooLarge),
            BodyLength::Bytes(bytes) => Ok(Some(Body::Bytes(bytes))),
            BodyLength::Chunked => Ok(Some(Body::Chunked {
                state: Chunk::Size { size: 0, digits: Digits::None },
                budget_bytes: MAX_BODY_BYTES,
            })),
        }
    }

    /// Reads on.
    pub(crate) fn discard(&mut self, bytes: &[u8]) -> Result<Discarded, Malformed> {
        match self {
            Body::Bytes(rest_bytes) => {
                let rest = *rest_bytes as usize;
                if bytes.len() >= rest {
                    return Ok(Discarded::Ended { bytes: rest });
                }
                // Fewer than `rest`, which came from a u32.
                *rest_bytes -= bytes.len() as u32;
                Ok(Discarded::All)
            }
            Body::Chunked { state, budget_bytes } => discard_chunks(state, budget_bytes, bytes),
        }
    }
}

fn discard_chunks(state: &mut Chunk, budget_bytes: &mut u32, bytes: &[u8]) -> Result<Discarded, Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        if *budget_bytes == 0 {
            return Err(Malformed::BodyTooLarge);
        }
        let window = &bytes[at..bytes.len().min(at + *budget_bytes as usize)];
        let step = match *state {
            Chunk::Data { rest_bytes } => {
                let step = window.len().min(rest_bytes as usize);
                let rest_bytes = rest_bytes - step as u32;
                *state = if rest_bytes == 0 { Chunk::DataReturn } else { Chunk::Data { rest_bytes } };
                step
            }
            Chunk::TrailerValue | Chunk::Extension { .. } if is_field_byte(window[0]) => {
                span_of_field_bytes(window)
            }
            _ => {
                let Some(next) = step_over(*state, window[0])? else {
                    return Ok(Discarded::Ended { bytes: at + 1 });
                };
                *state = next;
                1
            }
        };
        at += step;
        *budget_bytes -= step as u32;
        if let Chunk::Data { rest_bytes } = *state
            && rest_bytes > *budget_bytes
        {
            return Err(Malformed::BodyTooLarge);
        }
    }
    Ok(Discarded::All)
}

/// The state behind one byte; `None` behind the last byte of the body.
fn step_over(state: Chunk, byte: u8) -> Result<Option<Chunk>, Malformed> {
    let next = match (state, byte) {
        (Chunk::Size { size, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            // A size that does not fit is too large in any case.
            Chunk::Size {
                size: size.checked_mul(16).map_or(u32::MAX, |size| size | digit),
                digits: Digits::Some,
            }
        }
        // White space before the semicolon is refused: readers do not agree on it.
        (Chunk::Size { size, digits: Digits::Some }, b';') => Chunk::Extension { size },
        (Chunk::Size { size, digits: Digits::Some } | Chunk::Extension { size }, b'\r') => {
            Chunk::SizeFeed { size }
        }
        (Chunk::SizeFeed { size: 0 }, b'\n') => Chunk::TrailerStart,
        (Chunk::SizeFeed { size }, b'\n') => Chunk::Data { rest_bytes: size },
        (Chunk::DataReturn, b'\r') => Chunk::DataFeed,
        (Chunk::DataFeed, b'\n') => Chunk::Size { size: 0, digits: Digits::None },
        (Chunk::TrailerStart, b'\r') => Chunk::EndFeed,
        (Chunk::TrailerStart | Chunk::TrailerName, byte) if TOKEN[usize::from(byte)] => Chunk::TrailerName,
        (Chunk::TrailerName, b':') => Chunk::TrailerValue,
        (Chunk::TrailerValue, b'\r') => Chunk::TrailerFeed,
        (Chunk::TrailerFeed, b'\n') => Chunk::TrailerStart,
        (Chunk::EndFeed, b'\n') => return Ok(None),
        _ => return Err(Malformed::Chunk),
    };
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The length of the body at the beginning of `bytes`, given in pieces that end at `cuts`.
    fn length_in_pieces(
        length: BodyLength,
        bytes: &[u8],
        piece_bytes: usize,
    ) -> Result<Option<usize>, Malformed> {
        let mut body = Body::new(length)?.unwrap();
        let mut before = 0;
        for piece in bytes.chunks(piece_bytes) {
            match body.discard(piece)? {
                Discarded::All => before += piece.len(),
                Discarded::Ended { bytes } => return Ok(Some(before + bytes)),
            }
        }
        Ok(None)
    }

    fn chunked(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let whole = length_in_pieces(BodyLength::Chunked, bytes, bytes.len().max(1));
        for piece_bytes in 1..bytes.len().min(50) {
            assert_eq!(length_in_pieces(BodyLength::Chunked, bytes, piece_bytes), whole);
        }
        whole
    }

    #[test]
    fn chunked_bodies_end_where_they_should() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"000\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"A\r\n0123456789\r\n1;x=\"y\"\r\nz\r\n0;end\r\n\r\n",
            b"1\r\n\r\r\n0\r\n\r\n",
            b"0\r\nTrailer: value\r\nOther:\r\n\r\n",
        ] {
            assert_eq!(
                chunked(&[body, b"GET / HTTP/1.1"].concat()),
                Ok(Some(body.len())),
                "{}",
                body.escape_ascii()
            );
            assert_eq!(chunked(&body[..body.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn chunked_invalid_framing_returns_chunk() {
        for body in [
            &b"\r\n"[..],
            b";x\r\n",
            b"g\r\n",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\n0\n\n",
            b"5\rhello",
            b"5;a\nhello",
            b"5;a\0\r\nhello",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n:\r\n\r\n",
            b"0\r\na: \x01\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\n\n",
            b"0\r\n\r\r",
        ] {
            assert_eq!(chunked(body), Err(Malformed::Chunk), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn chunked_body_over_the_limit_returns_body_too_large() {
        for body in [
            format!("{:x}\r\n", MAX_BODY_BYTES).into_bytes(),
            b"ffffffff\r\n".to_vec(),
            b"100000000\r\n".to_vec(),
            b"100000000000000000000000000000001\r\n".to_vec(),
            b"1\r\nx\r\n".repeat(MAX_BODY_BYTES as usize),
            [&b"1;"[..], &b"e".repeat(MAX_BODY_BYTES as usize)].concat(),
            [&b"0\r\n"[..], &b"a: b\r\n".repeat(MAX_BODY_BYTES as usize)].concat(),
        ] {
            assert_eq!(length_in_pieces(BodyLength::Chunked, &body, 1000), Err(Malformed::BodyTooLarge));
            assert_eq!(length_in_pieces(BodyLength::Chunked, &body, 100_000), Err(Malformed::BodyTooLarge));
        }
    }

    #[test]
    fn counted_bodies_end_after_their_length_or_are_too_large() {
        assert_eq!(length_in_pieces(BodyLength::Bytes(10), &[0; 20], 3), Ok(Some(10)));
        assert_eq!(length_in_pieces(BodyLength::Bytes(10), &[0; 9], 3), Ok(None));
        assert_eq!(Body::new(BodyLength::None), Ok(None));
        assert_eq!(Body::new(BodyLength::Bytes(MAX_BODY_BYTES)), Ok(Some(Body::Bytes(MAX_BODY_BYTES))));
        assert_eq!(Body::new(BodyLength::Bytes(MAX_BODY_BYTES + 1)), Err(Malformed::BodyTooLarge));
    }

    proptest! {
        #[test]
        fn chunked_any_bytes_in_any_pieces_give_the_same(
            body in prop::collection::vec(
                prop_oneof![
                    Just(b"\r\n".to_vec()), Just(b"0".to_vec()), Just(b"3\r\nabc".to_vec()), Just(b";a=b".to_vec()),
                    Just(b"0\r\n".to_vec()), Just(b"t: v\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..3)
                ], 0..12)
        ) {
            let _ = chunked(&body.concat());
        }

        #[test]
        fn chunked_well_formed_body_is_read_to_its_end(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20)
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(chunked(&body), Ok(Some(body.len())));
        }
    }
}
