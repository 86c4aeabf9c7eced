//! Numbers as Redis reads and prints them.

/// A decimal integer in canonical form: no plus sign, no leading zeros, no spaces.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits fit into 64 bits without sign.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// A floating point number, infinities included, NaN not.
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Formats a double as C does with `%.17g`: how Redis sends a score.
#[must_use]
pub fn format_g17(value: f64) -> String {
    const DIGITS: i32 = 17;
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == value.trunc() && value.abs() < 1e15 {
        // The usual case; `-0` prints its sign either way.
        return format!("{value:.0}");
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..DIGITS).contains(&exponent) {
        let decimals = (DIGITS - 1 - exponent).unsigned_abs() as usize;
        return strip_zeros(&format!("{value:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", strip_zeros(mantissa), exponent.unsigned_abs())
}

fn strip_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `a + b` as Redis prints it after INCRBYFLOAT: at most 17 decimals, no exponent, no trailing
/// zeros. `None` if it is not a finite number.
///
/// Redis adds long doubles, so that 0.1 + 0.2 is 0.3. Here numbers that have at most 17 decimals
/// are added exactly.
#[must_use]
pub fn add_decimals(a: &[u8], b: &[u8]) -> Option<String> {
    if let Some(sum) = fixed(a).zip(fixed(b)).and_then(|(a, b)| a.checked_add(b)) {
        let text = format!(
            "{}{}.{:017}",
            if sum < 0 { "-" } else { "" },
            sum.unsigned_abs() / SCALE,
            sum.unsigned_abs() % SCALE
        );
        return Some(strip_zeros(&text).to_owned());
    }
    let sum = parse_f64(a)? + parse_f64(b)?;
    sum.is_finite().then(|| strip_zeros(&format!("{sum:.17}")).to_owned())
}

const SCALE: u128 = 100_000_000_000_000_000;

/// A decimal number times [`SCALE`], if that is a whole number and not too large.
fn fixed(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (mut value, mut shift, mut point) = (0i128, exponent.checked_add(17)?, false);
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                shift -= i32::from(point);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    while shift < 0 && value % 10 == 0 && value != 0 {
        value /= 10;
        shift += 1;
    }
    if value != 0 {
        value = value.checked_mul(10i128.checked_pow(u32::try_from(shift).ok()?)?)?;
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            ("-", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_print_as_c_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (0.1, "0.10000000000000001"),
            (1.5, "1.5"),
            (-2.25e-3, "-0.0022499999999999998"),
            (1e-5, "1.0000000000000001e-05"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1e300, "1.0000000000000001e+300"),
            (123_456_789.125, "123456789.125"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_g17(value), text);
        }
    }

    #[test]
    fn decimals_add_up() {
        for (a, b, sum) in [
            ("0.1", "0.2", Some("0.3")),
            ("10.50", "0.1", Some("10.6")),
            ("5.0e3", "200", Some("5200")),
            ("3", "-5", Some("-2")),
            ("-0.5", "0.25", Some("-0.25")),
            ("1e-2", "0", Some("0.01")),
            ("1e400", "1", None),
            ("x", "1", None),
        ] {
            assert_eq!(add_decimals(a.as_bytes(), b.as_bytes()).as_deref(), sum, "{a} + {b}");
        }
    }
}
