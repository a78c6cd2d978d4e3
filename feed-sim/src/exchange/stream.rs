//! One stream of the exchange: its name, its newest message, and who listens.
//!
//! Owned by the exchange. A message is made once, whoever gets it; who listens is found out again only
//! after a client came, went or said something.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::venue::{Message, Moment, Session, binance};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) message: Message,
    listeners: Vec<u64>,
    /// The listeners are those of this turn of the connections.
    turn: u64,
}

impl Stream {
    pub(super) fn new(key: String, is_book: bool) -> Self {
        let message = Message { key, is_book, payload: Bytes::new(), inner: None };
        Self { message, listeners: Vec::new(), turn: 0 }
    }

    /// Who listens, and the message.
    pub(super) fn listeners(
        &mut self,
        connections: &BTreeMap<u64, Box<dyn Session>>,
        turn: u64,
    ) -> (&[u64], &Message) {
        if self.turn != turn {
            self.turn = turn;
            let key = &self.message.key;
            let listening = connections.iter().filter(|(_, session)| session.has(key));
            self.listeners.clear();
            self.listeners.extend(listening.map(|(connection, _)| *connection));
        }
        (&self.listeners, &self.message)
    }
}

/// Who is told everything, as it is said; no trade twice.
pub(super) struct Observer;

impl Session for Observer {
    fn hear(&mut self, _text: &str, _moment: &Moment<'_>) -> Vec<String> {
        Vec::new()
    }

    fn has(&self, key: &str) -> bool {
        !key.ends_with(binance::AGGREGATES)
    }

    fn subscriptions(&self) -> usize {
        0
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        Some(message.payload.clone())
    }
}
