//! A message → the same, spelt otherwise: nothing else is said, and a client must read it as before.
//!
//! Called by the faulty exchange for changes of books on their way. Pure; a message in which there is
//! nothing to be spelt otherwise is left alone, and the fault waits for another.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::scenario::Kind;
use crate::venue::Dialect;

/// Zero as venues were seen to write it.
const ZEROS: [&str; 5] = ["0.00", "0.0", "0.000", "0.000000", "0.00000000"];

/// What prices and quantities of levels are called where a level is an object.
const NAMES: [&str; 4] = ["price", "qty", "price_level", "new_quantity"];

/// The message as it is spelt by a fault of this kind; `None` when that is no other than it was.
/// `nth` is the place of the first zero's spelling.
pub(super) fn respell(kind: Kind, dialect: Dialect, text: &str, nth: u64) -> Option<String> {
    let mut speller = Speller { kind, dialect, nth, is_other: false };
    let respelt = speller.value(text.trim())?;
    speller.is_other.then_some(respelt)
}

struct Speller {
    kind: Kind,
    dialect: Dialect,
    nth: u64,
    is_other: bool,
}

impl Speller {
    /// `None` when it is no JSON.
    fn value(&mut self, raw: &str) -> Option<String> {
        match raw.as_bytes().first()? {
            b'{' => {
                let Fields(mut fields) = serde_json::from_str(raw).ok()?;
                if self.kind == Kind::FieldOrder && fields.len() > 1 {
                    fields.reverse();
                    self.is_other = true;
                }
                let mut words = Vec::with_capacity(fields.len());
                for (name, value) in fields {
                    let value = if NAMES.contains(&name.as_str()) {
                        self.number(value.get())
                    } else {
                        self.value(value.get())?
                    };
                    words.push(format!("{}:{value}", serde_json::Value::from(name)));
                }
                Some(format!("{{{}}}", words.join(",")))
            }
            b'[' => {
                let values: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
                let is_level = values.iter().all(|value| !value.get().starts_with(['[', '{']));
                let mut words = Vec::with_capacity(values.len());
                let mut numbers = 0;
                for value in values {
                    let raw = value.get();
                    if !is_level {
                        words.push(self.value(raw)?);
                        continue;
                    }
                    let is_number = is_number(raw);
                    // A price, a quantity, and whatever else; Bitfinex has a count between them.
                    let is_counted = self.dialect == Dialect::Bitfinex;
                    let is_ours = if is_counted { numbers != 1 } else { numbers < 2 };
                    numbers += u32::from(is_number);
                    let word = if is_number && is_ours { self.number(raw) } else { raw.to_owned() };
                    words.push(word);
                }
                Some(format!("[{}]", words.join(",")))
            }
            _ => Some(raw.to_owned()),
        }
    }

    /// A price or a quantity, in quotation marks or not.
    fn number(&mut self, raw: &str) -> String {
        let quote = if raw.starts_with('"') { "\"" } else { "" };
        let text = raw.trim_matches('"');
        let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.' | b'-'));
        let respelt = match self.kind {
            Kind::ZeroSpelling if is_zero => {
                let place = self.nth as usize % ZEROS.len();
                self.nth += 1;
                ZEROS[place].to_owned()
            }
            Kind::Exponent => exponent(text),
            _ => return raw.to_owned(),
        };
        self.is_other |= respelt != text;
        format!("{quote}{respelt}{quote}")
    }
}

/// The same number with as many digits and no point, as in `15e-4`.
fn exponent(text: &str) -> String {
    if text.contains(['e', 'E']) {
        return text.to_owned();
    }
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{part}");
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    match part.len() {
        0 => format!("{sign}{digits}e0"),
        places => format!("{sign}{digits}e-{places}"),
    }
}

fn is_number(raw: &str) -> bool {
    let text = raw.trim_matches('"');
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte))
}

/// The fields of an object, in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_kind_is_about_is_spelt_otherwise() {
        let (zero, exponent, order) = (Kind::ZeroSpelling, Kind::Exponent, Kind::FieldOrder);
        for (kind, dialect, text, expected) in [
            (
                zero,
                Dialect::Okx,
                r#"{"b":[["1.50","0","0","0"],["2","0"]],"n":0}"#,
                Some(r#"{"b":[["1.50","0.00","0","0"],["2","0.0"]],"n":0}"#),
            ),
            (
                zero,
                Dialect::Coinbase,
                r#"[["buy","10.0","0.00000000"]]"#,
                Some(r#"[["buy","10.0","0.00"]]"#),
            ),
            (
                zero,
                Dialect::Kraken,
                r#"{"price":1.5,"qty":0.0}"#,
                Some(r#"{"price":1.5,"qty":0.00}"#),
            ),
            (zero, Dialect::Kraken, r#"{"price":1.5,"qty":2.0}"#, None),
            (
                exponent,
                Dialect::BybitSpot,
                r#"{"b":[["0.00150","0"]],"u":7}"#,
                Some(r#"{"b":[["150e-5","0e0"]],"u":7}"#),
            ),
            (exponent, Dialect::Bitfinex, "[7,[10.5,2,-0.25],9]", Some("[7,[105e-1,2,-25e-2],9]")),
            (
                exponent,
                Dialect::KrakenV1,
                r#"[7,{"a":[["10.50","2.0","1534614248.4"]],"c":"974"}]"#,
                Some(r#"[7,{"a":[["1050e-2","20e-1","1534614248.4"]],"c":"974"}]"#),
            ),
            (
                order,
                Dialect::BinanceSpot,
                r#"{"stream":"s","data":{"e":1,"b":[["1","2"]]}}"#,
                Some(r#"{"data":{"b":[["1","2"]],"e":1},"stream":"s"}"#),
            ),
            (order, Dialect::Bitfinex, "[7,[10.5,2,-0.25],9]", None),
            (order, Dialect::Okx, "pong", None),
        ] {
            assert_eq!(respell(kind, dialect, text, 0).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn five_zeros_take_their_turns() {
        let spelt = |nth| respell(Kind::ZeroSpelling, Dialect::Okx, r#"[["9","0"]]"#, nth).unwrap();
        let all: std::collections::BTreeSet<String> = (0..10).map(spelt).collect();
        assert_eq!(all.len(), 5);
    }
}
