//! Arithmetic as the language specifies it, floating point and its text forms.

use crate::check::Outcome;
use crate::{checks, ensure, ensure_eq};
use std::hint::black_box;

checks!["numbers": integers, wide_integers, floats_are_ieee, math_functions, float_text, rounding,
    sorting, text];

fn integers() -> Outcome {
    let big = black_box(i64::MAX);
    ensure_eq!(big.checked_add(1), None);
    ensure_eq!(big.wrapping_add(1), i64::MIN);
    ensure_eq!(black_box(i64::MIN).checked_div(-1), None);
    ensure_eq!(black_box(-7i32).rem_euclid(3), 2);
    ensure_eq!(black_box(0b1011_0000u8).leading_zeros(), 0);
    ensure_eq!(black_box(0xF0F0u64).count_ones(), 8);
    Ok(())
}

fn wide_integers() -> Outcome {
    // The 128-bit division is a function of the compiler's runtime.
    let n = black_box(u128::MAX);
    let d = black_box(1_000_000_007u128);
    ensure_eq!(n / d * d + n % d, n);
    ensure_eq!((black_box(-1i128) << 100 >> 100), -1);
    ensure_eq!(n.to_string(), "340282366920938463463374607431768211455");
    Ok(())
}

fn floats_are_ieee() -> Outcome {
    ensure!(black_box(f64::NAN) != black_box(f64::NAN), "NaN equals itself");
    ensure_eq!(black_box(1.0f64) / black_box(0.0), f64::INFINITY);
    ensure_eq!((black_box(0.1f64) + 0.2).to_bits(), 0x3FD3_3333_3333_3334);
    ensure_eq!(black_box(16_777_217i32) as f32, 16_777_216.0);
    // Subnormal numbers must not be flushed to zero.
    ensure!(black_box(f64::MIN_POSITIVE) / 2.0 > 0.0, "subnormals are flushed to zero");
    ensure_eq!(black_box(f64::MAX) as u8, 255);
    Ok(())
}

fn math_functions() -> Outcome {
    let close = |a: f64, b: f64| (a - b).abs() <= b.abs() * 4.0 * f64::EPSILON + f64::EPSILON;
    let cases = [
        ("sin", black_box(1.0f64).sin(), 0.841_470_984_807_896_5),
        ("cos of a large number", black_box(1e6f64).cos(), 0.936_752_127_533_144_7),
        ("tan", black_box(0.5f64).tan(), 0.546_302_489_843_790_5),
        ("exp", black_box(1.0f64).exp(), std::f64::consts::E),
        ("ln", black_box(10.0f64).ln(), std::f64::consts::LN_10),
        ("powf", black_box(2.0f64).powf(0.5), std::f64::consts::SQRT_2),
        ("sqrt", black_box(2.0f64).sqrt(), std::f64::consts::SQRT_2),
        ("atan2", black_box(1.0f64).atan2(-1.0), 3.0 * std::f64::consts::FRAC_PI_4),
        ("cbrt", black_box(27.0f64).cbrt(), 3.0),
        ("hypot", black_box(3.0f64).hypot(4.0), 5.0),
        ("f32 sin", f64::from((black_box(1.0f32).sin() * 1e6).round()), 841_471.0),
    ];
    for (name, got, want) in cases {
        ensure!(close(got, want), "{name} is {got:?}, not {want:?}");
    }
    ensure_eq!(black_box(2.0f64).mul_add(3.0, 4.0), 10.0);
    Ok(())
}

fn float_text() -> Outcome {
    for value in [0.1, -0.0, 1e300, 5e-324, f64::MAX, 123_456.789, 1.0 / 3.0] {
        let text = black_box(value).to_string();
        let back: f64 = text.parse()?;
        ensure!(back.to_bits() == value.to_bits(), "{value:?} became {back:?} by way of {text}");
    }
    ensure_eq!(
        format!("{:.3} {:e} {:8.2}|", 2.0f64 / 3.0, 1234.5f64, -1.005f64),
        "0.667 1.2345e3    -1.00|"
    );
    Ok(())
}

fn rounding() -> Outcome {
    ensure_eq!(black_box(2.5f64).round(), 3.0);
    ensure_eq!(black_box(2.5f64).round_ties_even(), 2.0);
    ensure_eq!(black_box(-1.5f64).floor(), -2.0);
    ensure_eq!(black_box(-1.5f64).trunc(), -1.0);
    Ok(())
}

fn sorting() -> Outcome {
    let mut state = 1u64;
    let mut values: Vec<u64> = (0..20_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 40
        })
        .collect();
    let sum: u64 = values.iter().sum();
    values.sort_unstable();
    ensure!(values.is_sorted(), "sort_unstable did not sort");
    values.sort_by_key(|v| v.reverse_bits());
    ensure!(values.is_sorted_by_key(|v| v.reverse_bits()), "sort_by_key did not sort");
    ensure_eq!(values.iter().sum::<u64>(), sum);
    Ok(())
}

fn text() -> Outcome {
    let text = "Füße, 世界 🌍";
    ensure_eq!(text.chars().count(), 10);
    ensure_eq!(text.to_uppercase(), "FÜSSE, 世界 🌍");
    ensure!(
        std::str::from_utf8(&text.as_bytes()[..2]).is_err(),
        "half a character passed as UTF-8"
    );
    ensure_eq!(
        format!("{:>6}|{:#x}|{:08b}|{:?}", "ab", 255, 5, "\n"),
        "    ab|0xff|00000101|\"\\n\""
    );
    Ok(())
}
