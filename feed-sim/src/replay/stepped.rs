//! A recording → its venue in virtual time, line by line, for one client and without a socket.
//!
//! Made by the recorder, which records it again. It stands on the same stage as the replay that is
//! served.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;

use super::script::Script;
use super::stage::{Image, Stage};
use crate::door::{Outbox, Outgoing, Target};
use crate::record::{Heard, ImageRequest, Recordable, Wishes};
use crate::recording::{LostLine, Recording};
use crate::truth::TruthBook;
use crate::venue::Dialect;

/// See the top of this file.
pub(crate) struct Stepped<'a> {
    recording: &'a Recording,
    script: Script,
    stage: Stage,
    outbox: Arc<Outbox>,
    connection: u64,
    now_ns: u64,
    /// Lines that are to be taken for lost.
    lost: &'a [LostLine],
    /// What was said and not yet heard.
    said: VecDeque<Heard>,
}

impl<'a> Stepped<'a> {
    /// A recording before its first line, of which some are to be taken for lost.
    pub(crate) fn new(recording: &'a Recording, lost: &'a [LostLine]) -> Self {
        let script = Script::new(recording);
        let stage = Stage::new(recording, &script);
        let now_ns = recording.lines.first().map_or(0, |line| line.recv_ns);
        let (outbox, said) = (Arc::default(), VecDeque::new());
        Self { recording, script, stage, outbox, connection: 0, now_ns, lost, said }
    }

    /// Takes what was said since the last time.
    fn listen(&mut self, is_change: bool, is_lost: bool) {
        let text = |outgoing| match outgoing {
            Outgoing::Text(text) => Some(Heard { text, is_change, is_lost }),
            Outgoing::Ping
            | Outgoing::Pong(_)
            | Outgoing::Raw(_)
            | Outgoing::Close(_)
            | Outgoing::Cut
            | Outgoing::Deafen => None,
        };
        self.said.extend(self.outbox.take_now().into_iter().filter_map(text));
    }
}

impl Recordable for Stepped<'_> {
    fn dialect(&self) -> Dialect {
        self.recording.dialect
    }

    fn wishes(&self) -> Wishes {
        Wishes::recorded(self.recording)
    }

    fn start_ns(&self) -> u64 {
        self.recording.lines.first().map_or(0, |line| line.recv_ns)
    }

    fn next_ns(&self) -> Option<u64> {
        self.recording.lines.get(self.stage.position).map(|line| line.recv_ns)
    }

    fn step(&mut self) {
        let place = self.stage.position;
        let next = self.recording.lines.get(place).zip(self.script.cues.get(place));
        let Some((line, cue)) = next else { return };
        self.now_ns = line.recv_ns;
        let is_change = self.stage.play(line, &self.script, cue, false).is_some();
        let is_lost = self.lost.iter().any(|lost| lost.drop_line == line.number);
        self.listen(is_change, is_lost);
    }

    fn connect(&mut self, wishes: &Wishes) {
        let (path, query) = wishes.target.split_once('?').unwrap_or((&wishes.target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let target = Target { is_post: false, path, query, body: Bytes::new() };
        self.connection = self.stage.open(&target, Arc::clone(&self.outbox));
        self.listen(false, false);
    }

    fn hear(&mut self, text: &str) {
        self.stage.message(self.connection, text, &self.script, self.now_ns);
        self.listen(false, false);
    }

    fn image(&mut self, request: &ImageRequest) -> Result<Option<Bytes>> {
        match self.stage.image(&request.symbol, Some(request.limit), self.now_ns) {
            Ok(Image::Now(body)) => Ok(Some(body.into())),
            Ok(Image::Later(_)) => Ok(None),
            Err(reason) => anyhow::bail!("no image of {}: {reason:?}", request.symbol),
        }
    }

    fn next_heard(&mut self) -> Result<Option<Heard>> {
        Ok(self.said.pop_front())
    }

    fn book(&self, symbol: &str, _depth: usize) -> Option<Cow<'_, TruthBook>> {
        self.stage.book(symbol).map(Cow::Borrowed)
    }
}
