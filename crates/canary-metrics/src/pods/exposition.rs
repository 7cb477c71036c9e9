//! Metrics as text, in the two formats that pods speak: Prometheus' 0.0.4 and OpenMetrics. Decides
//! what is a well-formed exposition, line by line as it comes in; one bad line refuses the whole.
//! It keeps values as they are, duplicates included, and leaves times, exemplars and types aside:
//! what a counter can be is decided by the meter. A message names a line, and never quotes it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

/// Most labels of one series; more would make the check for doubles slow.
const MAX_LABELS: usize = 64;
/// What a kept series and each of its labels take beside their text.
const OVERHEAD_BYTES: usize = 64;

/// The dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics text 1.0: has exemplars, and an end mark that must be there.
    OpenMetrics,
}

/// One line's sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposed {
    /// The metric's name, suffixes such as `_total` and `_bucket` included.
    pub name: String,
    /// Its labels as written, those with an empty value left out, as PromQL has it.
    pub labels: Vec<(String, String)>,
    /// The value as written: NaN, infinite and negative ones too.
    pub value: f64,
}

/// A line that is not as the format has it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct ExpositionError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// `<` where a name is due.
    #[error("a web page, not metrics; is the path right?")]
    WebPage,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// Too long.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// No classic metric name.
    #[error("no metric name of letters, digits, `_` and `:`")]
    Name,
    /// A type that is none.
    #[error("a TYPE that there is not")]
    Type,
    /// No classic label name.
    #[error("no label name of letters, digits and `_`")]
    LabelName,
    /// `__name__` among the labels.
    #[error("the reserved label __name__")]
    ReservedLabel,
    /// A label that occurs twice.
    #[error("a label that occurs twice")]
    DoubleLabel,
    /// Too many labels.
    #[error("more than {MAX_LABELS} labels")]
    TooManyLabels,
    /// No `="…"` after a label name.
    #[error("a label without a quoted value")]
    LabelValue,
    /// A backslash before what needs none.
    #[error("an escape other than \\\\, \\\" and \\n")]
    Escape,
    /// Neither a comma nor the closing brace after a label.
    #[error("labels that are not closed")]
    Open,
    /// No number.
    #[error("no value that is a number")]
    Value,
    /// A time that is none.
    #[error("a time that is no number")]
    Time,
    /// An exemplar that is none.
    #[error("an exemplar that is none")]
    Exemplar,
    /// More than a sample.
    #[error("more after the sample")]
    Rest,
    /// The connection may have been cut here.
    #[error("the last line has no end; the answer may have been cut")]
    Cut,
    /// OpenMetrics without its end mark.
    #[error("no `# EOF` at the end; the answer may have been cut")]
    NoEnd,
    /// OpenMetrics with more after its end mark.
    #[error("more after `# EOF`")]
    AfterEnd,
    /// Too many series.
    #[error("more than {0} series")]
    TooMany(usize),
    /// The series of all pods together take too much memory.
    #[error("no room left: the pods' series together take more than {0} bytes")]
    NoRoom(usize),
}

/// What a parser keeps, and how much.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Metrics by name; all where nothing is said. Others are checked and not kept.
    pub names: Option<Arc<BTreeSet<String>>>,
    /// Most series.
    pub max_series: usize,
    /// Longest line in bytes.
    pub max_line_bytes: usize,
    /// The memory that is shared with other parsers.
    pub room: Room,
}

/// Memory that several parsers share, in bytes.
#[derive(Debug, Clone)]
pub struct Room {
    all: usize,
    left: Arc<AtomicUsize>,
}

impl Room {
    /// Room for about this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { all: bytes, left: Arc::new(AtomicUsize::new(bytes)) }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Reads one exposition as its bytes come in.
#[derive(Debug)]
pub struct Parser {
    format: Format,
    keep: Keep,
    /// The beginning of a line whose end has not come in yet.
    partial: Vec<u8>,
    line: usize,
    ended: bool,
    series: Vec<Exposed>,
    taken: usize,
}

impl Parser {
    /// A parser that has read nothing yet.
    #[must_use]
    pub fn new(format: Format, keep: Keep) -> Self {
        Self { format, keep, partial: Vec::new(), line: 0, ended: false, series: Vec::new(), taken: 0 }
    }

    /// Reads on. After an error nothing that was read may be used.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ExpositionError> {
        let mut parts = bytes.split(|b| *b == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.partial.len().saturating_add(part.len()) > self.keep.max_line_bytes {
                return Err(ExpositionError {
                    line: self.line.saturating_add(1),
                    fault: Fault::TooLong(self.keep.max_line_bytes),
                });
            }
            self.partial.extend_from_slice(part);
            if parts.peek().is_some() {
                self.end_line()?;
            }
        }
        Ok(())
    }

    /// The series, once all has been read. `whole` says that the transport proves that nothing is
    /// missing; then the last line needs no end.
    ///
    /// # Errors
    /// An answer that may have been cut.
    pub fn finish(mut self, whole: bool) -> Result<Vec<Exposed>, ExpositionError> {
        if !self.partial.is_empty() {
            if !whole && self.format == Format::Text {
                return Err(ExpositionError { line: self.line.saturating_add(1), fault: Fault::Cut });
            }
            self.end_line()?;
        }
        if self.format == Format::OpenMetrics && !self.ended {
            return Err(ExpositionError { line: self.line.saturating_add(1), fault: Fault::NoEnd });
        }
        // What was kept stays accounted for.
        self.taken = 0;
        Ok(std::mem::take(&mut self.series))
    }

    fn end_line(&mut self) -> Result<(), ExpositionError> {
        self.line = self.line.saturating_add(1);
        let mut bytes = std::mem::take(&mut self.partial);
        let read = self.read_line(&bytes);
        bytes.clear();
        self.partial = bytes;
        read.map_err(|fault| ExpositionError { line: self.line, fault })
    }

    fn read_line(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let line = std::str::from_utf8(bytes.strip_suffix(b"\r").unwrap_or(bytes)).map_err(|_| Fault::Encoding)?;
        let line = line.trim_matches(BLANKS);
        if line.is_empty() {
            return Ok(());
        }
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        if let Some(comment) = line.strip_prefix('#') {
            self.ended = self.format == Format::OpenMetrics && line == "# EOF";
            return check_comment(comment);
        }
        if line.starts_with('<') {
            return Err(Fault::WebPage);
        }
        let sample = Sample::read(line, self.format)?;
        if self.keep.names.as_ref().is_none_or(|names| names.contains(sample.name)) {
            self.take(sample)?;
        }
        Ok(())
    }

    fn take(&mut self, sample: Sample<'_>) -> Result<(), Fault> {
        if self.series.len() >= self.keep.max_series {
            return Err(Fault::TooMany(self.keep.max_series));
        }
        let text = |(name, value): &(&str, Cow<'_, str>)| name.len().saturating_add(value.len());
        let bytes = sample.labels.iter().fold(sample.name.len().saturating_add(OVERHEAD_BYTES), |sum, label| {
            sum.saturating_add(text(label)).saturating_add(OVERHEAD_BYTES)
        });
        if !self.keep.room.take(bytes) {
            return Err(Fault::NoRoom(self.keep.room.all));
        }
        self.taken = self.taken.saturating_add(bytes);
        let labels = sample.labels.into_iter().filter(|(_, value)| !value.is_empty());
        self.series.push(Exposed {
            name: sample.name.to_owned(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.into_owned())).collect(),
            value: sample.value,
        });
        Ok(())
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        self.keep.room.give_back(self.taken);
    }
}

/// Reads a whole exposition at once.
///
/// # Errors
/// As [`Parser::feed`] and [`Parser::finish`].
pub fn parse(bytes: &[u8], format: Format, keep: Keep) -> Result<Vec<Exposed>, ExpositionError> {
    let mut parser = Parser::new(format, keep);
    parser.feed(bytes)?;
    parser.finish(true)
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Comments say nothing that is used; where one declares something, it must at least be of a name.
fn check_comment(comment: &str) -> Result<(), Fault> {
    let mut words = comment.split(BLANKS).filter(|word| !word.is_empty());
    let declares = words.next().filter(|word| comment.starts_with(BLANKS) && matches!(*word, "HELP" | "TYPE" | "UNIT"));
    let Some(keyword) = declares else { return Ok(()) };
    if !words.next().is_some_and(is_metric_name) {
        return Err(Fault::Name);
    }
    let types =
        ["counter", "gauge", "histogram", "summary", "untyped", "unknown", "info", "stateset", "gaugehistogram"];
    let mut known = || words.next().is_some_and(|word| types.contains(&word)) && words.next().is_none();
    if keyword == "TYPE" && !known() { Err(Fault::Type) } else { Ok(()) }
}

/// One sample's line, checked to its end.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str, format: Format) -> Result<Self, Fault> {
        let mut cursor = Cursor(line);
        let name = cursor.take_while(is_name_char);
        if !is_metric_name(name) {
            return Err(Fault::Name);
        }
        let parted = cursor.blanks();
        let labels = if cursor.eat('{') {
            let labels = cursor.labels()?;
            cursor.blanks();
            labels
        } else if parted {
            Vec::new()
        } else if cursor.0.is_empty() {
            return Err(Fault::Value);
        } else {
            return Err(Fault::Name);
        };
        let value = number(cursor.word()).ok_or(Fault::Value)?;
        match format {
            Format::Text => cursor.time(|word| word.parse::<i64>().is_ok())?,
            Format::OpenMetrics => {
                if !cursor.0.starts_with('#') {
                    cursor.time(is_finite_number)?;
                }
                cursor.exemplar()?;
            }
        }
        if cursor.0.is_empty() { Ok(Self { name, labels, value }) } else { Err(Fault::Rest) }
    }
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !keep(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn blanks(&mut self) -> bool {
        !self.take_while(|c| BLANKS.contains(&c)).is_empty()
    }

    /// Up to the next blank, and the blanks after it.
    fn word(&mut self) -> &'a str {
        let word = self.take_while(|c| !BLANKS.contains(&c));
        self.blanks();
        word
    }

    /// A time, where there is one. It is not used: the operator counts by when it got the answer.
    fn time(&mut self, is_time: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let word = self.word();
        if word.is_empty() || is_time(word) { Ok(()) } else { Err(Fault::Time) }
    }

    /// `# {labels} value [time]`, where there is one.
    fn exemplar(&mut self) -> Result<(), Fault> {
        if !self.eat('#') {
            return Ok(());
        }
        self.blanks();
        if !self.eat('{') {
            return Err(Fault::Exemplar);
        }
        self.labels()?;
        self.blanks();
        number(self.word()).ok_or(Fault::Exemplar)?;
        self.time(is_finite_number)
    }

    /// Labels up to and with the closing brace; a comma before it is allowed.
    fn labels(&mut self) -> Result<Vec<(&'a str, Cow<'a, str>)>, Fault> {
        let mut labels: Vec<(&str, Cow<'_, str>)> = Vec::new();
        loop {
            self.blanks();
            if self.eat('}') {
                return Ok(labels);
            }
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(if self.0.is_empty() { Fault::Open } else { Fault::LabelName });
            }
            if name == "__name__" {
                return Err(Fault::ReservedLabel);
            }
            if labels.iter().any(|(other, _)| *other == name) {
                return Err(Fault::DoubleLabel);
            }
            if labels.len() >= MAX_LABELS {
                return Err(Fault::TooManyLabels);
            }
            self.blanks();
            let equals = self.eat('=');
            self.blanks();
            if !equals || !self.eat('"') {
                return Err(Fault::LabelValue);
            }
            labels.push((name, self.quoted()?));
            self.blanks();
            if !self.eat(',') && !self.0.starts_with('}') {
                return Err(Fault::Open);
            }
        }
    }

    /// A label's value up to and with the closing quote.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Fault> {
        let mut value = Cow::Borrowed(self.take_while(|c| c != '"' && c != '\\'));
        loop {
            if self.eat('"') {
                return Ok(value);
            }
            if !self.eat('\\') {
                return Err(Fault::Open);
            }
            let escaped = match self.0.chars().next() {
                Some('\\') => '\\',
                Some('"') => '"',
                Some('n') => '\n',
                _ => return Err(Fault::Escape),
            };
            self.0 = self.0.get(1..).unwrap_or_default();
            let value = value.to_mut();
            value.push(escaped);
            value.push_str(self.take_while(|c| c != '"' && c != '\\'));
        }
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn is_metric_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_char) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Numbers as exporters write them, in any case; too large a number is none.
fn number(text: &str) -> Option<f64> {
    let named = |name: &str| text.eq_ignore_ascii_case(name);
    if named("NaN") {
        return Some(f64::NAN);
    }
    if named("+Inf") || named("Inf") {
        return Some(f64::INFINITY);
    }
    if named("-Inf") {
        return Some(f64::NEG_INFINITY);
    }
    let decimal = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    decimal.then(|| text.parse::<f64>().ok())?.filter(|value| value.is_finite())
}

fn is_finite_number(text: &str) -> bool {
    number(text).is_some_and(f64::is_finite)
}
