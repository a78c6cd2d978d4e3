//! Binary data frames → the text that says the same, so that one session judges both encodings.
//!
//! Called by a session for each binary message. The layout is written down here a second time, from
//! the protocol's page, and strictly: what the page says is 0 must be 0. It shares no code with the
//! gateway's encoders.

use std::fmt::Write;

use super::number::shortest;
use super::report::{Broken, hold};

const RULE: &str = "a binary frame is laid out as the protocol's page says";

const STATES: [&str; 7] = ["syncing", "live", "suspect", "stale", "gap", "halted", "closed"];

const NANOS_PER_MICRO: u64 = 1_000;

const RECORD_HEAD_BYTES: usize = 64;

/// A frame as text, and how many bytes each of its updates took.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// The data frame in JSON. Every update has the epoch and state of its record.
    pub(crate) text: String,
    /// The lengths of the records.
    pub(crate) record_bytes: Vec<usize>,
}

/// Writes a frame down as text.
///
/// # Errors
/// What is not as the protocol's page says.
pub(crate) fn transcribe(frame: &[u8]) -> Result<Transcript, Broken> {
    let mut fields = Fields { left: frame };
    hold_is("magic", 0x4654, fields.u16()?)?;
    hold_is("version", 1, fields.u8()?)?;
    fields.zeros("flags", 1)?;
    let count = fields.u16()?;
    hold(count <= 64, RULE, "at most 64 updates", count)?;
    fields.zeros("reserved bytes", 2)?;
    let (n, ts_ns, late) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let mut text = format!(r#"{{"n":{n},"ts":{}"#, ts_ns / NANOS_PER_MICRO);
    if late != 0 {
        let marks: Vec<_> = (0..64).filter(|index| late >> index & 1 == 1).collect();
        put(&mut text, "late", &format!("{marks:?}"));
    }
    text.push_str(r#","u":["#);
    let mut record_bytes = Vec::new();
    for index in 0..count {
        if index > 0 {
            text.push(',');
        }
        let length = Fields { left: fields.left }.u32()? as usize;
        let is_fit = length >= RECORD_HEAD_BYTES && length.is_multiple_of(8);
        hold(is_fit, RULE, "a length of 64 or more, a multiple of 8", length)?;
        record(Fields { left: fields.take(length)? }, &mut text)?;
        record_bytes.push(length);
    }
    hold_is("bytes behind the last update", 0, fields.left.len())?;
    text.push_str("]}");
    Ok(Transcript { text, record_bytes })
}

fn hold_is<T: PartialEq + std::fmt::Display>(
    what: &str,
    expected: T,
    got: T,
) -> Result<(), Broken> {
    hold(expected == got, RULE, format!("{what} {expected}"), got)
}

fn put(text: &mut String, key: &str, value: &str) {
    // Nothing can go wrong in writing to a string.
    let _ = write!(text, r#","{key}":{value}"#);
}

/// How the numbers of a record are to be read.
#[derive(Clone, Copy)]
struct Scales {
    px: usize,
    qty: usize,
}

fn record(mut fields: Fields<'_>, text: &mut String) -> Result<(), Broken> {
    fields.u32()?;
    let kind = fields.u8()?;
    let name = match kind {
        1 => "image",
        2 => "delta",
        3 => "bbo",
        4 => "trades",
        5 => "state",
        _ => return Err(Broken::new(RULE, "a kind that was subscribed to", kind)),
    };
    let code = fields.u8()?;
    let state = STATES
        .get(usize::from(code))
        .ok_or_else(|| Broken::new(RULE, "a state of the protocol", code))?;
    let flags = fields.u16()?;
    let scale =
        |low: u16, sixteen: u16| usize::from(flags >> low & 15 | (flags >> sixteen & 1) << 4);
    let scales = Scales { px: scale(8, 1), qty: scale(12, 2) };
    hold(flags & 0xf8 == 0, RULE, "unused flags 0", flags)?;
    let (view, epoch) = (fields.u32()?, fields.u32()?);
    let (s, p) = (fields.u64()?, fields.u64()?);
    let times = [("te", fields.u64()?), ("tr", fields.u64()?), ("to", fields.u64()?)];
    let q = fields.u64()?;
    let _ = write!(text, r#"{{"t":"{name}","v":{view},"e":{epoch},"state":"{state}""#);
    match name {
        "state" => hold_is("s of a state", 0, s)?,
        _ => put(text, "s", &s.to_string()),
    }
    match name {
        "delta" | "trades" => put(text, "p", &p.to_string()),
        _ => hold_is("p where there is none", 0, p)?,
    }
    for (key, time_ns) in times.into_iter().filter(|(_, time_ns)| *time_ns != 0) {
        put(text, key, &(time_ns / NANOS_PER_MICRO).to_string());
    }
    match flags & 1 {
        1 => put(text, "q", &q.to_string()),
        _ => hold_is("q that is not known", 0, q)?,
    }
    match name {
        "trades" => trades(&mut fields, scales, s.saturating_sub(p), text)?,
        "state" => reason(&mut fields, text)?,
        _ => book(name, &mut fields, scales, text)?,
    }
    hold_is("bytes behind an update", 0, fields.left.len())?;
    text.push('}');
    Ok(())
}

fn book(
    name: &str,
    fields: &mut Fields<'_>,
    scales: Scales,
    text: &mut String,
) -> Result<(), Broken> {
    let counts = [fields.u32()?, fields.u32()?];
    let trusted = [fields.u32()?, fields.u32()?];
    for (key, count) in [("b", counts[0]), ("a", counts[1])] {
        let mut levels = Vec::new();
        for _ in 0..count {
            levels.push(format!("[{}]", fields.level(scales)?));
        }
        match name {
            "bbo" => {
                hold(count <= 1, RULE, "at most one best price", count)?;
                put(text, key, levels.first().map_or("null", String::as_str));
            }
            _ => put(text, key, &format!("[{}]", levels.join(","))),
        }
    }
    if trusted != [u32::MAX; 2] {
        hold(name == "image", RULE, "that all is trusted", format!("{trusted:?}"))?;
        let told = [0, 1].map(|side| match trusted[side] {
            u32::MAX => counts[side],
            levels => levels,
        });
        put(text, "trusted", &format!("{told:?}"));
    }
    Ok(())
}

fn trades(
    fields: &mut Fields<'_>,
    scales: Scales,
    steps: u64,
    text: &mut String,
) -> Result<(), Broken> {
    let (count, lost) = (fields.u32()?, fields.u32()?);
    let mut trades = Vec::new();
    for _ in 0..count {
        let te_us = fields.u64()? / NANOS_PER_MICRO;
        let level = fields.level(scales)?;
        let id = fields.u64()?;
        let side = match fields.u8()? {
            0 => "",
            1 => "buy",
            2 => "sell",
            other => return Err(Broken::new(RULE, "side 0, 1 or 2", other)),
        };
        fields.zeros("bytes behind a side", 7)?;
        trades.push(format!(r#"[{te_us},{level},"{side}","{id}"]"#));
    }
    put(text, "x", &format!("[{}]", trades.join(",")));
    match lost {
        0 => {}
        u32::MAX => put(text, "lost", &steps.to_string()),
        lost => put(text, "lost", &lost.to_string()),
    }
    Ok(())
}

fn reason(fields: &mut Fields<'_>, text: &mut String) -> Result<(), Broken> {
    put(text, "since", &(fields.u64()? / NANOS_PER_MICRO).to_string());
    let length = fields.u32()? as usize;
    let why = fields.take(length)?;
    fields.zeros("bytes behind a reason", fields.left.len() % 8)?;
    let is_word = why.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
    let why = String::from_utf8_lossy(why);
    hold(is_word, "a reason is a word of the protocol", "letters and _", &why)?;
    put(text, "why", &format!("\"{why}\""));
    Ok(())
}

/// What is left of a frame or record.
struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Broken> {
        let (taken, left) = self.left.split_at_checked(bytes).ok_or_else(|| {
            Broken::new(RULE, format!("{bytes} bytes"), format!("{} left", self.left.len()))
        })?;
        self.left = left;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn u8(&mut self) -> Result<u8, Broken> {
        self.number().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Broken> {
        self.number().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Broken> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Broken> {
        self.number().map(u64::from_le_bytes)
    }

    fn zeros(&mut self, what: &str, bytes: usize) -> Result<(), Broken> {
        let taken = self.take(bytes)?;
        hold(taken.iter().all(|byte| *byte == 0), RULE, format!("{what} 0"), format!("{taken:?}"))
    }

    /// Price and quantity, as two members of a list.
    fn level(&mut self, scales: Scales) -> Result<String, Broken> {
        let (px, qty) = (self.decimal(scales.px)?, self.decimal(scales.qty)?);
        Ok(format!(r#""{px}","{qty}""#))
    }

    fn decimal(&mut self, scale: usize) -> Result<String, Broken> {
        let mantissa = self.number().map(i64::from_le_bytes)?;
        let sign = if mantissa < 0 { "-" } else { "" };
        let digits = format!("{:0>1$}", mantissa.unsigned_abs(), scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        shortest(&format!("{sign}{whole}.{fraction}"))
            .ok_or_else(|| Broken::new(RULE, "a scale of at most 18", scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames that every client is tested with.
    const GOLDEN: &str = include_str!("../../../gateway/core/tests/golden/frames.txt");

    /// Texts and bytes of the golden frames that a subscriber could get.
    fn golden() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        GOLDEN.split("\n\n").filter_map(|block| {
            let field = |key: &'static str| block.lines().filter_map(move |l| l.strip_prefix(key));
            let hex: String = field("bin ").map(|line| line.replace(' ', "")).collect();
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let json = field("json ").next().unwrap();
            let is_report = json.contains("\"stats\"");
            (!is_report).then(|| (json, (0..hex.len()).step_by(2).map(byte).collect()))
        })
    }

    /// An update without what only one of the encodings says of its kind.
    fn common(update: &serde_json::Value) -> serde_json::Value {
        let mut update = update.clone();
        let kind = update["t"].as_str().unwrap().to_owned();
        let fields = update.as_object_mut().unwrap();
        if !matches!(&*kind, "image" | "state") {
            fields.remove("e");
            fields.remove("state");
        }
        for trade in fields.get_mut("x").into_iter().flat_map(|x| x.as_array_mut().unwrap()) {
            if trade[4].as_str().unwrap().parse::<u64>().is_err() {
                trade[4] = "0".into();
            }
        }
        update
    }

    #[test]
    fn golden_frames_are_written_down_as_their_text() {
        let mut frames = 0;
        for (json, bytes) in golden() {
            let transcript = transcribe(&bytes).unwrap();
            let read = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
            let (told, expected) = (read(&transcript.text), read(json));
            for key in ["n", "ts", "late"] {
                assert_eq!(told[key], expected[key], "{json}");
            }
            let updates = |frame: &serde_json::Value| -> Vec<_> {
                frame["u"].as_array().unwrap().iter().map(common).collect()
            };
            assert_eq!(updates(&told), updates(&expected));
            let bytes_in_records: usize = transcript.record_bytes.iter().sum();
            assert_eq!(bytes_in_records + 32, bytes.len());
            frames += 1;
        }
        assert_eq!(frames, 11);
    }

    #[test]
    fn what_is_cut_or_not_zero_is_caught() {
        for (json, bytes) in golden() {
            for length in 0..bytes.len() {
                assert!(transcribe(&bytes[..length]).is_err(), "{json}: {length} bytes");
            }
            for at in [0, 2, 3, 6] {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                assert_eq!(transcribe(&bytes).unwrap_err().rule, RULE, "{json}: byte {at}");
            }
            let longer = [&bytes[..], &[0; 8]].concat();
            assert!(transcribe(&longer).is_err(), "{json}");
        }
    }
}
