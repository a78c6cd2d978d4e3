//! Figures → texts for people.

/// About four digits: `1,272,923`, `123.4`, `1.234`, `0.0123`; whole numbers as they are.
pub(super) fn text(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        _ if size.fract() == 0.0 => 0,
        1_000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        0.1.. => 3,
        0.01.. => 4,
        _ => 6,
    };
    let text = format!("{size:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

/// Nanoseconds with the unit that suits them.
pub(super) fn time(ns: f64) -> String {
    match ns {
        1_000_000_000.0.. => text_of(ns / 1e9, "s"),
        1_000_000.0.. => text_of(ns / 1e6, "ms"),
        1_000.0.. => text_of(ns / 1e3, "µs"),
        _ => text_of(ns, "ns"),
    }
}

/// Three digits and a unit.
fn text_of(value: f64, unit: &str) -> String {
    let decimals = match value {
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_four_digits() {
        let cases = [
            (0.0, "0"),
            (20.0, "20"),
            (1_272_923.0, "1,272,923"),
            (1_234.5, "1,234"),
            (123.44, "123.4"),
            (-1.2344, "−1.234"),
            (0.0123, "0.0123"),
            (f64::NAN, "–"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
        assert_eq!(time(999.0), "999 ns");
        assert_eq!(time(12_345.0), "12.3 µs");
        assert_eq!(time(50_000_000.0), "50 ms");
        assert_eq!(time(2.5e9), "2.50 s");
    }
}
