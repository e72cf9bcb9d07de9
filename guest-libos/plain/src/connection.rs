//! One connection: requests in, responses out, in their order.

use crate::counters::{Counters, add};
use crate::files::{File, Files, Unreadable};
use crate::request::{Method, Request, parse};
use alloc::vec::Vec;
use core::fmt::Write as _;
use edge_nal::{Close, TcpShutdown};
use embedded_io_async::{Read, Write};

/// A header above this is refused.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// What a read asks for at least.
const READ_BYTES: usize = 4 << 10;
/// Responses up to this go out in one write with what is before them; longer bodies are written from where they are.
const GATHERED_BYTES: usize = 16 << 10;
/// What is read, and dropped, after the last response to a client that still sends: closing at once would reset the connection, and
/// the client might not see its answer (RFC 9112 9.6).
const LINGER_BYTES: usize = 256 << 10;

/// Why there is nothing more to say on a connection.
enum Ended {
    /// The client is gone.
    Lost,
    /// The rest of a body cannot be read: only the end of the connection can tell the client.
    Cut,
}

/// A text for `write!` that grows.
struct Text<'a>(&'a mut Vec<u8>);

impl core::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Answers until one of the two sides has enough.
pub(crate) async fn connection<S, F>(mut stream: S, files: &F, counters: &Counters)
where
    S: Read + Write + TcpShutdown,
    F: Files,
{
    add(&counters.connections_opened, 1);
    add(&counters.connections, 1);
    match answer(&mut stream, files, counters).await {
        // Errors mean that the client is gone already.
        Ok(Lingers::No) | Err(Ended::Lost) => {}
        Ok(Lingers::Yes) => linger(&mut stream).await,
        Err(Ended::Cut) => drop(stream.abort().await),
    }
    counters.connections.set(counters.connections.get() - 1);
}

/// Whether the client may still be sending what nobody will read.
enum Lingers {
    No,
    Yes,
}

async fn answer<S, F>(stream: &mut S, files: &F, counters: &Counters) -> Result<Lingers, Ended>
where
    S: Read + Write,
    F: Files,
{
    let mut input = Vec::new();
    // Bytes of `input` that are filled, and of those, how many are done with.
    let (mut filled, mut done) = (0, 0);
    let mut output = Vec::new();
    loop {
        // Responses to requests that came together leave together.
        loop {
            let request = match parse(&input[done..filled]) {
                Ok(Some(request)) => request,
                Ok(None) if filled - done < HEADER_BYTES_MAX => break,
                Ok(None) => {
                    refuse(&mut output, counters, 431, "Request Header Fields Too Large");
                    return flush(stream, &mut output).await.map(|()| Lingers::Yes);
                }
                Err(_) => {
                    refuse(&mut output, counters, 400, "Bad Request");
                    return flush(stream, &mut output).await.map(|()| Lingers::Yes);
                }
            };
            let (keep_alive, has_body) = (request.keep_alive, request.has_body);
            let len_bytes = request.len_bytes;
            respond(stream, &mut output, files, counters, request).await?;
            done += len_bytes;
            if !keep_alive {
                flush(stream, &mut output).await?;
                return Ok(if has_body || done < filled { Lingers::Yes } else { Lingers::No });
            }
        }
        flush(stream, &mut output).await?;
        input.copy_within(done..filled, 0);
        (filled, done) = (filled - done, 0);
        if input.len() < filled + READ_BYTES {
            input.resize(filled + READ_BYTES, 0);
        }
        match stream.read(&mut input[filled..]).await {
            // A client that has closed its side has its answers.
            Ok(0) => return Ok(Lingers::No),
            Ok(len) => filled += len,
            Err(_) => return Err(Ended::Lost),
        }
    }
}

async fn respond<S, F>(
    stream: &mut S,
    output: &mut Vec<u8>,
    files: &F,
    counters: &Counters,
    request: Request<'_>,
) -> Result<(), Ended>
where
    S: Write,
    F: Files,
{
    let Request { method, path, keep_alive, .. } = request;
    if method == Method::Other {
        text(output, counters, keep_alive, 405, "Method Not Allowed", "Allow: GET, HEAD\r\n", true);
        return Ok(());
    }
    let file = files.open(path).await;
    let mut file = match file {
        Ok(Some(file)) => file,
        Ok(None) => {
            text(output, counters, keep_alive, 404, "Not Found", "", method == Method::Get);
            return Ok(());
        }
        Err(Unreadable) => {
            text(output, counters, keep_alive, 500, "Internal Server Error", "", method == Method::Get);
            return Ok(());
        }
    };
    let size_bytes = file.size_bytes();
    counters.count(200, if method == Method::Get { size_bytes } else { 0 });
    header(output, keep_alive, 200, "OK", "", file.media_type(), size_bytes);
    if method == Method::Head {
        return Ok(());
    }
    loop {
        let chunk = match file.next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(Unreadable) => return Err(Ended::Cut),
        };
        let bytes = chunk.as_ref();
        if output.len() + bytes.len() <= GATHERED_BYTES {
            output.extend_from_slice(bytes);
        } else {
            flush(stream, output).await?;
            write_all(stream, bytes).await?;
        }
    }
}

fn header(
    output: &mut Vec<u8>,
    keep_alive: bool,
    status: u16,
    reason: &str,
    fields: &str,
    media_type: &str,
    size_bytes: u64,
) {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    // A vector takes everything.
    let _ = write!(
        Text(output),
        "HTTP/1.1 {status} {reason}\r\nServer: plain\r\nContent-Type: {media_type}\r\nContent-Length: {size_bytes}\r\n\
         Connection: {connection}\r\n{fields}\r\n"
    );
}

/// A response of the server's own, with its reason as the text.
fn text(
    output: &mut Vec<u8>,
    counters: &Counters,
    keep_alive: bool,
    status: u16,
    reason: &str,
    fields: &str,
    with_body: bool,
) {
    let size_bytes = reason.len() as u64 + 1;
    header(output, keep_alive, status, reason, fields, "text/plain", size_bytes);
    if with_body {
        output.extend_from_slice(reason.as_bytes());
        output.push(b'\n');
    }
    counters.count(status, if with_body { size_bytes } else { 0 });
}

fn refuse(output: &mut Vec<u8>, counters: &Counters, status: u16, reason: &str) {
    text(output, counters, false, status, reason, "", true);
}

async fn flush<S: Write>(stream: &mut S, output: &mut Vec<u8>) -> Result<(), Ended> {
    write_all(stream, output).await?;
    output.clear();
    Ok(())
}

async fn write_all<S: Write>(stream: &mut S, bytes: &[u8]) -> Result<(), Ended> {
    if bytes.is_empty() {
        return Ok(());
    }
    stream.write_all(bytes).await.map_err(|_| Ended::Lost)
}

/// Says that nothing more comes, and reads until the client has heard it, within bounds.
async fn linger<S: Read + TcpShutdown>(stream: &mut S) {
    if stream.close(Close::Write).await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    let mut read = 0;
    while read < LINGER_BYTES {
        match stream.read(&mut rest).await {
            Ok(0) | Err(_) => return,
            Ok(len) => read += len,
        }
    }
}
