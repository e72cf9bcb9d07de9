//! Before anything is timed: does a server send the document, byte for byte, by the connection it should use?

use crate::options::Mode;
use crate::{BenchError, document, network};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any server here sends before its body.
const LARGEST_HEAD_LINES: usize = 100;

/// Fetches the document of `size_bytes` twice on one connection (once where the connection is to be closed) and compares.
pub(crate) fn document(
    server: &str,
    address: SocketAddr,
    mode: Mode,
    size_bytes: u64,
) -> Result<(), BenchError> {
    let path = document::path(size_bytes);
    let wrong =
        |reason: String| BenchError::WrongAnswer { server: server.to_owned(), path: path.clone(), reason };
    let failed = |error: io::Error| wrong(error.to_string());
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    network::check_socket(&stream, "the client")?;
    let mut reader = BufReader::new(stream);
    let expected = document::content(size_bytes);
    let (requests, header) = match mode {
        Mode::Close => (1, "Connection: close\r\n"),
        Mode::KeepAlive | Mode::Pipelined => (2, ""),
    };
    for _ in 0..requests {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n");
        reader.get_mut().write_all(request.as_bytes()).map_err(failed)?;
        let length = read_head(&mut reader).map_err(failed)?;
        if length != size_bytes {
            return Err(wrong(format!("Content-Length {length} instead of {size_bytes}")));
        }
        let mut body = vec![0; expected.len()];
        reader.read_exact(&mut body).map_err(failed)?;
        if let Some(at) = body.iter().zip(&expected).position(|(got, wanted)| got != wanted) {
            return Err(wrong(format!("byte {at} of the body is wrong")));
        }
    }
    if mode == Mode::Close && reader.read(&mut [0]).map_err(failed)? != 0 {
        return Err(wrong("it sends more than the document before it closes".into()));
    }
    Ok(())
}

/// Reads status line and header fields; gives the length of the body.
fn read_head(reader: &mut impl BufRead) -> io::Result<u64> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut length = None;
    for number in 0..LARGEST_HEAD_LINES {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if number == 0 && !line.starts_with("HTTP/1.1 200 ") {
            return Err(invalid(format!("it answers `{line}`")));
        }
        if line.is_empty() {
            return length.ok_or_else(|| invalid("it sends no Content-Length".into()));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    Err(invalid("its header does not end".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_head_finds_the_length() {
        let mut head = &b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length:  64\r\n\r\nbody"[..];
        assert_eq!(read_head(&mut head).unwrap(), 64);
        assert_eq!(head, b"body");
    }

    #[test]
    fn read_head_invalid_answers_returns_why() {
        let cases = [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n"[..], "404"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no Content-Length"),
            (b"", "it answers ``"),
        ];
        for (mut head, words) in cases {
            assert!(read_head(&mut head).unwrap_err().to_string().contains(words), "{words}");
        }
        let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(200);
        assert!(read_head(&mut endless.as_bytes()).unwrap_err().to_string().contains("does not end"));
    }
}
