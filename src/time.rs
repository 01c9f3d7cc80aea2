//! Points and lengths of time, and how the language writes them. There is no clock here: a time comes in from outside.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus a length; it stays at the largest time rather than wrap.
    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it is from an earlier time to this one; zero if that time is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-11-20T12:00:00.000Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(time) => write!(formatter, "{time:.3}"),
            Err(_) => write!(formatter, "{millis} ms"),
        }
    }
}

/// Why a text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text has another form than the language's.
    #[error("`{0}` is not a duration")]
    Form(String),
    /// Zero or less: nothing can be bounded by it.
    #[error("a duration must be more than zero")]
    NotPositive,
    /// More than the engine can count.
    #[error("the duration is too long; the longest is 36500d")]
    TooLong,
}

/// Reads `250ms`, `30s`, `5m`, `1h30m`, `2d`, a fraction of one unit (`1.5s`), or ISO 8601 (`PT1H30M`, `P2D`).
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let form = || DurationError::Form(text.to_owned());
    let (body, iso) = match text.strip_prefix('P') {
        Some(body) => (body, true),
        None => (text, false),
    };
    if text.starts_with('-') {
        let rest = text.trim_start_matches('-');
        return Err(if parse_duration(rest).is_ok() { DurationError::NotPositive } else { form() });
    }
    let millis = if iso { iso_millis(body).ok_or_else(form)? } else { plain_millis(body).ok_or_else(form)? };
    if millis <= 0.0 {
        return Err(DurationError::NotPositive);
    }
    if millis > 36_500.0 * 86_400_000.0 {
        return Err(DurationError::TooLong);
    }
    Ok(Duration::from_micros((millis * 1000.0).round() as u64))
}

fn plain_millis(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 5] =
        [("d", 86_400_000.0), ("h", 3_600_000.0), ("m", 60_000.0), ("s", 1000.0), ("ms", 1.0)];
    let mut rest = text;
    let mut total = 0.0;
    let mut parts = 0;
    let mut fraction = false;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let place = UNITS.iter().position(|(name, _)| *name == unit)?;
        if place < next_unit || number.starts_with('.') || number.ends_with('.') {
            return None;
        }
        next_unit = place + 1;
        fraction |= number.contains('.');
        total += number.parse::<f64>().ok()? * UNITS[place].1;
        parts += 1;
        rest = behind;
    }
    (parts > 0 && (!fraction || parts == 1)).then_some(total)
}

fn iso_millis(text: &str) -> Option<f64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return None,
        None => (text, ""),
    };
    let part = |text: &str, units: &[(char, f64)]| -> Option<f64> {
        let mut rest = text;
        let mut total = 0.0;
        let mut next_unit = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let letter = rest[end..].chars().next()?;
            let place = units.iter().position(|(name, _)| *name == letter)?;
            if place < next_unit {
                return None;
            }
            next_unit = place + 1;
            total += rest[..end].parse::<f64>().ok()? * units[place].1;
            rest = &rest[end + letter.len_utf8()..];
        }
        Some(total)
    };
    let days = part(date, &[('W', 604_800_000.0), ('D', 86_400_000.0)])?;
    let clock = part(time, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1000.0)])?;
    (!date.is_empty() || !time.is_empty()).then_some(days + clock)
}

/// Writes a length as the language does, in the largest units that hold it exactly: `1h30m`, `250ms`.
pub fn format_duration(length: Duration) -> String {
    let mut millis = length.as_millis();
    if millis == 0 {
        return "0ms".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_language_are_read() {
        let check =
            |text: &str, millis: u64| assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        check("250ms", 250);
        check("30s", 30_000);
        check("1h30m", 5_400_000);
        check("2d", 172_800_000);
        check("1.5s", 1500);
        check("PT30S", 30_000);
        check("PT1H30M", 5_400_000);
        check("P1DT12H", 129_600_000);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["5 minutes", "1.5.2s", "soon", "", "30", "1m1h", "1.5h30m", "PT", "P", "s", "1x", "1.s"] {
            assert!(matches!(parse_duration(text), Err(DurationError::Form(_))), "{text}");
        }
        for text in ["0s", "-3s", "PT0S"] {
            assert_eq!(parse_duration(text), Err(DurationError::NotPositive), "{text}");
        }
        assert_eq!(parse_duration("99999999d"), Err(DurationError::TooLong));
    }

    #[test]
    fn a_written_duration_reads_back() {
        for millis in [1, 250, 1000, 5_400_000, 90_061_001] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(length)), Ok(length));
        }
    }
}
