//! A GET of the admin listener of a gateway: where it is → its [`Overview`].
//!
//! `tickfan top` calls it again and again, each time over a new connection, as the listener answers
//! one request on each. It waits no longer than a person would.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time;

use crate::limits::OVERVIEW_BYTES_MAX;
use crate::overview::{Overview, WorstBy};

/// From the connection to the last byte: the gateway itself waits a second for its shards.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no overview.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the message of each names its fields")]
pub enum AdminError {
    #[error("{0:?} is no URL of an admin listener; write one like http://127.0.0.1:9180")]
    Url(String),
    #[error(
        "no answer from {url} ({cause}); start a gateway with `tickfan`, or name its admin listener \
         with --url"
    )]
    NoAnswer { url: String, cause: String },
    #[error(
        "{url} answers {status} to /overview; name the admin listener of a gateway with --url, and \
         not the one for clients"
    )]
    Status { url: String, status: StatusCode },
    #[error("{url} answers what is no overview ({cause}); is that gateway of another version?")]
    NotUnderstood { url: String, cause: serde_json::Error },
}

impl AdminError {
    /// In few words, for whoever knows where the gateway should be.
    pub fn cause(&self) -> String {
        match self {
            Self::NoAnswer { cause, .. } => cause.clone(),
            other => other.to_string(),
        }
    }
}

/// Asks a gateway how everybody is served: its answer, and that as it came.
///
/// # Errors
/// [`AdminError`] when the URL is none, or what answers there is no gateway of this version.
pub async fn overview(url: &str, by: WorstBy) -> Result<(Overview, String), AdminError> {
    let uri: Uri = url.parse().map_err(|_| AdminError::Url(url.to_owned()))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(AdminError::Url(url.to_owned()));
    };
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let no_answer = |cause: String| AdminError::NoAnswer { url: url.to_owned(), cause };
    let (status, body) = time::timeout(ANSWER_TIMEOUT, get(&address, by))
        .await
        .unwrap_or_else(|_| Err("none in time".into()))
        .map_err(|cause| no_answer(cause.to_string()))?;
    if status != StatusCode::OK {
        return Err(AdminError::Status { url: url.to_owned(), status });
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let overview = serde_json::from_str(&text)
        .map_err(|cause| AdminError::NotUnderstood { url: url.to_owned(), cause })?;
    Ok((overview, text))
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

async fn get(address: &str, by: WorstBy) -> Result<(StatusCode, Bytes), Cause> {
    let socket = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::get(format!("/overview?by={}", by.name()))
        .header(HOST, address)
        .body(Empty::<Bytes>::new())?;
    // hyper runs its side of the connection as a task, which ends with the answer.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), OVERVIEW_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}
