//! The TSC's rate, and the date.

use super::apic;
use crate::{arch::port, samples, time};

/// How long to measure, in ticks of the APIC's timer.
const MEASURE: u32 = 2_000_000;

/// Sets the clocks.
pub fn init() {
    let base = samples::tsc();
    time::set_pace(base, measure_tsc());
    if let Some(now) = read_cmos() {
        time::set_wall(now * 1_000_000_000);
    }
}

/// Ticks of the TSC a second, by the APIC's timer.
fn measure_tsc() -> u64 {
    apic::start_count();
    let (from, tsc_from) = reading();
    while from - apic::count() < MEASURE {}
    let (to, tsc_to) = reading();
    apic::stop_count();
    let ticks = u128::from(tsc_to - tsc_from) * u128::from(apic::TIMER_HZ);
    (ticks / u128::from(from - to)) as u64
}

/// The timer's count and the TSC at one moment. Reading the timer may leave the guest: of a few
/// readings, that which took least is the one that is least wrong.
fn reading() -> (u32, u64) {
    let readings = (0..8).map(|_| {
        let before = samples::tsc();
        let count = apic::count();
        let took = samples::tsc() - before;
        (took, count, before + took / 2)
    });
    let (_, count, tsc) = readings.min().unwrap_or_default();
    (count, tsc)
}

const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;

fn cmos(register: u8) -> u8 {
    // SAFETY: the clock's ports, which the TSS opens; reading has no effect.
    unsafe {
        port::out8(CMOS_INDEX, register);
        port::in8(CMOS_DATA)
    }
}

/// Seconds since 1970 by the CMOS clock, if there is one. It is taken to run on UTC, as QEMU's
/// does.
fn read_cmos() -> Option<u64> {
    // A missing clock reads as all ones; one that is being updated reads wrong.
    let ready = (0..1000).map(|_| cmos(0x0a)).find(|a| a & 0x80 == 0 || *a == 0xff)?;
    if ready == 0xff {
        return None;
    }
    let binary = cmos(0x0b) & 4 != 0;
    let [s, min, h, day, month, year] = [0, 2, 4, 7, 8, 9].map(|register| {
        let value = cmos(register);
        u64::from(if binary { value } else { value / 16 * 10 + value % 16 })
    });
    Some(days_since_1970(2000 + year, month, day) * 86_400 + h * 3600 + min * 60 + s)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar after it.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years from March on, so that the day that leap years add is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}
