//! What time it is, by two clocks: the Unix time, which somebody may set, and the time since boot, which nobody can.
//!
//! Needs the kernel's clocks and the id of this boot; yields a [`Stamp`] for each frame, and of two stamps by how much the
//! clock was set in between.

use crate::capture::{nanos, unix_ns};
use serde::Serialize;
use std::{fs, time::Duration};

/// A difference of the two clocks that is no step: adjusting a clock moves it by less.
const TOLERANCE_NS: u64 = 1_000_000_000;
/// ... and so much of the time that passed: NTP slews by 500 ppm at most (RFC 5905, section 11.3).
const SLEW: u64 = 1_000;

/// When something was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Unix time, ns.
    pub unix_ns: u64,
    /// CLOCK_BOOTTIME, ns: it goes on while the machine sleeps.
    pub boot_ns: u64,
    /// `/proc/sys/kernel/random/boot_id`; zeros where it could not be read.
    pub boot_id: [u8; 16],
}

/// That the clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The last Unix time known before, ns.
    pub before_unix_ns: u64,
    /// The first known after, ns.
    pub after_unix_ns: u64,
    /// By how much, ns: negative when it was set back. Over a reboot that is the least it can be.
    pub by_ns: i64,
}

impl Stamp {
    /// Now, in a boot whose id is known.
    #[must_use]
    pub fn now(boot_id: [u8; 16]) -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = Duration::new(boot.tv_sec as u64, boot.tv_nsec as u32);
        Self { unix_ns: unix_ns(), boot_ns: nanos(boot), boot_id }
    }

    /// Whether the clock was set between this stamp and a later one, and by how much. Over a reboot only a clock that went
    /// backwards tells.
    #[must_use]
    pub fn step_to(&self, later: &Self) -> Option<Step> {
        let passed = i128::from(later.unix_ns) - i128::from(self.unix_ns);
        let (by, tolerance) = if self.boot_id == later.boot_id {
            let boot = later.boot_ns.saturating_sub(self.boot_ns);
            (passed - i128::from(boot), TOLERANCE_NS + boot / SLEW)
        } else {
            (passed.min(0), TOLERANCE_NS)
        };
        (by.unsigned_abs() > u128::from(tolerance)).then(|| Step {
            before_unix_ns: self.unix_ns,
            after_unix_ns: later.unix_ns,
            by_ns: i64::try_from(by).unwrap_or(if by < 0 { i64::MIN } else { i64::MAX }),
        })
    }
}

/// The id of this boot; zeros where it cannot be read.
#[must_use]
pub(super) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(unix_s: u64, boot_s: u64, boot: u8) -> Stamp {
        Stamp { unix_ns: unix_s * S, boot_ns: boot_s * S, boot_id: [boot; 16] }
    }

    #[test]
    fn steps_are_told_from_time_that_passed() {
        let step = |a: Stamp, b: Stamp| a.step_to(&b).map(|s| s.by_ns / S as i64);
        let first = at(10_000, 100, 1);
        assert_eq!(step(first, at(10_060, 160, 1)), None);
        assert_eq!(step(first, at(13_660, 160, 1)), Some(3_600), "set forward");
        assert_eq!(step(first, at(6_460, 160, 1)), Some(-3_600), "set back");
        assert_eq!(step(first, at(96_440, 86_500, 1)), None, "slewed by 40 s over a day");
        // After a reboot the time since boot says nothing.
        assert_eq!(step(first, at(20_000, 5, 2)), None);
        assert_eq!(step(first, at(9_000, 5, 2)), Some(-1_000));
        assert_eq!(step(at(0, 0, 1), at(u64::MAX / S, 0, 1)), Some(i64::MAX / S as i64));
    }

    #[test]
    fn this_boot_has_an_id_and_its_clocks_go_on() {
        let id = boot_id();
        assert_ne!(id, [0; 16]);
        let (a, b) = (Stamp::now(id), Stamp::now(id));
        assert!(a.boot_ns <= b.boot_ns && a.unix_ns > 1_700_000_000 * S);
        assert_eq!(a.step_to(&b), None);
    }
}
