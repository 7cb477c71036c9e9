//! How an answer is written: text, JSON or YAML, and colours only for a terminal that wants them. It never decides what
//! is said.

use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Effects, Style};
use clap::ValueEnum;
use serde::Serialize;

use crate::Error;

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// What a piece of text means; its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// A title.
    Title,
    /// Less important.
    Quiet,
    /// Good.
    Good,
    /// To be looked at.
    Doubt,
    /// Bad.
    Bad,
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Whether to use them.
    pub colours: bool,
}

impl Paint {
    /// No colours.
    pub const NONE: Self = Self { colours: false };

    /// The text in the colour of its meaning.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            _ if !self.colours => Style::new(),
            Tone::Plain => Style::new(),
            Tone::Title => Style::new().effects(Effects::BOLD),
            Tone::Quiet => Style::new().effects(Effects::DIMMED),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Doubt => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().effects(Effects::BOLD),
        };
        format!("{style}{text}{style:#}")
    }
}

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How they are written.
    pub format: Format,
    /// The colours of text.
    pub paint: Paint,
    /// Whether a person looks at it as it is written.
    pub terminal: bool,
}

impl Output {
    /// To standard output. Colours where it is a terminal that has them and `NO_COLOR` is not set.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let stdout = std::io::stdout();
        let colours = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { format, paint: Paint { colours }, terminal: stdout.is_terminal() }
    }

    /// Writes an answer: its text, or its structure.
    ///
    /// # Errors
    /// Where it cannot be written. A reader that has gone away is no error.
    pub fn answer(&self, structure: &impl Serialize, text: impl FnOnce(Paint) -> String) -> Result<(), Error> {
        self.write(&self.encode(structure, text)?)
    }

    /// One of several answers: in JSON a line each, in YAML a document each.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn one_of_many(&self, structure: &impl Serialize, text: impl FnOnce(Paint) -> String) -> Result<(), Error> {
        let text = match self.format {
            Format::Text => text(self.paint),
            Format::Json => serde_json::to_string(structure).map_err(|error| Error::Encode(error.to_string()))?,
            Format::Yaml => format!("---\n{}", self.encode(structure, text)?),
        };
        self.write(&text)
    }

    fn encode(&self, structure: &impl Serialize, text: impl FnOnce(Paint) -> String) -> Result<String, Error> {
        match self.format {
            Format::Text => Ok(text(self.paint)),
            Format::Json => serde_json::to_string_pretty(structure).map_err(|error| Error::Encode(error.to_string())),
            Format::Yaml => serde_norway::to_string(structure).map_err(|error| Error::Encode(error.to_string())),
        }
    }

    /// Writes text as it is, with a line break at its end.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn write(&self, text: &str) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush());
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Says something beside the answer, on standard error.
pub fn say(text: &str) {
    // Nobody hears it where standard error is closed, and nothing depends on it.
    let _unheard = writeln!(std::io::stderr(), "{}", crate::clean::lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_text_stays_as_it_is() {
        assert_eq!(Paint::NONE.paint(Tone::Bad, "Breach"), "Breach");
        assert_eq!(Paint { colours: true }.paint(Tone::Good, "Pass"), "\u{1b}[32mPass\u{1b}[0m");
    }
}
