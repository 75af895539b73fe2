// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a run was started, and a name for it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as RFC 3339 in UTC with whole seconds: `2026-11-22T10:32:08Z`. Moments before 1970
/// print as 1970 (a clock that wrong has no better answer).
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years start in March, so the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The seconds since 1970 of what [`rfc3339`] wrote; `None` for text of another form, or no such day.
pub fn seconds(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    // The way back: years that start in March.
    let years = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (years / 400, years % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let found = days * 86_400 + hour * 3600 + minute * 60 + second;
    // Only a text that says the same the other way round was one.
    (rfc3339(UNIX_EPOCH + Duration::from_secs(found)) == text).then_some(found)
}

/// A name for one run: 26 characters that sort by start time (48 bits of milliseconds, 80 random
/// bits, in Crockford's base 32, as a ULID).
pub fn run_id(started: SystemTime) -> String {
    let millis = started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // RandomState is seeded by the system's random source; that is all a name needs.
    let random = u128::from(RandomState::new().build_hasher().finish()) << 64
        | u128::from(RandomState::new().hash_one(std::process::id()));
    encode_ulid((millis & ((1 << 48) - 1)) << 80 | random & ((1 << 80) - 1))
}

/// A name for runs together, of the form of [`run_id`]: the time of the first, then 80 bits that all ids
/// and their order make (FNV-1a), so that the same runs have the same name.
pub fn joint_id<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut time = None;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for id in ids {
        time.get_or_insert(id);
        for byte in id.bytes().chain([0]) {
            hash = (hash ^ u128::from(byte)).wrapping_mul((1 << 88) + 0x13b);
        }
    }
    let time: String = time.unwrap_or_default().chars().take(10).collect();
    format!("{time:0>10}{}", &encode_ulid(hash & ((1 << 80) - 1))[10..])
}

fn encode_ulid(value: u128) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    (0..26).rev().map(|place| char::from(DIGITS[(value >> (5 * place)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(951_782_399)), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(at(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(951_868_800)), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(at(1_795_343_528)), "2026-11-22T10:32:08Z");
        assert_eq!(rfc3339(at(4_107_542_400)), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_date_leads_back_to_its_second() {
        for second in [0, 951_782_399, 951_782_400, 951_868_800, 1_795_343_528, 4_107_542_400] {
            assert_eq!(seconds(&rfc3339(at(second))), Some(second));
        }
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        for text in ["2026-11-22T10:32:08+01:00", "2026-11-22T25:00:00Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn ids_differ_and_sort_by_time() {
        let early = run_id(at(1_000_000));
        let late = run_id(at(1_000_001));
        assert_eq!(early.len(), 26);
        assert!(early < late, "{early} {late}");
        assert_ne!(run_id(at(5)), run_id(at(5)));
        assert_eq!(encode_ulid(u128::MAX), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    }

    #[test]
    fn runs_together_have_one_name() {
        let (a, b) = (run_id(at(1)), run_id(at(2)));
        let both = joint_id([a.as_str(), &b]);
        assert_eq!(both, joint_id([a.as_str(), &b]));
        assert_eq!((both.len(), &both[..10]), (26, &a[..10]));
        let others = [joint_id([a.as_str()]), joint_id([b.as_str(), &a]), joint_id(["x"])];
        assert!(!others.contains(&both) && !others.contains(&a), "{others:?}");
        assert_eq!(others[2].len(), 26);
    }
}
