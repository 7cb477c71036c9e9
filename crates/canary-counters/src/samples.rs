//! Raw samples as a metrics store returns them: a series, its labels, its values with their own
//! times. Plain data; nothing here judges it.

use std::collections::BTreeMap;

/// One raw value at the time at which it was scraped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The value as scraped: for a counter, its total since the process started.
    pub value: f64,
}

/// One series: a set of labels and its samples, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// All labels, `__name__` included where the store gave it.
    pub labels: BTreeMap<String, String>,
    /// The samples, strictly ascending in time.
    pub samples: Vec<Sample>,
}

impl Series {
    /// The value of a label; a label that is not there is the empty string, as in PromQL.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The series as a person writes it: `{code="500",pod="web-1"}`, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = self.label("__name__").to_owned();
        out.push('{');
        let mut first = true;
        for (name, value) in &self.labels {
            if name == "__name__" {
                continue;
            }
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(name);
            out.push('=');
            crate::promql::quote(value, &mut out);
        }
        out.push('}');
        out
    }
}
