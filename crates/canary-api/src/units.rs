//! The units people write in a CanaryRelease: durations (`1h30m`, `200ms`), percentages (`0.5%`) and
//! rates (`0.5/min`). All are integers inside, so that no rounding decides a release; parsing never
//! panics and says what it expected.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not the unit it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("{0:?} is not a duration: write whole numbers with units from large to small, such as 15m, 1h30m or 200ms")]
    Duration(String),
    /// Not a percentage.
    #[error("{0:?} is not a percentage: write a number from 0% to 100% with at most four decimals, such as 1% or 0.5%")]
    Percent(String),
    /// Not a rate.
    #[error("{0:?} is not a rate: write a number of events per s, min or h, such as 0.5/min")]
    Rate(String),
}

/// A span of time in whole milliseconds, at most 366 days; written as Go writes it, largest unit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Duration(u64);

const MAX_MILLIS: u64 = 366 * 24 * 3_600_000;
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Duration {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// A duration of so many milliseconds, at most 366 days.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > MAX_MILLIS { MAX_MILLIS } else { millis })
    }

    /// A duration of so many seconds, at most 366 days.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1_000))
    }

    /// Milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Seconds as a fraction.
    #[must_use]
    pub fn secs_f64(self) -> f64 {
        // Below 2^53 by construction, so the conversion is exact.
        self.0 as f64 / 1_000.0
    }

    /// As the standard library's duration.
    #[must_use]
    pub const fn std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError::Duration(text.chars().take(40).collect());
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let mut rest = text;
        let mut total = 0u64;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(letters);
            let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size).ok_or_else(fail)?;
            let number: u64 = number.parse().map_err(|_| fail())?;
            if size >= smallest {
                return Err(fail());
            }
            smallest = size;
            total = number.checked_mul(size).and_then(|part| total.checked_add(part)).ok_or_else(fail)?;
            rest = next;
        }
        if text.is_empty() || total > MAX_MILLIS {
            return Err(fail());
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, size) in UNITS {
            let count = rest.checked_div(size).unwrap_or(0);
            rest = rest.checked_rem(size).unwrap_or(0);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// A share, in millionths: 1 % is 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Percent(u32);

impl Percent {
    /// All of it.
    pub const HUNDRED: Self = Self(1_000_000);
    /// None of it.
    pub const ZERO: Self = Self(0);

    /// So many thousandths (0 to 1000), the grain of a route's weights.
    #[must_use]
    pub const fn from_permille(permille: u32) -> Self {
        Self(if permille > 1_000 { 1_000_000 } else { permille.saturating_mul(1_000) })
    }

    /// Millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Thousandths, rounded down.
    #[must_use]
    pub const fn permille(self) -> u32 {
        self.0 / 1_000
    }

    /// As a fraction of one.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000_000.0
    }
}

/// Digits before and after the point, read as an integer with `decimals` decimals.
fn fixed_point(text: &str, decimals: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 9 || part.len() > decimals {
        return None;
    }
    format!("{whole}{part:0<decimals$}").parse().ok()
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.strip_suffix('%')
            .and_then(|number| fixed_point(number, 4))
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| *value <= Self::HUNDRED.0)
            .map(Self)
            .ok_or_else(|| UnitError::Percent(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, self.0 % 10_000);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        let part = format!("{part:04}");
        write!(f, "{whole}.{}%", part.trim_end_matches('0'))
    }
}

/// Events per minute, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rate(u64);

impl Rate {
    /// Events per minute.
    #[must_use]
    pub fn per_minute(self) -> f64 {
        self.0 as f64 / 1_000_000.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError::Rate(text.chars().take(40).collect());
        let (number, unit) = text.split_once('/').ok_or_else(fail)?;
        let millionths = fixed_point(number, 6).ok_or_else(fail)?;
        let per_minute = match unit {
            "s" => millionths.checked_mul(60),
            "min" => Some(millionths),
            "h" => millionths.checked_div(60),
            _ => None,
        };
        per_minute.map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if part == 0 {
            return write!(f, "{whole}/min");
        }
        let part = format!("{part:06}");
        write!(f, "{whole}.{}/min", part.trim_end_matches('0'))
    }
}

/// Serde and schema of a unit: a string, with a rule that the API server checks and a message that teaches.
macro_rules! text_unit {
    ($type:ident, $name:literal, $rule:literal, $message:literal, $about:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": 32,
                    "description": $about,
                    "x-kubernetes-validations": [{"rule": $rule, "message": $message}],
                })
            }
        }
    };
}

text_unit!(
    Duration,
    "Duration",
    "self.matches('^(0|([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?([0-9]{1,9}ms)?)$') && self != ''",
    "write a duration in whole numbers with units from large to small, such as 15m, 1h30m or 200ms",
    "A duration such as 15m, 1h30m or 200ms."
);
text_unit!(
    Percent,
    "Percent",
    "self.matches('^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$')",
    "write a percentage from 0% to 100% with at most four decimals, such as 1% or 0.5%",
    "A percentage such as 1% or 0.5%."
);
text_unit!(
    Rate,
    "Rate",
    "self.matches('^[0-9]{1,9}([.][0-9]{1,6})?/(s|min|h)$')",
    "write events per s, min or h, such as 0.5/min",
    "Events per time, such as 0.5/min."
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("200ms", 200),
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().millis(), millis, "{text}");
        }
        assert_eq!(Duration::from_secs(90).to_string(), "1m30s");
        assert_eq!(Duration::from_millis(5_400_200).to_string(), "1h30m200ms");
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_an_example() {
        for text in [
            "",
            "15",
            "1d",
            "-5s",
            "1h-30m",
            "1m1h",
            "1s1s",
            "1.5h",
            " 1s",
            "1 s",
            "99999999999999999999h",
            "999999h",
            "--5s",
            "٣s",
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.to_string().contains("15m"), "{text}: {error}");
        }
    }

    #[test]
    fn percentages_and_rates_read_as_people_write_them() {
        assert_eq!("0.5%".parse::<Percent>().unwrap().millionths(), 5_000);
        assert_eq!("100%".parse::<Percent>().unwrap(), Percent::HUNDRED);
        assert_eq!("12.5%".parse::<Percent>().unwrap().permille(), 125);
        assert_eq!("0.5%".parse::<Percent>().unwrap().to_string(), "0.5%");
        for text in ["", "1", "%", "101%", "-1%", "1.00001%", "1,5%", "NaN%", ".5%", "5.%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        assert!((("0.5/min".parse::<Rate>().unwrap().per_minute()) - 0.5).abs() < 1e-12);
        assert!((("2/s".parse::<Rate>().unwrap().per_minute()) - 120.0).abs() < 1e-12);
        for text in ["", "1", "/min", "1/day", "-1/min", "1/min/min"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives_its_own_text(millis in 0u64..=MAX_MILLIS) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn a_percentage_survives_its_own_text(value in 0u32..=1_000_000) {
            let percent = Percent(value);
            prop_assert_eq!(percent.to_string().parse::<Percent>(), Ok(percent));
        }

        #[test]
        fn no_text_makes_a_unit_panic(text in ".{0,40}") {
            let _ = text.parse::<Duration>();
            let _ = text.parse::<Percent>();
            let _ = text.parse::<Rate>();
        }
    }
}
