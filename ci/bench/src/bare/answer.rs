//! Prepared answers, header and body in one piece, found by what the request asks for.

use crate::document;

/// How far beyond its end an answer repeats: the most that is sent at once, so a send never has to wrap.
pub(super) const LARGEST_SEND_BYTES: usize = 44 * 1460;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) size_bytes: u64,
    pub(super) close: bool,
}

impl Request {
    /// Reads a request without its empty line. Understands wrk; everything unknown asks for an empty document.
    pub(super) fn parse(head: &[u8]) -> Self {
        let path = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let close = head.windows(CLOSE.len()).any(|window| window == CLOSE);
        Request { size_bytes: document::size_of_path(path).unwrap_or(0), close }
    }
}

const CLOSE: &[u8] = b"onnection: close";

/// One answer, followed by its own beginning.
#[derive(Debug)]
pub(super) struct Answer {
    request: Request,
    bytes: Vec<u8>,
    answer_bytes: usize,
}

impl Answer {
    fn new(request: Request) -> Self {
        let connection = if request.close { "close" } else { "keep-alive" };
        // The headers that nginx and lighttpd send, so that answers are of their length.
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nServer: bare/1.0.0\r\nDate: Sun, 22 Nov 2026 07:10:52 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
             Last-Modified: Sun, 22 Nov 2026 07:10:51 GMT\r\nConnection: {connection}\r\n\
             ETag: \"6b02957b-40\"\r\nAccept-Ranges: bytes\r\n\r\n",
            request.size_bytes
        )
        .into_bytes();
        bytes.extend(document::content(request.size_bytes));
        let answer_bytes = bytes.len();
        bytes.reserve_exact(LARGEST_SEND_BYTES);
        for at in 0..LARGEST_SEND_BYTES {
            bytes.push(bytes[at]);
        }
        Answer { request, bytes, answer_bytes }
    }

    /// Bytes of one answer.
    pub(super) fn len(&self) -> usize {
        self.answer_bytes
    }

    /// `count` bytes from `offset`, going on with the next answer where this one ends.
    pub(super) fn slice(&self, offset: usize, count: usize) -> &[u8] {
        &self.bytes[offset..offset + count]
    }
}

/// Number of an answer in [`Answers`].
pub(super) type AnswerIndex = usize;

/// All answers asked for so far: a few, looked through one by one.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<Answer>);

impl Answers {
    pub(super) fn find_or_make(&mut self, request: Request) -> AnswerIndex {
        if let Some(index) = self.0.iter().position(|answer| answer.request == request) {
            return index;
        }
        self.0.push(Answer::new(request));
        self.0.len() - 1
    }

    pub(super) fn get(&self, index: AnswerIndex) -> &Answer {
        &self.0[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_size_and_close() {
        let head = b"GET /f8192 HTTP/1.1\r\nHost: 10.80.0.2\r\nConnection: close";
        assert_eq!(Request::parse(head), Request { size_bytes: 8192, close: true });
        assert_eq!(Request::parse(b"GET / HTTP/1.1"), Request { size_bytes: 0, close: false });
    }

    #[test]
    fn slice_beyond_the_end_goes_on_with_the_beginning() {
        let mut answers = Answers::default();
        let index = answers.find_or_make(Request { size_bytes: 64, close: false });
        let answer = answers.get(index);
        let twice = answer.slice(0, 2 * answer.len());
        assert_eq!(twice[..answer.len()], twice[answer.len()..]);
        assert!(twice[..answer.len()].ends_with(&document::content(64)));
        assert_eq!(answers.find_or_make(Request { size_bytes: 64, close: false }), index);
    }
}
