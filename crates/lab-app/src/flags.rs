//! Decides what a command line and the environment say: `--name value`, `--name=value` and bare
//! switches, each known by a table. It never guesses: an unknown or malformed one is refused by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

/// One flag of a program.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name without dashes, such as `error-rate`; its environment variable is `ERROR_RATE`.
    pub name: &'static str,
    /// What stands for the value in the help; empty for a switch without value.
    pub value: &'static str,
    /// One line for the help.
    pub help: &'static str,
}

/// Why a command line or an environment variable was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    /// An argument that the program does not know.
    #[error("unknown argument {0:?}; --help lists the known ones")]
    Unknown(String),
    /// A flag that needs a value stands last or without one.
    #[error("--{0} needs a value: --{0} {1}")]
    ValueMissing(&'static str, &'static str),
    /// A switch was given a value.
    #[error("--{0} takes no value")]
    ValueUnexpected(&'static str),
    /// A flag without which the program cannot run is missing.
    #[error("--{0} is required")]
    Required(&'static str),
    /// A value that cannot be read or is out of range.
    #[error("--{name} {value:?}: {problem}")]
    Invalid {
        /// The flag's name.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// `--help` was asked for; not a failure.
    #[error("help was asked for")]
    Help,
}

impl FlagError {
    /// A fixed word for this kind of error.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::ValueMissing(..) => "value_missing",
            Self::ValueUnexpected(_) => "value_unexpected",
            Self::Required(_) => "required",
            Self::Invalid { .. } => "invalid",
            Self::Help => "help",
        }
    }
}

/// The values found, by flag name.
#[derive(Debug, Clone, Default)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Reads `arguments` (without the program's name) after `environment`; an argument wins.
    ///
    /// # Errors
    /// [`FlagError`] for what the table does not allow. Empty environment variables count as unset.
    pub fn read(
        flags: &[Flag],
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FlagError> {
        let mut values = BTreeMap::new();
        for flag in flags {
            let variable = flag.name.to_ascii_uppercase().replace('-', "_");
            if let Some(value) = environment(&variable).filter(|value| !value.is_empty()) {
                values.insert(flag.name, value);
            }
        }
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                return Err(FlagError::Help);
            }
            let Some(rest) = argument.strip_prefix("--") else {
                return Err(FlagError::Unknown(argument));
            };
            let (name, inline) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
                return Err(FlagError::Unknown(argument));
            };
            let value = match (flag.value.is_empty(), inline) {
                (true, None) => "true".to_owned(),
                (true, Some(_)) => return Err(FlagError::ValueUnexpected(flag.name)),
                (false, Some(value)) => value,
                (false, None) => arguments.next().ok_or(FlagError::ValueMissing(flag.name, flag.value))?,
            };
            values.insert(flag.name, value);
        }
        Ok(Self(values))
    }

    /// The value of `name` as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether the switch `name` is given.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value != "false")
    }

    /// The value of `name`, parsed.
    ///
    /// # Errors
    /// [`FlagError::Invalid`] if it does not parse; `expected` says what would.
    pub fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, FlagError> {
        self.text(name)
            .map(|value| value.parse().map_err(|_| invalid(name, value, &format!("expected {expected}"))))
            .transpose()
    }

    /// The value of `name` as a duration with unit (`500ms`, `60s`, `10m`, `1h`).
    ///
    /// # Errors
    /// [`FlagError::Invalid`] if it is none.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, FlagError> {
        self.text(name)
            .map(|value| {
                parse_duration(value).ok_or_else(|| invalid(name, value, "expected a duration such as 500ms, 60s, 10m"))
            })
            .transpose()
    }
}

/// A [`FlagError::Invalid`].
#[must_use]
pub fn invalid(name: &str, value: &str, problem: &str) -> FlagError {
    FlagError::Invalid { name: name.to_owned(), value: value.to_owned(), problem: problem.to_owned() }
}

/// `500ms`, `60s`, `10m`, `1h`: a whole number and a unit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The help text of a program.
#[must_use]
pub fn help(program: &str, purpose: &str, flags: &[Flag]) -> String {
    let mut text = format!("{program}: {purpose}\n\nFlags:\n");
    for flag in flags {
        let left = format!("--{} {}", flag.name, flag.value);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {left:<32} {}", flag.help);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FLAGS: [Flag; 3] = [
        Flag { name: "error-rate", value: "SHARE", help: "" },
        Flag { name: "until-signal", value: "", help: "" },
        Flag { name: "port", value: "PORT", help: "" },
    ];

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Values, FlagError> {
        Values::read(&FLAGS, arguments.iter().map(ToString::to_string), |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_argument_wins_over_the_environment() {
        let values = read(&["--error-rate=0.5", "--until-signal"], &[("ERROR_RATE", "0.1"), ("PORT", "81")]).unwrap();
        assert_eq!(values.text("error-rate"), Some("0.5"));
        assert_eq!(values.parsed::<u16>("port", "a port").unwrap(), Some(81));
        assert!(values.is_set("until-signal"));
    }

    #[test]
    fn what_the_table_does_not_know_is_refused() {
        assert_eq!(read(&["--eror-rate", "1"], &[]).unwrap_err(), FlagError::Unknown("--eror-rate".into()));
        assert_eq!(read(&["--port"], &[]).unwrap_err().to_string(), "--port needs a value: --port PORT");
        let values = read(&["--port", "eighty"], &[]).unwrap();
        assert_eq!(
            values.parsed::<u16>("port", "a port").unwrap_err().to_string(),
            "--port \"eighty\": expected a port"
        );
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "1.5s", "-1s", "5 s", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
