//! Exact decimals: venue text → mantissa and scale, and back to the shortest text.
//!
//! Called by the venue decoders for every price and quantity, and by the encoders. It never goes
//! through a binary float and never rounds: what does not fit is an error.

use thiserror::Error;

/// The largest number of decimal digits behind the point that a price or quantity may carry.
pub const SCALE_MAX: u8 = 18;

const POWERS: [i64; SCALE_MAX as usize + 1] = {
    let mut powers = [1i64; SCALE_MAX as usize + 1];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// A text of this many digits fits an `i64` whatever they are.
const PLAIN_BYTES_MAX: usize = 18;

/// Why a text is no decimal that we can hold exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// The text is not a decimal number.
    #[error("not a decimal number")]
    Malformed,
    /// The number does not fit a 64-bit mantissa at the scale that is needed.
    #[error("does not fit 64 bits")]
    Overflow,
    /// The number has more digits behind the point than the scale asked for.
    #[error("finer than the scale")]
    TooFine,
}

/// An exact decimal, `mantissa / 10^scale`, with the fewest digits that hold its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decimal {
    /// The digits as an integer.
    pub mantissa: i64,
    /// How many of the digits stand behind the point, at most [`SCALE_MAX`].
    pub scale: u8,
}

impl Decimal {
    /// Reads `-12.50`, `.5`, `7.` or `1e-8` exactly; trailing zeros of the fraction are dropped.
    ///
    /// # Errors
    /// [`DecimalError::Malformed`] for anything else, [`DecimalError::Overflow`] when the digits do
    /// not fit an `i64` or reach below `10^-18`.
    #[inline]
    pub fn parse(text: &[u8]) -> Result<Self, DecimalError> {
        match Self::parse_plain(text) {
            Some(plain) => Ok(plain),
            None => Self::parse_any(text),
        }
    }

    /// Reads what venues nearly always write, digits with at most one point, and too short to
    /// overflow; anything else is left to [`Decimal::parse_any`].
    #[inline]
    fn parse_plain(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > PLAIN_BYTES_MAX {
            return None;
        }
        let kept = text.len() - text.iter().rev().take_while(|byte| **byte == b'0').count();
        let mut mantissa: i64 = 0;
        let mut point = None;
        for (i, byte) in text[..kept].iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                mantissa = mantissa * 10 + i64::from(digit);
            } else if *byte == b'.' && point.is_none() && text.len() > 1 {
                point = Some(i);
            } else {
                return None;
            }
        }
        match point {
            Some(point) => Some(Self { mantissa, scale: (kept - point - 1) as u8 }),
            // The zeros stand before the point, where they count.
            None => Some(Self { mantissa: mantissa * POWERS[text.len() - kept], scale: 0 }),
        }
    }

    fn parse_any(text: &[u8]) -> Result<Self, DecimalError> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let mut mantissa: u64 = 0;
        let mut scale: i32 = 0;
        // Zeros behind the point count only once a digit follows them.
        let mut pending_zeros: i32 = 0;
        let mut point = false;
        let mut any_digit = false;
        let mut i = 0;
        while i < digits.len() {
            match digits[i] {
                b'0' if point => {
                    pending_zeros += 1;
                    any_digit = true;
                }
                digit @ b'0'..=b'9' => {
                    while pending_zeros > 0 {
                        mantissa = mantissa.checked_mul(10).ok_or(DecimalError::Overflow)?;
                        pending_zeros -= 1;
                        scale += 1;
                    }
                    mantissa = mantissa
                        .checked_mul(10)
                        .and_then(|m| m.checked_add(u64::from(digit - b'0')))
                        .ok_or(DecimalError::Overflow)?;
                    scale += i32::from(point);
                    any_digit = true;
                }
                b'.' if !point => point = true,
                b'e' | b'E' if any_digit => {
                    return Self::with_exponent(negative, mantissa, scale, &digits[i + 1..]);
                }
                _ => return Err(DecimalError::Malformed),
            }
            i += 1;
        }
        if !any_digit {
            return Err(DecimalError::Malformed);
        }
        Self::build(negative, mantissa, scale)
    }

    fn with_exponent(
        negative: bool,
        mantissa: u64,
        scale: i32,
        exponent: &[u8],
    ) -> Result<Self, DecimalError> {
        let (minus, digits) = match exponent {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, exponent),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(DecimalError::Malformed);
        }
        if mantissa == 0 {
            return Ok(Self::default());
        }
        // An exponent beyond three digits is out of reach whatever the mantissa.
        let significant = digits.iter().skip_while(|d| **d == b'0');
        if significant.clone().count() > 3 {
            return Err(DecimalError::Overflow);
        }
        let exponent = significant.fold(0i32, |e, d| e * 10 + i32::from(d - b'0'));
        Self::build(negative, mantissa, if minus { scale + exponent } else { scale - exponent })
    }

    fn build(negative: bool, mut mantissa: u64, mut scale: i32) -> Result<Self, DecimalError> {
        if mantissa == 0 {
            return Ok(Self::default());
        }
        while scale < 0 {
            mantissa = mantissa.checked_mul(10).ok_or(DecimalError::Overflow)?;
            scale += 1;
        }
        // Only an exponent can leave zeros here: `10e-1`.
        while scale > 0 && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            scale -= 1;
        }
        if scale > i32::from(SCALE_MAX) {
            return Err(DecimalError::Overflow);
        }
        let mantissa = i64::try_from(mantissa).map_err(|_| DecimalError::Overflow)?;
        Ok(Self { mantissa: if negative { -mantissa } else { mantissa }, scale: scale as u8 })
    }

    /// The mantissa of this value at `scale` digits behind the point.
    ///
    /// # Errors
    /// [`DecimalError::TooFine`] when digits would be lost, [`DecimalError::Overflow`] when the
    /// mantissa would not fit or `scale` is over [`SCALE_MAX`].
    #[inline]
    pub fn at_scale(self, scale: u8) -> Result<i64, DecimalError> {
        if self.scale == scale {
            return Ok(self.mantissa);
        }
        if self.scale > scale {
            return Err(DecimalError::TooFine);
        }
        let power = POWERS.get(usize::from(scale - self.scale)).ok_or(DecimalError::Overflow)?;
        self.mantissa.checked_mul(*power).ok_or(DecimalError::Overflow)
    }

    /// Zero, in whatever spelling it came.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }
}

/// How many digits the text writes behind its point: `0.10` has 2. Some venues' checksums count
/// digits as they were sent.
pub fn fraction_digits(text: &[u8]) -> u8 {
    match text.iter().position(|b| *b == b'.') {
        Some(point) => {
            let digits = text[point + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            u8::try_from(digits).unwrap_or(u8::MAX)
        }
        None => 0,
    }
}

/// Appends `mantissa / 10^scale` as its shortest exact decimal: no exponent, no trailing zeros, no
/// trailing point.
pub fn write_decimal(mantissa: i64, scale: u8, out: &mut Vec<u8>) {
    if mantissa < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(mantissa.unsigned_abs()).as_bytes();
    let scale = usize::from(scale);
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if let Some(last) = fraction.iter().rposition(|digit| *digit != b'0') {
        out.push(b'.');
        out.resize(out.len() + scale - fraction.len(), b'0');
        out.extend_from_slice(&fraction[..=last]);
    }
}

/// Appends an integer in decimal digits.
pub fn write_integer(integer: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(mantissa: i64, scale: u8) -> String {
        let mut out = Vec::new();
        write_decimal(mantissa, scale, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_every_spelling_of_the_venues() {
        for (input, mantissa, scale) in [
            ("45283.5", 452_835, 1),
            ("0.10000000", 1, 1),
            ("61737.63000000", 6_173_763, 2),
            ("100", 100, 0),
            ("0.0", 0, 0),
            ("0.00000000", 0, 0),
            ("-0", 0, 0),
            ("-12.50", -125, 1),
            (".5", 5, 1),
            ("7.", 7, 0),
            ("1e-08", 1, 8),
            ("2E3", 2000, 0),
            ("10e-1", 1, 0),
            ("0e999999", 0, 0),
            ("9223372036854775807", i64::MAX, 0),
        ] {
            assert_eq!(
                Decimal::parse(input.as_bytes()),
                Ok(Decimal { mantissa, scale }),
                "{input}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_number_and_what_does_not_fit() {
        for input in ["", "-", ".", "1.2.3", "1e", "e5", "NaN", "inf", "+1", " 1", "1 ", "0x10"] {
            assert_eq!(Decimal::parse(input.as_bytes()), Err(DecimalError::Malformed), "{input}");
        }
        for input in
            ["9223372036854775808", "1e-400", "1e19", "0.0000000000000000001", "99999999999e9999"]
        {
            assert_eq!(Decimal::parse(input.as_bytes()), Err(DecimalError::Overflow), "{input}");
        }
    }

    #[test]
    fn a_scale_is_reached_exactly_or_not_at_all() {
        let value = Decimal::parse(b"0.125").unwrap();
        assert_eq!(value.at_scale(3), Ok(125));
        assert_eq!(value.at_scale(8), Ok(12_500_000));
        assert_eq!(value.at_scale(2), Err(DecimalError::TooFine));
        let large = Decimal::parse(b"92233720369").unwrap();
        assert_eq!(large.at_scale(8), Err(DecimalError::Overflow));
        assert_eq!(large.at_scale(99), Err(DecimalError::Overflow));
    }

    #[test]
    fn writes_the_shortest_text() {
        for (mantissa, scale, expected) in [
            (0, 8, "0"),
            (4_528_300, 2, "45283"),
            (1, 8, "0.00000001"),
            (10_000_000, 8, "0.1"),
            (-125, 1, "-12.5"),
            (100, 0, "100"),
            (i64::MIN, 18, "-9.223372036854775808"),
        ] {
            assert_eq!(text(mantissa, scale), expected);
        }
    }

    #[test]
    fn counts_digits_as_written() {
        assert_eq!(fraction_digits(b"0.00100000"), 8);
        assert_eq!(fraction_digits(b"5."), 0);
        assert_eq!(fraction_digits(b"45283"), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(mantissa in any::<i64>(), scale in 0u8..=18) {
            prop_assume!(mantissa != i64::MIN);
            let read = Decimal::parse(text(mantissa, scale).as_bytes()).unwrap();
            prop_assert_eq!(read.at_scale(scale), Ok(mantissa));
        }

        #[test]
        fn the_short_way_reads_what_the_long_way_reads(text in "[0-9.]{0,20}") {
            prop_assert_eq!(Decimal::parse(text.as_bytes()), Decimal::parse_any(text.as_bytes()));
        }

        #[test]
        fn no_text_panics(input in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Decimal::parse(&input);
            let _ = fraction_digits(&input);
        }
    }
}
