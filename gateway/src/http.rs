//! HTTP answers and the server that the door and the admin listener share.
//!
//! Runs on the door's thread. One request per connection is read, within the limits of `limits.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tickfan_core::wire::message::ErrorCode;
use tokio::net::{TcpListener, TcpStream};

use crate::limits::{
    LISTEN_BACKLOG, REQUEST_HEAD_BYTES_MAX, REQUEST_HEAD_NS_MAX, REQUEST_HEADERS_MAX,
};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Listens, with room for a storm of reconnects.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves one connection.
pub async fn serve<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> F)
where
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
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off is its own affair.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an http connection ended early");
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

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An error answer, in the words of the protocol.
pub fn error(status: StatusCode, code: ErrorCode, message: &str) -> Answer {
    let body = serde_json::json!({ "code": code, "message": message });
    json(status, body.to_string())
}
