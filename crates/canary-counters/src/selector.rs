//! Counter selectors as users write them: `http_requests_total{code=~"5.."}`. Decides what is a
//! selector and what is more than that (and refused), confines one to a [`Scope`], and says
//! whether a series belongs to it. It never evaluates anything.

use std::collections::BTreeMap;
use std::fmt;

use promql_parser::label::MatchOp;
use promql_parser::parser::Expr;
use regex::{Regex, RegexBuilder};
use thiserror::Error;

use crate::promql::{is_label_name, is_metric_name, parse, quote};
use crate::samples::Series;
use crate::scope::{Scope, Scoped, Subject};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchKind {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchKind {
    fn operator(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One label matcher.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Matcher {
    /// The label's name.
    pub label: String,
    /// How it compares.
    pub kind: MatchKind,
    /// The value or the regular expression.
    pub value: String,
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        quote(&self.value, &mut out);
        write!(f, "{}{}{out}", self.label, self.kind.operator())
    }
}

/// A metric's name and label matchers: which series a counter is made of.
#[derive(Debug, Clone)]
pub struct Selector {
    metric: String,
    matchers: Vec<Matcher>,
    /// Beside each matcher its compiled expression, where it is one.
    compiled: Vec<Option<Regex>>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.metric == other.metric && self.matchers == other.matchers
    }
}

impl Eq for Selector {}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        for (index, matcher) in self.matchers.iter().enumerate() {
            write!(f, "{}{matcher}", if index == 0 { "{" } else { "," })?;
        }
        f.write_str(if self.matchers.is_empty() { "" } else { "}" })
    }
}

/// Why a text is no counter selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Not PromQL at all.
    #[error("{text:?} is not a counter selector: {why}")]
    Syntax {
        /// What was written.
        text: String,
        /// What the parser said.
        why: String,
    },
    /// PromQL, but more than a selector.
    #[error(
        "{text:?} is {what}, but a counter is only a name with label matchers, such as http_requests_total{{code=~\"5..\"}}: the operator reads the raw counter and takes the differences itself"
    )]
    NotASelector {
        /// What was written.
        text: String,
        /// What it is instead.
        what: String,
    },
    /// No metric name before the braces.
    #[error("{text:?} has no metric name: write it before the braces")]
    NoName {
        /// What was written.
        text: String,
    },
    /// A name that can't be used here.
    #[error("{text:?}: {name:?} is not a classic metric or label name; letters, digits and underscores are supported")]
    Name {
        /// What was written.
        text: String,
        /// The name in question.
        name: String,
    },
    /// A matcher on a label that the operator sets.
    #[error("{selector}: the label {label:?} is set by the operator; remove the matcher on it")]
    Reserved {
        /// The selector.
        selector: String,
        /// The label.
        label: String,
    },
}

impl SelectorError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::NotASelector { .. } => "not_a_selector",
            Self::NoName { .. } | Self::Name { .. } => "name",
            Self::Reserved { .. } => "reserved_label",
        }
    }
}

impl Selector {
    /// Parses a counter selector.
    ///
    /// # Errors
    /// Whatever is not exactly a metric name with label matchers: functions, ranges, `offset`,
    /// `@`, operators, alternatives by `or`, matchers on `__name__`, quoted names.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let shown = || shorten(text);
        let expr = parse(text).map_err(|why| SelectorError::Syntax { text: shown(), why })?;
        let refuse = |what: &str| SelectorError::NotASelector { text: shown(), what: what.to_owned() };
        let Expr::VectorSelector(parsed) = expr else {
            return Err(refuse(describe(&expr)));
        };
        if parsed.offset.is_some() {
            return Err(refuse("a selector with an offset"));
        }
        if parsed.at.is_some() {
            return Err(refuse("a selector at a fixed time"));
        }
        if !parsed.matchers.or_matchers.is_empty() {
            return Err(refuse("several selectors joined by `or`"));
        }
        let metric = parsed.name.ok_or_else(|| SelectorError::NoName { text: shown() })?;
        if !is_metric_name(&metric) {
            return Err(SelectorError::Name { text: shown(), name: metric });
        }
        let mut matchers = Vec::new();
        let mut compiled = Vec::new();
        for matcher in parsed.matchers.matchers {
            if matcher.name == "__name__" {
                return Err(SelectorError::NoName { text: shown() });
            }
            if !is_label_name(&matcher.name) {
                return Err(SelectorError::Name { text: shown(), name: matcher.name });
            }
            let kind = match matcher.op {
                MatchOp::Equal => MatchKind::Equal,
                MatchOp::NotEqual => MatchKind::NotEqual,
                MatchOp::Re(_) => MatchKind::Regex,
                MatchOp::NotRe(_) => MatchKind::NotRegex,
            };
            compiled.push(match kind {
                MatchKind::Equal | MatchKind::NotEqual => None,
                MatchKind::Regex | MatchKind::NotRegex => {
                    Some(compile(&matcher.value).map_err(|why| SelectorError::Syntax { text: shown(), why })?)
                }
            });
            matchers.push(Matcher { label: matcher.name, kind, value: matcher.value });
        }
        Ok(Self { metric, matchers, compiled })
    }

    /// The metric's name.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The user's matchers.
    #[must_use]
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// The bucket counters of the classic histogram of this name; a name that ends in `_bucket`
    /// already is kept.
    #[must_use]
    pub fn bucket(&self) -> Self {
        self.with_suffix("_bucket")
    }

    /// The native histogram of this name.
    #[must_use]
    pub fn native(&self) -> Self {
        self.with_suffix("")
    }

    /// The request counter of the classic histogram of this name.
    #[must_use]
    pub fn count(&self) -> Self {
        self.with_suffix("_count")
    }

    fn with_suffix(&self, suffix: &str) -> Self {
        let base = self.metric.strip_suffix("_bucket").unwrap_or(&self.metric);
        Self { metric: format!("{base}{suffix}"), ..self.clone() }
    }

    /// Whether a user's matcher is on one of these labels, which a scope sets.
    ///
    /// # Errors
    /// [`SelectorError::Reserved`] where one is.
    pub fn leaves(&self, labels: &[&str]) -> Result<(), SelectorError> {
        match self.matchers.iter().find(|matcher| labels.contains(&matcher.label.as_str())) {
            Some(matcher) => Err(SelectorError::Reserved { selector: self.to_string(), label: matcher.label.clone() }),
            None => Ok(()),
        }
    }

    /// The selector confined to a scope, as PromQL.
    ///
    /// # Errors
    /// [`SelectorError::Reserved`] where the user has a matcher on a label that the scope sets.
    pub fn scoped(&self, scope: &Scope) -> Result<Scoped, SelectorError> {
        let labels = scope.labels();
        self.leaves(&match scope.subject() {
            Subject::Service(_) => labels.set_for_services(),
            Subject::Pods(_) | Subject::PodsOf(_) | Subject::Total => labels.set_for_pods(),
        })?;
        let mut parts = scope.matchers();
        parts.extend(self.matchers.iter().map(ToString::to_string));
        Ok(Scoped::new(format!("{}{{{}}}", self.metric, parts.join(","))))
    }

    /// Whether a series has labels that every matcher accepts. The metric's name is not looked
    /// at. A label that is absent is empty, as in PromQL.
    #[must_use]
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matchers.iter().zip(&self.compiled).all(|(matcher, compiled)| {
            let value = labels.get(&matcher.label).map_or("", String::as_str);
            match (matcher.kind, compiled) {
                (MatchKind::Equal, _) => value == matcher.value,
                (MatchKind::NotEqual, _) => value != matcher.value,
                (MatchKind::Regex, Some(regex)) => regex.is_match(value),
                (MatchKind::NotRegex, Some(regex)) => !regex.is_match(value),
                (MatchKind::Regex | MatchKind::NotRegex, None) => false,
            }
        })
    }

    /// Whether these labels tell this selector's requests from others: all of them have the labels that the matchers
    /// look at, and some are not the selector's. Labels that all have alike, or a selector without any, are of a counter
    /// of its own: they would make every request one of the selector's.
    pub(crate) fn told_by<'a>(&self, all: impl Iterator<Item = &'a BTreeMap<String, String>>) -> bool {
        let mut others = false;
        for labels in all {
            if !self.matchers.iter().all(|matcher| labels.contains_key(&matcher.label)) {
                return false;
            }
            others |= !self.matches_labels(labels);
        }
        others
    }

    /// Whether a series is one of this selector's: its name and its labels.
    #[must_use]
    pub fn matches(&self, series: &Series) -> bool {
        series.label("__name__") == self.metric && self.matches_labels(&series.labels)
    }

    /// The labels that this selector names and no series carries: a matcher on one of them can
    /// only ever see an empty value, which is a misspelling more often than an intention.
    #[must_use]
    pub fn unknown_labels(&self, series: &[Series]) -> Vec<&str> {
        let mut unknown: Vec<&str> = self
            .matchers
            .iter()
            .map(|matcher| matcher.label.as_str())
            .filter(|label| !series.iter().any(|one| one.labels.contains_key(*label)))
            .collect();
        unknown.dedup();
        unknown
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?s:{expression})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|_| format!("{:?} is not a regular expression that can be used", shorten(expression)))
}

fn describe(expr: &Expr) -> &'static str {
    match expr {
        Expr::Aggregate(_) => "an aggregation",
        Expr::Unary(_) | Expr::Binary(_) => "an arithmetic expression",
        Expr::Paren(_) => "an expression in parentheses",
        Expr::Subquery(_) => "a subquery",
        Expr::NumberLiteral(_) => "a number",
        Expr::StringLiteral(_) => "a string",
        Expr::VectorSelector(_) => "a selector",
        Expr::MatrixSelector(_) => "a range of samples",
        Expr::Call(_) => "a function call",
        Expr::Extension(_) => "an extension of PromQL",
    }
}

pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 120;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(SHOWN).collect();
    out.push('…');
    out
}
