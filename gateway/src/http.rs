//! HTTP answers and the server that the door and the admin listener share.
//!
//! Runs on the door's thread. Requests are read within the limits of `limits.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tickfan_core::wire::message::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::limits::{
    EXCHANGE_NS_MAX, LISTEN_BACKLOG, REQUEST_HEAD_BYTES_MAX, REQUEST_HEAD_NS_MAX,
    REQUEST_HEADERS_MAX,
};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Listens, with room for a storm of reconnects.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves one connection, for as long as an exchange may take.
pub async fn serve<S, F>(stream: S, answer: impl Fn(Request<Incoming>) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Answer>,
{
    serve_within(Duration::from_nanos(EXCHANGE_NS_MAX), stream, answer).await;
}

async fn serve_within<S, F>(limit: Duration, stream: S, answer: impl Fn(Request<Incoming>) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Answer>,
{
    let service = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_nanos(REQUEST_HEAD_NS_MAX))
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .max_headers(REQUEST_HEADERS_MAX)
        .serve_connection(TokioIo::new(StrictStream::new(stream)), service)
        .with_upgrades();
    match tokio::time::timeout(limit, connection).await {
        Ok(Ok(())) => {}
        // A client that breaks off is its own affair.
        Ok(Err(error)) => tracing::debug!(%error, "an http connection ended early"),
        Err(_) => tracing::debug!("a client did not read its answer in time"),
    }
}

/// Refuses somebody whose request is not even looked at. Best effort: whoever is refused so may not
/// read it either.
pub fn refuse_unread(stream: TcpStream, message: &str) {
    let body = error_body(ErrorCode::RateLimited, message);
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    );
    // Not by way of the poller, which knows nothing of the stream yet.
    let Ok(mut stream) = stream.into_std() else { return };
    // What has come is taken first: the kernel would take the answer back for what is left unread.
    let _ = stream.read(&mut vec![0; REQUEST_HEAD_BYTES_MAX]);
    let _ = stream.write(answer.as_bytes());
}

/// A stream that takes a line feed without a carriage return for no end of a line.
///
/// The parser behind it would, and a proxy before it may not: then the two see different headers. In
/// the head of the request such a line feed becomes a NUL, which the parser refuses. What comes
/// behind the head is left alone.
#[derive(Debug)]
pub struct StrictStream<S> {
    stream: S,
    /// The newest bytes of the head, the last one lowest.
    newest: u32,
    has_begun: bool,
    has_ended: bool,
}

impl<S> StrictStream<S> {
    const fn new(stream: S) -> Self {
        Self { stream, newest: 0, has_begun: false, has_ended: false }
    }

    /// The stream alone.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn check(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.has_ended {
                return;
            }
            if *byte == b'\n' && self.newest as u8 != b'\r' {
                *byte = 0;
            }
            self.newest = self.newest << 8 | u32::from(*byte);
            // Empty lines before the request are none of it.
            self.has_begun |= !matches!(*byte, b'\r' | b'\n');
            self.has_ended = self.has_begun && self.newest == u32::from_be_bytes(*b"\r\n\r\n");
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.check(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", body)
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

/// An answer of this type.
pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The method that decides what is answered: HEAD asks what GET would (RFC 9110 §9.3.2), and the
/// server leaves the body away.
pub fn asked(method: &Method) -> &Method {
    if method == Method::HEAD { &Method::GET } else { method }
}

/// The refusal of every other method.
pub fn only_get() -> Answer {
    let message = "only GET and HEAD are served here";
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// An error answer, in the words of the protocol.
pub fn error(status: StatusCode, code: ErrorCode, message: &str) -> Answer {
    json(status, error_body(code, message))
}

fn error_body(code: ErrorCode, message: &str) -> String {
    serde_json::json!({ "code": code, "message": message }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn a_client_that_does_not_read_its_answer_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 10);
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            // It would never end: the answer does not fit, and nobody makes room.
            serve_within(Duration::from_millis(20), server, |_| async {
                text(StatusCode::OK, vec![b'x'; 1 << 20])
            })
            .await;
        });
    }
}
