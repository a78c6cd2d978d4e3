//! The wall clock → nanoseconds, and nanoseconds → the text that venues write.
//!
//! The only place of this package that reads a clock. The synthetic exchange reads it once when it
//! starts; pacing goes by the timer of the runtime, and the market itself runs in virtual time.

/// Nanoseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn wall_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// `2021-04-17T16:48:52.927716Z`, cut to microseconds.
pub fn rfc3339(at_ns: u64) -> String {
    let seconds = at_ns / 1_000_000_000;
    let micros = at_ns / 1_000 % 1_000_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    // Days to a date by years that begin in March, so that the leap day is a year's last.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_as_kraken_does() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_618_678_132_927_716_000), "2021-04-17T16:48:52.927716Z");
        assert_eq!(rfc3339(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000000Z");
    }
}
