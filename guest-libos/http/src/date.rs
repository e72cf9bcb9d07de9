//! HTTP dates (RFC 9110 5.6.7): written as IMF-fixdate, read in all three forms. Times are seconds since 1970 UTC,
//! without leap seconds.

/// The length of an IMF-fixdate.
pub const IMF_FIXDATE_BYTES: usize = 29;

/// 9999-12-31 23:59:59 UTC, the last second with a year of four digits.
pub const MAX_UNIX_SECONDS: u64 = 253_402_300_799;

const SECONDS_PER_DAY: u64 = 86_400;
const DAYS: [&[u8]; 7] =
    [b"Sunday", b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`. A time after [`MAX_UNIX_SECONDS`] is written as that.
pub fn format(unix_seconds: u64) -> [u8; IMF_FIXDATE_BYTES] {
    let unix_seconds = unix_seconds.min(MAX_UNIX_SECONDS);
    let days = unix_seconds / SECONDS_PER_DAY;
    let second_of_day = unix_seconds % SECONDS_PER_DAY;
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // 1970 began on a Thursday.
    text[0..3].copy_from_slice(&DAYS[((days + 4) % 7) as usize][..3]);
    text[5..7].copy_from_slice(&two_digits(day));
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    text[12..14].copy_from_slice(&two_digits(year / 100));
    text[14..16].copy_from_slice(&two_digits(year % 100));
    text[17..19].copy_from_slice(&two_digits(second_of_day / 3600));
    text[20..22].copy_from_slice(&two_digits(second_of_day / 60 % 60));
    text[23..25].copy_from_slice(&two_digits(second_of_day % 60));
    text
}

/// The time of an HTTP date in any of its forms; `None` for what is not one, and for times before 1970, which are
/// before every file's. A year of two digits that would lie more than 50 years after `now_unix_seconds` is in the
/// past (RFC 9110 5.6.7).
pub fn parse(text: &[u8], now_unix_seconds: u64) -> Option<u64> {
    let comma = text.iter().position(|&byte| byte == b',');
    match comma {
        Some(3) => parse_imf_fixdate(text),
        Some(at) => parse_rfc850(text, at, now_unix_seconds),
        None => parse_asctime(text),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn parse_imf_fixdate(text: &[u8]) -> Option<u64> {
    let text: &[u8; IMF_FIXDATE_BYTES] = text.try_into().ok()?;
    day_name(&text[..3])?;
    if [text[4], text[7], text[11], text[16]] != [b' '; 4] || text[25..] != *b" GMT" {
        return None;
    }
    let year = number(&text[12..16])?;
    seconds(year, month(&text[8..11])?, number(&text[5..7])?, time_of_day(&text[17..25])?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn parse_rfc850(text: &[u8], comma: usize, now_unix_seconds: u64) -> Option<u64> {
    let (day, rest) = text.split_at_checked(comma)?;
    if !DAYS.contains(&day) {
        return None;
    }
    let rest: &[u8; 24] = rest.try_into().ok()?;
    if rest[..2] != *b", " || [rest[4], rest[8]] != [b'-'; 2] || rest[11] != b' ' || rest[20..] != *b" GMT" {
        return None;
    }
    let (year_now, _, _) = civil_from_days(now_unix_seconds.min(MAX_UNIX_SECONDS) / SECONDS_PER_DAY);
    let mut year = year_now / 100 * 100 + number(&rest[9..11])?;
    if year > year_now + 50 {
        year = year.checked_sub(100)?;
    }
    seconds(year, month(&rest[5..8])?, number(&rest[2..4])?, time_of_day(&rest[12..20])?)
}

/// `Sun Nov  6 08:49:37 1994`
fn parse_asctime(text: &[u8]) -> Option<u64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    day_name(&text[..3])?;
    if [text[3], text[7], text[10], text[19]] != [b' '; 4] {
        return None;
    }
    let day = if text[8] == b' ' { number(&text[9..10])? } else { number(&text[8..10])? };
    seconds(number(&text[20..24])?, month(&text[4..7])?, day, time_of_day(&text[11..19])?)
}

fn day_name(text: &[u8]) -> Option<()> {
    DAYS.iter().any(|day| &day[..3] == text).then_some(())
}

fn month(text: &[u8]) -> Option<u64> {
    MONTHS.iter().position(|month| *month == text).map(|index| index as u64 + 1)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Seconds of `08:49:37`. A leap second (60) counts as the second after it.
fn time_of_day(text: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *text else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn seconds(year: u64, month: u64, day: u64, second_of_day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || day == 0 || day > days_in_month {
        return None;
    }
    Some(days_from_civil(year, month, day) * SECONDS_PER_DAY + second_of_day)
}

fn two_digits(number: u64) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Days of four centuries, after which the calendar repeats; and from March 1 of the year 0 to 1970, because the
/// computation lets a year begin in March, with the leap day at its end.
const DAYS_PER_ERA: u64 = 146_097;
const DAYS_FROM_YEAR_0_TO_1970: u64 = 719_468;

/// Year, month, day of a day since 1970.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_YEAR_0_TO_1970;
    let era = days / DAYS_PER_ERA;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day since 1970 of a date from then on.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_FROM_YEAR_0_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_750_000_000;
    /// The date of the examples in RFC 9110 5.6.7.
    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn format_known_times() {
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&format(4_107_542_399), b"Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(&format(4_107_542_400), b"Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(&format(MAX_UNIX_SECONDS), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format(u64::MAX), format(MAX_UNIX_SECONDS));
    }

    #[test]
    fn parse_all_three_forms() {
        for text in [
            &b"Sun, 06 Nov 1994 08:49:37 GMT"[..],
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text, NOW), Some(EXAMPLE), "{}", text.escape_ascii());
        }
        assert_eq!(parse(b"Wed Nov 16 08:49:37 1994", NOW), Some(EXAMPLE + 10 * SECONDS_PER_DAY));
    }

    #[test]
    fn parse_two_digit_year_lies_at_most_50_years_ahead() {
        let year = |text: &[u8]| civil_from_days(parse(text, NOW).unwrap() / SECONDS_PER_DAY).0;
        assert_eq!(year(b"Sunday, 01-Jan-75 00:00:00 GMT"), 2075);
        assert_eq!(year(b"Sunday, 01-Jan-76 00:00:00 GMT"), 1976);
    }

    #[test]
    fn parse_leap_second_and_leap_days() {
        assert_eq!(
            parse(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW),
            parse(b"Sun, 01 Jan 2017 00:00:00 GMT", NOW)
        );
        assert!(parse(b"Tue, 29 Feb 2000 00:00:00 GMT", NOW).is_some());
        assert!(parse(b"Thu, 29 Feb 2024 00:00:00 GMT", NOW).is_some());
        assert!(parse(b"Mon, 29 Feb 2100 00:00:00 GMT", NOW).is_none());
        assert!(parse(b"Wed, 29 Feb 2023 00:00:00 GMT", NOW).is_none());
    }

    #[test]
    fn parse_invalid_date_returns_none() {
        for text in [
            &b""[..],
            b"0",
            b"Sun, 06 Nov 1994 08:49:37",
            b"Sun, 06 Nov 1994 08:49:37 UTC",
            b"Sun, 06 Nov 1994 08:49:37 GMT ",
            b"Xxx, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 nov 1994 08:49:37 GMT",
            b"Sun, 00 Nov 1994 08:49:37 GMT",
            b"Sun, 31 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 24:49:37 GMT",
            b"Sun, 06 Nov 1994 08:60:37 GMT",
            b"Sun, 06 Nov 1994 08:49:61 GMT",
            b"Sun, 06 Nov +994 08:49:37 GMT",
            b"Sun, 06 Nov 1969 08:49:37 GMT",
            b"Sun,06 Nov 1994 08:49:37 GMT ",
            b"Sunday, 06-Nov-1994 08:49:37 GMT",
            b"Someday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov 06 08:49:37 1994 GMT",
            b"Sun Nov   08:49:37 1994",
            b"1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse(text, NOW), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn civil_date_of_every_day_until_9999_round_trips_and_advances() {
        let mut previous = (1969, 12, 31);
        for day in 0..=MAX_UNIX_SECONDS / SECONDS_PER_DAY {
            let (year, month, day_of_month) = civil_from_days(day);
            assert!((year, month, day_of_month) > previous);
            assert_eq!(days_from_civil(year, month, day_of_month), day);
            previous = (year, month, day_of_month);
        }
        assert_eq!(previous, (9999, 12, 31));
    }

    proptest! {
        #[test]
        fn parse_format_returns_the_time(time in 0..=MAX_UNIX_SECONDS) {
            prop_assert_eq!(parse(&format(time), NOW), Some(time));
        }

        #[test]
        fn parse_any_bytes_never_panics(
            text in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            now in any::<u64>(),
        ) {
            let _ = parse(&text, now);
            for example in [&b"Sun, 06 Nov 1994 08:49:37 GMT"[..], b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"] {
                let mut changed = example.to_vec();
                let at = at.index(changed.len());
                changed[at] = byte;
                let _ = parse(&changed, now);
            }
        }
    }
}
