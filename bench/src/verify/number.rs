//! Decimal texts → exact integers and the shortest text of the same value.
//!
//! Called by the expectations (texts as a venue writes them) and by the mirrors (texts as the
//! protocol demands them). Text and integers only; a number that cannot be held exactly is refused.

/// Digits behind the point that are kept.
const SCALE: usize = 18;

/// Digits before the point that fit beside them.
const WHOLE_MAX: usize = 20;

/// The value of a decimal as the protocol writes it, as an integer at 18 digits behind the point;
/// `None` when the text is not the shortest exact decimal.
pub(crate) fn exact(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, fraction)) if fraction.is_empty() || fraction.ends_with('0') => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let is_short = whole == "0" || !whole.starts_with('0');
    if !is_short || whole.is_empty() || whole.len() > WHOLE_MAX || fraction.len() > SCALE {
        return None;
    }
    let mut value = 0i128;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i128::from(byte - b'0');
    }
    if negative && value == 0 {
        return None;
    }
    for _ in fraction.len()..SCALE {
        value *= 10;
    }
    Some(if negative { -value } else { value })
}

/// The shortest text of a decimal that a venue wrote with too many zeros or with an exponent; `None`
/// when it is none.
pub(crate) fn shortest(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let plain;
    let digits = match digits.split_once(['e', 'E']) {
        Some((digits, exponent)) => {
            plain = shifted(digits, exponent.parse().ok()?)?;
            &plain
        }
        None => digits,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = match whole.trim_start_matches('0') {
        "" if !whole.is_empty() => "0",
        trimmed => trimmed,
    };
    let short = match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    };
    let short = if short == "0" { short } else { format!("{sign}{short}") };
    exact(&short).map(|_| short)
}

/// The digits with their point moved to the right, or by a negative number to the left.
fn shifted(digits: &str, by: i32) -> Option<String> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() {
        return None;
    }
    let zeros = "0".repeat(usize::try_from(by.unsigned_abs()).ok().filter(|by| *by <= SCALE)?);
    let all = format!("{zeros}{whole}{fraction}{zeros}");
    let point = i32::try_from(zeros.len() + whole.len()).ok()?.checked_add(by)?;
    let (whole, fraction) = all.split_at_checked(usize::try_from(point).ok()?)?;
    Some(format!("{whole}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_shortest_form_and_no_other() {
        const ONE: i128 = 1_000_000_000_000_000_000;
        assert_eq!(exact("0"), Some(0));
        assert_eq!(exact("45283"), Some(45_283 * ONE));
        assert_eq!(exact("0.1"), Some(ONE / 10));
        assert_eq!(exact("-10.25"), Some(-10 * ONE - ONE / 4));
        assert_eq!(exact("0.000000000000000001"), Some(1));
        for text in
            ["", "-", "-0", "00", "01", "1.", ".5", "1.0", "1.50", "1e3", "1,5", "+1", "0x1"]
        {
            assert_eq!(exact(text), None, "{text}");
        }
        assert_eq!(exact("0.0000000000000000001"), None, "finer than is held");
    }

    #[test]
    fn shortens_what_venues_write() {
        for (text, short) in [
            ("61837.63000000", "61837.63"),
            ("0.00000000", "0"),
            ("100", "100"),
            ("00010.0", "10"),
            ("-0.50", "-0.5"),
            ("-0.0", "0"),
            ("1e-8", "0.00000001"),
            ("2.50E-8", "0.000000025"),
            ("-1.25e1", "-12.5"),
            ("12e+2", "1200"),
        ] {
            assert_eq!(shortest(text).as_deref(), Some(short), "{text}");
        }
        for text in ["", ".", "1e", "e1", "1e-99", "1e1.0", "abc"] {
            assert_eq!(shortest(text), None, "{text}");
        }
    }
}
