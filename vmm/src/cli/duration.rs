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
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        for nonsense in ["", "-1", "0", "five", "2d", "1e400", "NaN"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
