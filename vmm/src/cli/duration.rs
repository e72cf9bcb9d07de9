//! Lengths of time on the command line: `5s`, `1m`, `1m 30s`, or a number of seconds.

use std::time::Duration;

/// The longest that a tool looks.
const LONGEST: Duration = Duration::from_secs(86_400);

/// For clap.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    let time = match seconds {
        Some(Ok(time)) => time,
        Some(Err(error)) => return Err(error.to_string()),
        None => humantime::parse_duration(text).map_err(|_| "give a time as 5s, 1m or 0.5".to_owned())?,
    };
    match (Duration::from_millis(1)..=LONGEST).contains(&time) {
        true => Ok(time),
        false => Err("give a time between 1ms and 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_has_a_unit_or_is_seconds() {
        let times =
            [("5", 5000), ("0.25", 250), ("5s", 5000), ("1m", 60_000), ("1m 30s", 90_000), ("250ms", 250)];
        for (text, milliseconds) in times {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for nonsense in ["", "x", "-1", "0", "nan", "NaN", "inf", "five", "2d", "2days", "1e300", "1e400"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
