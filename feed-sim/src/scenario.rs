//! A TOML file or a JSON body → a schedule of faults: what goes wrong, at which symbol, when.
//!
//! Called by the binary, by whoever breaks a connection by hand (`POST /faults`) and by the certifier.
//! It reads and checks; what a fault does is the affair of [`crate::fault`]. An error names the line
//! and what to write instead.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use toml::Spanned;

mod kind;
mod library;

pub use kind::Kind;
pub use library::{library, library_text};

/// After a scenario's end a client has this long to be right again, unless the file says otherwise.
const RIGHT_WITHIN_MS: u64 = 10_000;

/// Faults of one scenario.
const FAULTS_MAX: usize = 64;

/// A fault is over after this long at the latest.
const FOR_MS_MAX: u64 = 3_600_000;

/// The longest frame that may be announced.
const BYTES_MAX: usize = 256 << 20;

/// How far an image may lag behind the stream, or lead it.
const UPDATES_MAX: i64 = 8;

/// How far the venue's clock may step: a century, so that its times stay times.
const STEP_MS_MAX: u64 = 3_155_760_000_000;

/// Symbols that an exchange may have.
const SYMBOLS_MAX: usize = 2_000;

/// A schedule of faults.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How it is called.
    pub name: String,
    /// What happens, and what a client has to make of it, in one line.
    pub about: String,
    /// From its end until a client must be right again.
    pub right_within_ms: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// One fault of a schedule. Without `at_ms`, `message` and `one_in` it happens at the first chance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// At which symbol; when it is not said, at any, or at all where that can be.
    pub symbol: Option<SymbolName>,
    /// Not before this time, counted from the beginning of the scenario.
    pub at_ms: Option<u64>,
    /// From the message of this number about the symbol's book on, counted from 1 since `at_ms`.
    pub message: Option<u64>,
    /// Each message with this chance, as in 1 in 50.
    pub one_in: Option<u64>,
    /// To so many messages.
    pub count: Option<u64>,
    /// For how long.
    pub for_ms: Option<u64>,
    /// How many bytes of the frame pass before it is cut, or how many a giant frame has.
    pub bytes: Option<usize>,
    /// By how many updates an image is older than the stream; newer when negative.
    pub updates: Option<i64>,
    /// How far the venue's clock steps.
    pub step_ms: Option<i64>,
}

/// A symbol as the venue spells it, or its place among the symbols, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a symbol as the venue spells it, or its place, from 0")]
pub enum SymbolName {
    /// Its place, from 0.
    Place(usize),
    /// As the venue spells it.
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    right_within_ms: Option<u64>,
    fault: Vec<Spanned<Fault>>,
}

impl Scenario {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        let (name, about) = ("calm".to_owned(), "Nothing goes wrong.".to_owned());
        Self { name, about, right_within_ms: RIGHT_WITHIN_MS, faults: Vec::new() }
    }

    /// The scenario of a file, or that of the library with this name.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub fn load(name: &str) -> Result<Self> {
        if let Some(text) = library_text(name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "toml") {
            let names: Vec<&str> = library().map(|(name, _)| name).collect();
            bail!(
                "there is no scenario {name:?} in the library; there are {}, and any FILE.toml",
                names.join(", ")
            );
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        Self::parse(&stem, &text)
    }

    /// Reads the text of a scenario file.
    ///
    /// # Errors
    /// When it is not one: the message names the line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let file: File =
            toml::from_str(text).map_err(|error| anyhow!("scenario {name}: {error}"))?;
        if file.fault.len() > FAULTS_MAX {
            let count = file.fault.len();
            bail!(
                "scenario {name}: {count} faults, of which there may be {FAULTS_MAX}; use `count`"
            );
        }
        let mut faults = Vec::new();
        for fault in file.fault {
            let line = 1 + text[..fault.span().start].matches('\n').count();
            let fault = fault.into_inner();
            fault.check().with_context(|| format!("scenario {name}, line {line}"))?;
            faults.push(fault);
        }
        let right_within_ms = file.right_within_ms.unwrap_or(RIGHT_WITHIN_MS);
        Ok(Self { name: name.to_owned(), about: file.about, right_within_ms, faults })
    }
}

impl Fault {
    /// Reads one fault in JSON.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_json(text: &str) -> Result<Self> {
        let fault: Self = serde_json::from_str(text)
            .map_err(|error| anyhow!("{error}; expected a fault, as in {{\"kind\":\"gap\"}}"))?;
        fault.check()?;
        Ok(fault)
    }

    /// Each field that is given says something about a fault of this kind, and can be.
    fn check(&self) -> Result<()> {
        let takes = self.kind.takes();
        let given = [
            ("symbol", self.symbol.is_some()),
            ("message", self.message.is_some()),
            ("one_in", self.one_in.is_some()),
            ("count", self.count.is_some()),
            ("for_ms", self.for_ms.is_some()),
            ("bytes", self.bytes.is_some()),
            ("updates", self.updates.is_some()),
            ("step_ms", self.step_ms.is_some()),
        ];
        for (field, is_given) in given {
            if is_given && !takes.contains(&field) {
                bail!(
                    "`{field}` says nothing about {}, which takes at_ms, {}; leave it out",
                    self.kind.name(),
                    takes.join(", ")
                );
            }
        }
        if self.one_in.is_some() && self.message.is_some() {
            bail!("`message` and `one_in` exclude each other: a certain message, or any by chance");
        }
        let is_drawn = self.one_in.is_some();
        if takes.contains(&"one_in") && self.for_ms.is_some() && !is_drawn {
            bail!("`for_ms` says here for how long messages are drawn, so it needs `one_in`");
        }
        for (field, number) in
            [("message", self.message), ("one_in", self.one_in), ("count", self.count)]
        {
            if number == Some(0) {
                bail!("`{field}` is 0; it counts from 1");
            }
        }
        if self.for_ms.is_some_and(|for_ms| for_ms > FOR_MS_MAX) {
            bail!("`for_ms` is over {FOR_MS_MAX}, which is an hour; shorten it");
        }
        if self.bytes.is_some_and(|bytes| bytes > BYTES_MAX) {
            bail!("`bytes` is over {BYTES_MAX}; a frame of that size is giant enough");
        }
        if self.step_ms.is_some_and(|step_ms| step_ms.unsigned_abs() > STEP_MS_MAX) {
            bail!("`step_ms` is over {STEP_MS_MAX}, which is a century; an hour does");
        }
        if matches!(self.symbol, Some(SymbolName::Place(place)) if place >= SYMBOLS_MAX) {
            bail!("`symbol` is a place from 0 to {}, or a name", SYMBOLS_MAX - 1);
        }
        if self.updates.is_some_and(|updates| updates.abs() > UPDATES_MAX || updates == 0) {
            bail!("`updates` must be from -{UPDATES_MAX} to {UPDATES_MAX}, and not 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Scenario::parse("mine", text).unwrap_err())
    }

    #[test]
    fn every_scenario_of_the_library_is_one() {
        assert!(library().count() >= 20);
        for (name, text) in library() {
            let scenario = Scenario::load(name).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(!scenario.faults.is_empty(), "{name}");
            assert!(!scenario.about.contains('\n'), "{name}");
            assert!(text.starts_with('#'), "{name} does not say what it is for");
        }
    }

    #[test]
    fn every_kind_is_in_the_library() {
        let used: Vec<Kind> = library()
            .flat_map(|(name, text)| Scenario::parse(name, text).unwrap().faults)
            .map(|fault| fault.kind)
            .collect();
        for kind in Kind::ALL {
            assert!(used.contains(&kind), "{} is in no scenario", kind.name());
        }
    }

    #[test]
    fn an_error_names_the_line_and_a_way_out() {
        let head = "about = \"A\"\n\n[[fault]]\n";
        for (fault, says) in [
            ("kind = \"gap\"\nbytes = 3\n", "line 3: `bytes` says nothing about gap"),
            ("kind = \"gap\"\ncount = 0\n", "line 3: `count` is 0; it counts from 1"),
            ("kind = \"gap\"\none_in = 2\nmessage = 1\n", "exclude each other"),
            ("kind = \"gap\"\nfor_ms = 5\n", "it needs `one_in`"),
            ("kind = \"gab\"\n", "line 4"),
            ("kind = \"gab\"\n", "`gap`"),
            ("kind = \"gap\"\nsymbl = 1\n", "unknown field `symbl`"),
            ("kind = \"gap\"\nsymbol = true\n", "a symbol as the venue spells it"),
            ("kind = \"stale-image\"\nupdates = 9\n", "from -8 to 8"),
            ("kind = \"silence\"\nfor_ms = 3600001\n", "shorten it"),
            ("kind = \"giant\"\nbytes = 1000000000\n", "giant enough"),
            ("kind = \"clock-step\"\nstep_ms = -9223372036854775808\n", "an hour does"),
            ("kind = \"gap\"\nsymbol = 2000\n", "from 0 to 1999"),
        ] {
            let error = error(&format!("{head}{fault}"));
            assert!(error.contains(says), "{error}");
        }
        assert!(format!("{:#}", Scenario::load("gab").unwrap_err()).contains("gap"));
    }

    #[test]
    fn the_same_words_do_in_json() {
        let fault = Fault::from_json(r#"{"kind":"cut","symbol":"ADAUSDT","bytes":3}"#).unwrap();
        assert_eq!(fault.kind, Kind::Cut);
        assert_eq!(fault.symbol, Some(SymbolName::Name("ADAUSDT".to_owned())));
        assert!(Fault::from_json(r#"{"kind":"cut","count":3}"#).is_err());
        assert!(Fault::from_json("3").is_err());
    }
}
