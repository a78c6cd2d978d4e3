//! The rival as a careful engineer writes it in Rust: a bounded queue per client, and all that
//! waits in it in one send.
//!
//! Configuration: tokio-tungstenite 0.30 with a read buffer of 4 KiB (its default of 128 KiB is
//! zeroed at every read), no compression, TCP_NODELAY, one runtime with one thread that also
//! publishes, one task per client. A queue holds 1024 updates; when it is full, the newest is lost.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::PeerOptions;
use super::rival::{self, OnTokio, Tick};

/// Updates that may wait for a client.
const UPDATES_WAITING_MAX: usize = 1024;

const READ_BUFFER_BYTES: usize = 4096;

/// Ticks that are published before clients have their turn, when some have piled up.
const TICKS_AT_ONCE_MAX: usize = 64;

/// Who wants which topic. Locked once per tick and per subscription, by one thread.
type Subscribers = Arc<Mutex<Vec<Vec<mpsc::Sender<Message>>>>>;

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
    let subscribers: Subscribers = Arc::new(Mutex::new(vec![Vec::new(); topics]));
    tokio::spawn(accept(listener, Arc::clone(&subscribers)));
    let mut waiting = Vec::new();
    while ticks.recv_many(&mut waiting, TICKS_AT_ONCE_MAX).await > 0 {
        let subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        for update in waiting.drain(..).flatten() {
            // An update is JSON in ASCII.
            let Ok(text) = Utf8Bytes::try_from(Bytes::copy_from_slice(&update.bytes)) else {
                continue;
            };
            for queue in &subscribers[update.topic as usize] {
                let _ = queue.try_send(Message::Text(text.clone()));
            }
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, subscribers: Subscribers) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let subscribers = Arc::clone(&subscribers);
                tokio::spawn(async move {
                    // A client that leaves is no error of ours.
                    let _ = client(stream, &subscribers).await;
                });
            }
            Err(error) => eprintln!("batch: a connection was not accepted: {error}"),
        }
    }
}

async fn client(stream: TcpStream, subscribers: &Subscribers) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let (queue, mut waiting) = mpsc::channel(UPDATES_WAITING_MAX);
    let mut subscribed = Subscribed { queue, topics: Vec::new(), subscribers };
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => subscribed.add(&text),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = waiting.recv_many(&mut batch, UPDATES_WAITING_MAX) => {
                for update in batch.drain(..) {
                    socket.feed(update).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

/// A client's subscriptions, which end with it.
struct Subscribed<'a> {
    queue: mpsc::Sender<Message>,
    topics: Vec<usize>,
    subscribers: &'a Subscribers,
}

impl Subscribed<'_> {
    fn add(&mut self, message: &str) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in rival::topics_in(message) {
            if let Some(queues) = subscribers.get_mut(topic)
                && !self.topics.contains(&topic)
            {
                queues.push(self.queue.clone());
                self.topics.push(topic);
            }
        }
    }
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &self.topics {
            subscribers[*topic].retain(|queue| !queue.same_channel(&self.queue));
        }
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
