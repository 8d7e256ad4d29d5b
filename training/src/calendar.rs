//! Dates in UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A date and a time of day in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Utc {
    /// The current time.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// `2026-01-31-120530`, for file names: they sort by time.
    pub fn compact(&self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
    }
}

/// A clock before 1970 counts as the first second of that year.
impl From<SystemTime> for Utc {
    /// The date by Hinnant's algorithm `civil_from_days`: years begin in March, so that the leap day
    /// is their last day, and 400 years have 146,097 days.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Days since 1 March of the year 0.
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// `2026-01-31 12:05:30 UTC`.
impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Utc {
        (UNIX_EPOCH + Duration::from_secs(seconds)).into()
    }

    /// Against `date -u -d @SECONDS +%Y-%m-%d-%H%M%S`.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01-000000"),
            (68_169_599, "1972-02-28-235959"),
            (68_169_600, "1972-02-29-000000"),
            (951_868_799, "2000-02-29-235959"),
            (951_868_800, "2000-03-01-000000"),
            (1_795_570_925, "2026-11-25-014205"),
            (4_107_542_400, "2100-03-01-000000"),
        ] {
            assert_eq!(at(seconds).compact(), expected);
        }
        assert_eq!(at(951_825_600).to_string(), "2000-02-29 12:00:00 UTC");
        assert_eq!(at(1_767_225_599).to_string(), "2025-12-31 23:59:59 UTC");
    }

    #[test]
    fn compact_dates_sort_by_time() {
        let names: Vec<String> = (0..40_000).map(|i| at(i * 47_777).compact()).collect();
        assert!(names.is_sorted());
    }
}
