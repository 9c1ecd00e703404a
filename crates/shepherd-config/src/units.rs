//! Durations and sizes as a person writes them.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(crate) const DURATION: &str = "a number of seconds or a duration such as 500ms, 30s, 5m or 2h";
/// What a size looks like, for messages.
pub(crate) const SIZE: &str = "a number of bytes or a size such as 512KiB, 100MB or 10GiB";
/// What a decimal number looks like, for messages.
pub(crate) const DECIMAL: &str = "a number such as 0.5 or 2";

/// Seconds, or a number with one of `ms`, `s`, `m`, `h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis: u32 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(u64::from(millis)).map(Duration::from_millis);
    }
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * f64::from(millis) / 1_000.0).ok()
}

/// Bytes, or a number with a decimal (`kB`, `MB`, `GB`, `TB`) or binary (`KiB`,
/// `MiB`, `GiB`, `TiB`) unit, in any case.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Past 2^53 a float cannot say one byte from the next.
    (bytes.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&bytes)).then_some(bytes as u64)
}

/// A decimal number in billionths, such as `1.5` for 1,500,000,000.
pub(crate) fn billionths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let billionths: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(billionths)
}

/// The number and the unit after it, which may be apart. The number is left to
/// its parser, but begins with a digit: no sign, `inf` or `nan`.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if text.parse::<f64>().is_ok() {
        return Some((text, ""));
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    Some((&text[..end], text[end..].trim_start()))
}

/// A duration for a message, in its largest whole unit.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A decimal number for a message.
pub(crate) fn show_billionths(number: u64) -> String {
    let text = format!("{}.{:09}", number / 1_000_000_000, number % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
