//! Answers to `value` gates: one number, or one per pod of which the worst decides. Decides what
//! counts as an answer; how many ticks in a row make a breach is the kernel's.

use std::collections::{BTreeMap, BTreeSet};

/// An answer of an instant query.
#[derive(Debug, Clone, PartialEq)]
pub enum Instant {
    /// One number without labels.
    Scalar(f64),
    /// Series with one value each.
    Vector(Vec<(BTreeMap<String, String>, f64)>),
}

/// What a value must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueLimit {
    /// At most.
    Max(f64),
    /// At least.
    Min(f64),
}

impl ValueLimit {
    /// Whether the value keeps to it. NaN never does.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Max(max) => value <= max,
            Self::Min(min) => value >= min,
        }
    }

    fn worse(self, value: f64, than: f64) -> bool {
        match self {
            Self::Max(_) => value > than,
            Self::Min(_) => value < than,
        }
    }
}

/// A `value` gate at one tick.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Measured {
        /// The worst one.
        value: f64,
        /// Of which pod, where the answer says.
        pod: Option<String>,
        /// Whether it keeps to the limit.
        within: bool,
        /// Pods that should have answered and did not: may be a breach, never a pass.
        missing: Vec<String>,
    },
    /// An empty answer.
    NoData(String),
    /// An answer that makes no sense.
    Error(String),
}

/// The worst of an answer. `pods` are the pods asked about.
#[must_use]
pub fn worst(answer: &Instant, limit: ValueLimit, pod_label: &str, pods: &BTreeSet<String>) -> Value {
    let values = match answer {
        Instant::Scalar(value) => vec![(None, *value)],
        Instant::Vector(series) => {
            let several = series.len() > 1;
            let mut values = Vec::new();
            for (labels, value) in series {
                let pod = labels.get(pod_label).filter(|pod| !pod.is_empty());
                match pod {
                    None if several => {
                        return Value::Error(format!(
                            "the query returns {} series, and not each has the label {pod_label:?}; aggregate them to one, or by ({pod_label})",
                            series.len()
                        ));
                    }
                    Some(pod) if !pods.contains(pod) => {
                        return Value::Error(format!(
                            "the query returns a value of {pod}, which was not asked about; add {pod_label}=~\"$pods\" to every selector of it"
                        ));
                    }
                    pod => values.push((pod.cloned(), *value)),
                }
            }
            values
        }
    };
    let mut worst: Option<(Option<String>, f64)> = None;
    for (pod, value) in values {
        if !value.is_finite() {
            return Value::Error(format!(
                "the query returns {value}{}, which can't be compared",
                pod.map(|pod| format!(" for {pod}")).unwrap_or_default()
            ));
        }
        if worst.as_ref().is_none_or(|(_, than)| limit.worse(value, *than)) {
            worst = Some((pod, value));
        }
    }
    let Some((pod, value)) = worst else {
        return Value::NoData("the query returns nothing".to_owned());
    };
    let missing = match (&pod, answer) {
        (Some(_), Instant::Vector(series)) => {
            let answered: BTreeSet<&String> = series.iter().filter_map(|(labels, _)| labels.get(pod_label)).collect();
            pods.iter().filter(|pod| !answered.contains(pod)).cloned().collect()
        }
        _ => Vec::new(),
    };
    Value::Measured { value, pod, within: limit.holds(value), missing }
}
