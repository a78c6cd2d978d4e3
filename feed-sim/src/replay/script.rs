//! A recording → what each of its lines is to the clients of the replay.
//!
//! Made once per replay, so that playing a line is a look-up.

use std::sync::Arc;

use crate::recording::{Kind, Line, Recording};
use crate::venue::{Listed, Message, Reader};

/// What a line is to the clients.
#[derive(Debug)]
pub(super) enum Cue {
    /// It concerned the recorder only: a socket opened, a request, an acknowledgement.
    Nothing,
    /// It goes to who subscribed to a stream.
    Message(Message),
    /// It answers the first request for a symbol's depth.
    Image(Arc<str>),
}

/// What all lines of a recording are to the clients.
#[derive(Debug)]
pub(super) struct Script {
    /// One cue for each line.
    pub(super) cues: Vec<Cue>,
    /// What there is to subscribe to.
    pub(super) listed: Listed,
}

impl Script {
    pub(super) fn new(recording: &Recording) -> Self {
        let mut reader = recording.dialect.reader();
        // A message may come before the acknowledgement that tells what it is, so what there is to
        // learn is learnt first.
        for line in recording.lines.iter().filter(|line| line.kind == Kind::Recv) {
            reader.read(line.text());
        }
        let mut listed = Listed::default();
        let cues = recording.lines.iter().map(|line| cue(&mut *reader, line, &mut listed));
        Self { cues: cues.collect(), listed }
    }
}

fn cue(reader: &mut dyn Reader, line: &Line, listed: &mut Listed) -> Cue {
    match line.kind {
        Kind::Open | Kind::Send => Cue::Nothing,
        Kind::Rest => line.rest_symbol().map_or(Cue::Nothing, |symbol| Cue::Image(symbol.into())),
        Kind::Recv => {
            let Some(recorded) = reader.read(line.text()) else { return Cue::Nothing };
            listed.add(&recorded);
            Cue::Message(Message {
                is_book: recorded.book.is_some(),
                payload: line.payload.clone(),
                inner: recorded.inner.map(|inner| line.payload.slice_ref(inner.as_bytes())),
                key: recorded.key,
            })
        }
    }
}
