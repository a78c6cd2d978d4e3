//! The rival as most servers begin: a tokio broadcast channel per topic, and one write per update.
//!
//! Configuration: fastwebsockets 0.10 behind hyper's upgrade, no compression, TCP_NODELAY, one
//! runtime with one thread, one task per client that waits on all its topics through a `StreamMap`.
//! A channel holds 1024 updates; a client that is behind by more misses the oldest.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{StreamExt, StreamMap};

use super::PeerOptions;
use super::rival::{self, OnTokio, Tick};

/// Updates that a topic keeps for clients that are behind.
const UPDATES_KEPT: usize = 1024;

/// Things that a client's reading half may leave to its writing half before it waits.
const COMMANDS_WAITING_MAX: usize = 16;

type Topics = Arc<[broadcast::Sender<Bytes>]>;

/// What a client's reading half leaves to its writing half.
enum Command {
    Subscribe(Vec<usize>),
    Answer(Frame<'static>),
}

/// Runs this rival.
///
/// # Errors
/// When it does not start or fails.
pub(crate) fn run(options: &PeerOptions) -> Result<()> {
    rival::run(options, start)
}

fn start(topics: usize) -> Result<OnTokio> {
    OnTokio::start(move |listener, ticks| serve(listener, ticks, topics))
}

async fn serve(
    listener: TcpListener,
    mut ticks: mpsc::Receiver<Tick>,
    topics: usize,
) -> Result<()> {
    let topics: Topics = (0..topics).map(|_| broadcast::Sender::new(UPDATES_KEPT)).collect();
    tokio::spawn(accept(listener, Arc::clone(&topics)));
    while let Some(tick) = ticks.recv().await {
        for update in tick {
            // An error says that nobody listens to this topic.
            let _ = topics[update.topic as usize].send(Bytes::copy_from_slice(&update.bytes));
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, topics: Topics) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, Arc::clone(&topics)));
            }
            Err(error) => eprintln!("naive: a connection was not accepted: {error}"),
        }
    }
}

async fn answer(stream: TcpStream, topics: Topics) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|mut request: Request<Incoming>| {
        let topics = Arc::clone(&topics);
        async move { Ok::<_, Infallible>(upgrade_to_client(&mut request, topics)) }
    });
    // A client that leaves, or that says what is no WebSocket, is its own business.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn upgrade_to_client(request: &mut Request<Incoming>, topics: Topics) -> Response<Empty<Bytes>> {
    if is_upgrade_request(request)
        && let Ok((response, socket)) = upgrade(request)
    {
        tokio::spawn(async move {
            // A client that leaves is no error of ours.
            let _ = client(socket, &topics).await;
        });
        return response;
    }
    let mut refusal = Response::new(Empty::new());
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    refusal
}

async fn client(
    socket: UpgradeFut,
    topics: &[broadcast::Sender<Bytes>],
) -> Result<(), WebSocketError> {
    let (mut reader, mut writer) = socket.await?.split(tokio::io::split);
    let (commands, mut waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
    // Reading a frame must not be interrupted, so the two halves take turns within the task.
    let reading = async {
        loop {
            let mut answer = |frame| commands.send(Command::Answer(frame));
            let frame = reader.read_frame(&mut answer).await?;
            let command = match frame.opcode {
                OpCode::Text => {
                    let message = std::str::from_utf8(&frame.payload).unwrap_or_default();
                    Command::Subscribe(rival::topics_in(message).collect())
                }
                OpCode::Close => return Ok(()),
                _ => continue,
            };
            if commands.send(command).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        let mut updates = StreamMap::new();
        loop {
            tokio::select! {
                Some(command) = waiting.recv() => match command {
                    Command::Subscribe(wanted) => {
                        for topic in wanted.into_iter().filter(|topic| *topic < topics.len()) {
                            let updates_of_it = BroadcastStream::new(topics[topic].subscribe());
                            updates.insert(topic, updates_of_it);
                        }
                    }
                    Command::Answer(frame) => writer.write_frame(frame).await?,
                },
                Some((_, update)) = updates.next() => {
                    // An error counts updates that were missed.
                    if let Ok(update) = update {
                        writer.write_frame(Frame::text(Payload::Borrowed(&update))).await?;
                    }
                }
                else => return Ok(()),
            }
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rival::tests::{TOPICS, serves_each_client_its_topics};
    use super::*;

    #[test]
    fn each_client_gets_the_updates_of_its_topics_in_order() {
        serves_each_client_its_topics(start(TOPICS).unwrap());
    }
}
