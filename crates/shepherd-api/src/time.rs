//! Times as text: ISO 8601 for JSON, the HTTP date for headers.
//!
//! Written by hand because they are written for every answer: days are turned
//! into a civil date by arithmetic on 400-year eras of 146,097 days.

use shepherd_job::Timestamp;

const MICROS_PER_DAY: i64 = 86_400_000_000;

struct Civil {
    year: u32,
    month: u32,
    day: u32,
    /// 0 is Thursday, the day of the epoch.
    weekday: u32,
    second: u32,
    micros: u32,
}

/// Splits a time; one before the year 1 or after 9999 is moved to the nearest
/// that four digits can hold.
fn civil(at: Timestamp) -> Civil {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_9999_END: i64 = 253_402_300_799_999_999;
    let micros = at.as_micros().clamp(YEAR_1, YEAR_9999_END);
    let days = micros.div_euclid(MICROS_PER_DAY);
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    // Years begin on March 1 here, so that the leap day is the last of its year.
    let from_march_0000 = days + 719_468;
    let era = from_march_0000.div_euclid(146_097);
    let of_era = from_march_0000.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |n: i64| u32::try_from(n).unwrap_or(0);
    Civil {
        year: small(year),
        month: small(month),
        day: small(day),
        weekday: small(days.rem_euclid(7)),
        second: small(of_day / 1_000_000),
        micros: small(of_day % 1_000_000),
    }
}

fn digits<const N: usize>(mut value: u32) -> [u8; N] {
    let mut text = [b'0'; N];
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    text
}

/// Appends `2026-11-22T21:30:59.336682`.
pub(crate) fn push_iso(to: &mut Vec<u8>, at: Timestamp) {
    let t = civil(at);
    to.extend_from_slice(&digits::<4>(t.year));
    to.push(b'-');
    to.extend_from_slice(&digits::<2>(t.month));
    to.push(b'-');
    to.extend_from_slice(&digits::<2>(t.day));
    to.push(b'T');
    push_clock(to, t.second);
    to.push(b'.');
    to.extend_from_slice(&digits::<6>(t.micros));
}

/// `Sun, 22 Nov 2026 21:30:59 GMT` (RFC 9110, section 5.6.7).
pub(crate) fn http_date(at: Timestamp) -> Vec<u8> {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let t = civil(at);
    let mut to = Vec::with_capacity(29);
    to.extend_from_slice(WEEKDAYS[t.weekday as usize % 7].as_bytes());
    to.extend_from_slice(b", ");
    to.extend_from_slice(&digits::<2>(t.day));
    to.push(b' ');
    to.extend_from_slice(MONTHS[(t.month as usize + 11) % 12].as_bytes());
    to.push(b' ');
    to.extend_from_slice(&digits::<4>(t.year));
    to.push(b' ');
    push_clock(&mut to, t.second);
    to.extend_from_slice(b" GMT");
    to
}

fn push_clock(to: &mut Vec<u8>, second_of_day: u32) {
    to.extend_from_slice(&digits::<2>(second_of_day / 3_600));
    to.push(b':');
    to.extend_from_slice(&digits::<2>(second_of_day / 60 % 60));
    to.push(b':');
    to.extend_from_slice(&digits::<2>(second_of_day % 60));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(micros: i64, iso: &str, http: &str) {
        let at = Timestamp::from_micros(micros);
        let mut text = Vec::new();
        push_iso(&mut text, at);
        assert_eq!(String::from_utf8(text).unwrap(), iso);
        assert_eq!(String::from_utf8(http_date(at)).unwrap(), http);
    }

    #[test]
    fn known_times_are_written_right() {
        check(0, "1970-01-01T00:00:00.000000", "Thu, 01 Jan 1970 00:00:00 GMT");
        check(1_795_383_059_336_682, "2026-11-22T21:30:59.336682", "Sun, 22 Nov 2026 21:30:59 GMT");
        check(951_782_399_999_999, "2000-02-28T23:59:59.999999", "Mon, 28 Feb 2000 23:59:59 GMT");
        check(951_782_400_000_000, "2000-02-29T00:00:00.000000", "Tue, 29 Feb 2000 00:00:00 GMT");
        check(951_868_800_000_000, "2000-03-01T00:00:00.000000", "Wed, 01 Mar 2000 00:00:00 GMT");
        check(4_107_542_400_000_000, "2100-03-01T00:00:00.000000", "Mon, 01 Mar 2100 00:00:00 GMT");
        check(-1, "1969-12-31T23:59:59.999999", "Wed, 31 Dec 1969 23:59:59 GMT");
    }

    #[test]
    fn times_out_of_range_stay_well_formed() {
        check(i64::MAX, "9999-12-31T23:59:59.999999", "Fri, 31 Dec 9999 23:59:59 GMT");
        check(i64::MIN, "0001-01-01T00:00:00.000000", "Mon, 01 Jan 0001 00:00:00 GMT");
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let month_lengths = |year: u32| {
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for index in 0..292_000 {
            let t = civil(Timestamp::from_micros(index * MICROS_PER_DAY));
            assert_eq!((t.year, t.month, t.day), (year, month, day), "day {index}");
            day += 1;
            if day > month_lengths(year)[month as usize - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
