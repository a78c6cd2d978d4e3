//! Texts that several venues write alike: arrays, decimals, times.
//!
//! Called by the decoders, on their threads. It knows no venue, and must never guess: what it cannot
//! read exactly is an error or nothing.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickfan_core::decimal::{Decimal, fraction_digits};
use tickfan_core::market::Nanos;

use super::Malformed;

const SECOND_NS: Nanos = 1_000_000_000;

/// Visits every element of an array without collecting them, and returns the first failure.
pub(super) fn each<'m, T: Deserialize<'m>>(
    array: Option<&'m RawValue>,
    name: &'static str,
    visit: impl FnMut(T) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let array = array.ok_or(Malformed::Field(name))?;
    elements(visit)
        .deserialize(&mut serde_json::Deserializer::from_str(array.get()))
        .map_err(|_| Malformed::Field(name))?
}

/// An array that is being read, visited as by [`each`]: for messages too long to be gone through
/// twice.
pub(super) const fn elements<T, F>(visit: F) -> Elements<T, F>
where
    F: FnMut(T) -> Result<(), Malformed>,
{
    Elements(visit, PhantomData)
}

/// See [`elements`].
pub(super) struct Elements<T, F>(F, PhantomData<T>);

impl<'m, T, F> DeserializeSeed<'m> for Elements<T, F>
where
    T: Deserialize<'m>,
    F: FnMut(T) -> Result<(), Malformed>,
{
    type Value = Result<(), Malformed>;

    fn deserialize<D: Deserializer<'m>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'m, T, F> Visitor<'m> for Elements<T, F>
where
    T: Deserialize<'m>,
    F: FnMut(T) -> Result<(), Malformed>,
{
    type Value = Result<(), Malformed>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'m>>(mut self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut first_failure = Ok(());
        while let Some(element) = array.next_element()? {
            let visited = (self.0)(element);
            first_failure = first_failure.and(visited);
        }
        Ok(first_failure)
    }
}

/// Reads a decimal as the venue wrote it and remembers how fine it is written.
#[inline]
pub(super) fn measured(
    text: &str,
    name: &'static str,
    digits: &mut u8,
) -> Result<Decimal, Malformed> {
    let text = text.as_bytes();
    let value = Decimal::parse(text).map_err(|error| Malformed::Number(name, error))?;
    // Zeros are spelt in any number of ways: their digits tell nothing of the others.
    if value.is_zero() {
        return Ok(value);
    }
    // A venue pads the numbers of a symbol alike: most points stand where the last one stood.
    let point = text.len().checked_sub(1 + usize::from(*digits));
    if point.is_none_or(|point| text[point] != b'.') {
        *digits = (*digits).max(fraction_digits(text));
    }
    // An exponent reaches below the digits that are written.
    *digits = (*digits).max(value.scale);
    Ok(value)
}

/// Reads an RFC 3339 time of UTC, `2023-10-06T17:35:55.440295Z`, with at most nine digits behind
/// the second, from 1970 on.
pub(super) fn nanos_of(text: &[u8]) -> Option<Nanos> {
    let (time, fraction) = text.strip_suffix(b"Z")?.split_at_checked(19)?;
    if [4, 7, 10, 13, 16].map(|i| time[i]) != *b"--T::" {
        return None;
    }
    let field = |range: std::ops::Range<usize>| digits(&time[range]);
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    // RFC 3339 allows a leap second.
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    let fraction_ns = match fraction {
        [] => 0,
        [b'.', text @ ..] if (1..=9).contains(&text.len()) => {
            digits(text)? * 10u64.pow(9 - text.len() as u32)
        }
        _ => return None,
    };
    // Years that begin in March put the leap day last, so that months have a regular length.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_since_year_0 =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days_since_year_0 - DAYS_TO_1970;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    seconds.checked_mul(SECOND_NS)?.checked_add(fraction_ns)
}

/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: u64 = 719_468;

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_element_is_visited_and_the_first_failure_told() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let mut seen = Vec::new();
        let mut visit = |text: &str| {
            each(Some(&*raw(text)), "list", |element: u8| {
                seen.push(element);
                if element > 2 { Err(Malformed::Field("element")) } else { Ok(()) }
            })
        };
        assert_eq!(visit("[1, 2]"), Ok(()));
        assert_eq!(visit("[3, 1]"), Err(Malformed::Field("element")));
        assert_eq!(visit("[]"), Ok(()));
        assert_eq!(visit("{}"), Err(Malformed::Field("list")));
        assert_eq!(visit(r#"[1, "2"]"#), Err(Malformed::Field("list")));
        assert_eq!(seen, [1, 2, 3, 1, 1]);
        assert_eq!(each(None, "list", |_: u8| Ok(())), Err(Malformed::Field("list")));
    }

    #[test]
    fn the_finest_writing_of_a_number_is_remembered() {
        let mut digits = 0;
        for (text, expected) in [
            ("7", 0),
            ("0.000", 0),
            ("1.50", 2),
            ("2.75", 2),
            ("3.1", 2),
            ("1.5e-7", 8),
            ("0.00000000", 8),
        ] {
            measured(text, "price", &mut digits).unwrap();
            assert_eq!(digits, expected, "{text}");
        }
        let error = measured("", "price", &mut digits);
        assert!(matches!(error, Err(Malformed::Number("price", _))), "{error:?}");
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.000000001Z", Some(1)),
            ("2000-02-29T23:59:59.5Z", Some(951_868_799_500_000_000)),
            ("2023-10-06T17:35:55.440295Z", Some(1_696_613_755_440_295_000)),
            ("2023-10-06T17:35:55.4402951Z", Some(1_696_613_755_440_295_100)),
            ("2024-12-31T00:00:00.123456789Z", Some(1_735_603_200_123_456_789)),
            ("2024-03-01T00:00:00Z", Some(1_709_251_200_000_000_000)),
            ("9999-01-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2023-10-06T17:35:55", None),
            ("2023-10-06T17:35:55.Z", None),
            ("2023-10-06T17:35:55.1234567890Z", None),
            ("2023-10-06 17:35:55Z", None),
            ("2023-10-06T24:35:55Z", None),
            ("2023-00-06T17:35:55Z", None),
            ("2023-10-06T17:35:55+01:00", None),
            ("Z", None),
            ("", None),
        ] {
            assert_eq!(nanos_of(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = nanos_of(&bytes);
        }

        #[test]
        fn no_time_panics(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?Z") {
            let _ = nanos_of(text.as_bytes());
        }
    }
}
