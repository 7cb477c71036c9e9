//! PromQL of users, for `value` gates: which expressions are accepted, and how one is confined to
//! a [`Scope`]. The namespace is forced on every selector of the syntax tree, `$pods` becomes the
//! pods' names, and the text that goes out is written anew from the tree. It never evaluates.

use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::{
    AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, SubqueryExpr, VectorMatchCardinality,
    VectorSelector,
};
use std::time::Duration;
use thiserror::Error;

use crate::promql::{is_label_name, is_metric_name, parse, quote};
use crate::scope::{LabelNames, Scope, ScopeError, Scoped, Subject};
use crate::selector::shorten;

/// What stands for the pods in a user's query.
const PODS: &str = "$pods";

/// Functions that read nothing but their arguments. `info` is not here: it reads series that no
/// selector in the query names.
const FUNCTIONS: &[&str] = &[
    "abs",
    "absent",
    "absent_over_time",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count_over_time",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "delta",
    "deriv",
    "exp",
    "floor",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantile",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "hour",
    "idelta",
    "increase",
    "irate",
    "label_join",
    "label_replace",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "max_over_time",
    "min_over_time",
    "minute",
    "month",
    "pi",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rad",
    "rate",
    "resets",
    "round",
    "scalar",
    "sgn",
    "sin",
    "sinh",
    "sort",
    "sort_desc",
    "sqrt",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
    "tan",
    "tanh",
    "time",
    "timestamp",
    "vector",
    "year",
];

const AGGREGATIONS: &[&str] =
    &["sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk", "quantile"];

const OPERATORS: &[&str] =
    &["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"];

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Not PromQL.
    #[error("{query:?} is not PromQL that can be used: {why}")]
    Syntax {
        /// What was written.
        query: String,
        /// What the parser said.
        why: String,
    },
    /// PromQL that is not accepted.
    #[error("{query:?} is refused: {why}")]
    Refused {
        /// What was written.
        query: String,
        /// What is not accepted, and what to write instead.
        why: String,
    },
    /// Another namespace.
    #[error(
        "{query:?} asks for {matcher}, but a CanaryRelease may only read its own namespace {namespace:?}; remove the matcher, the operator adds it"
    )]
    Namespace {
        /// What was written.
        query: String,
        /// The matcher in question.
        matcher: String,
        /// The release's own namespace.
        namespace: String,
    },
    /// No `$pods`.
    #[error(
        "{query:?} does not name the candidate's pods: add a matcher such as {pod}=~\"$pods\", or set `scope: Total`"
    )]
    PodsMissing {
        /// What was written.
        query: String,
        /// The provider's label for pods.
        pod: String,
    },
    /// `$pods` where it can't be.
    #[error("{query:?} uses $pods outside of a matcher; write it as {pod}=~\"$pods\" and alone in its quotes")]
    PodsMisplaced {
        /// What was written.
        query: String,
        /// The provider's label for pods.
        pod: String,
    },
    /// The scope itself.
    #[error(transparent)]
    Scope(#[from] ScopeError),
}

impl QueryError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::Refused { .. } => "refused",
            Self::Namespace { .. } => "namespace",
            Self::PodsMissing { .. } | Self::PodsMisplaced { .. } => "pods",
            Self::Scope(error) => error.category(),
        }
    }
}

/// Confines a query to a scope. `require_pods` is false where the gate says `scope: Total` or the
/// admin has lifted the rule for the provider.
///
/// # Errors
/// Whatever can't be parsed or isn't accepted; the message says what to write instead.
pub fn scope_query(query: &str, scope: &Scope, require_pods: bool) -> Result<Scoped, QueryError> {
    let expr = parse(query).map_err(|why| QueryError::Syntax { query: shorten(query), why })?;
    let mut writer = Writer { query, scope, pods: scope.pods_regex(), uses_pods: false, out: String::new() };
    writer.expr(&expr)?;
    if require_pods && !writer.uses_pods {
        return Err(QueryError::PodsMissing { query: shorten(query), pod: scope.labels().pod.clone() });
    }
    Ok(Scoped::new(writer.out))
}

/// Whether a query will be accepted for a release in this namespace, before there are any pods.
///
/// # Errors
/// As [`scope_query`].
pub fn check_query(query: &str, namespace: &str, labels: &LabelNames, require_pods: bool) -> Result<(), QueryError> {
    let scope = Scope::pods(namespace, ["pod"], labels)?;
    scope_query(query, &scope, require_pods).map(|_| ())
}

/// Writes an expression anew. Operands are always put in parentheses, so that no rule of
/// precedence is relied on twice.
struct Writer<'a> {
    query: &'a str,
    scope: &'a Scope,
    pods: Option<String>,
    uses_pods: bool,
    out: String,
}

impl Writer<'_> {
    fn refused(&self, why: impl Into<String>) -> QueryError {
        QueryError::Refused { query: shorten(self.query), why: why.into() }
    }

    fn misplaced(&self) -> QueryError {
        QueryError::PodsMisplaced { query: shorten(self.query), pod: self.scope.labels().pod.clone() }
    }

    fn expr(&mut self, expr: &Expr) -> Result<(), QueryError> {
        match expr {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Unary(unary) => {
                self.out.push('-');
                self.operand(&unary.expr)
            }
            Expr::Binary(binary) => self.binary(binary),
            Expr::Paren(paren) => self.operand(&paren.expr),
            Expr::Subquery(subquery) => self.subquery(subquery),
            Expr::NumberLiteral(number) => {
                self.number(number.val);
                Ok(())
            }
            Expr::StringLiteral(string) => self.string(&string.val),
            Expr::VectorSelector(selector) => self.selector(selector, None),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs, Some(matrix.range)),
            Expr::Call(call) => self.call(call),
            Expr::Extension(_) => Err(self.refused("it is not plain PromQL")),
        }
    }

    fn operand(&mut self, expr: &Expr) -> Result<(), QueryError> {
        let mut inner = expr;
        while let Expr::Paren(paren) = inner {
            inner = &paren.expr;
        }
        self.out.push('(');
        self.expr(inner)?;
        self.out.push(')');
        Ok(())
    }

    fn number(&mut self, value: f64) {
        if value.is_nan() {
            self.out.push_str("NaN");
        } else if value.is_infinite() {
            self.out.push_str(if value < 0.0 { "-Inf" } else { "Inf" });
        } else {
            self.out.push_str(&value.to_string());
        }
    }

    fn string(&mut self, text: &str) -> Result<(), QueryError> {
        if text.contains(PODS) {
            return Err(self.misplaced());
        }
        quote(text, &mut self.out);
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Result<(), QueryError> {
        let name = aggregate.op.to_string();
        if !AGGREGATIONS.contains(&name.as_str()) {
            return Err(self.refused(format!("the aggregation {name} is not supported")));
        }
        self.out.push_str(&name);
        if let Some(modifier) = &aggregate.modifier {
            let (word, labels) = match modifier {
                LabelModifier::Include(labels) => (" by ", labels),
                LabelModifier::Exclude(labels) => (" without ", labels),
            };
            self.out.push_str(word);
            self.labels(&labels.labels)?;
            self.out.push(' ');
        }
        self.out.push('(');
        if let Some(param) = &aggregate.param {
            self.expr(param)?;
            self.out.push_str(", ");
        }
        self.expr(&aggregate.expr)?;
        self.out.push(')');
        Ok(())
    }

    fn labels(&mut self, labels: &[String]) -> Result<(), QueryError> {
        self.out.push('(');
        for (index, label) in labels.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.label(label)?;
        }
        self.out.push(')');
        Ok(())
    }

    fn label(&mut self, label: &str) -> Result<(), QueryError> {
        if label.is_empty() || label.contains(PODS) {
            return Err(self.refused(format!("{label:?} is not a label name")));
        }
        if is_label_name(label) {
            self.out.push_str(label);
        } else {
            quote(label, &mut self.out);
        }
        Ok(())
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Result<(), QueryError> {
        let operator = binary.op.to_string();
        if !OPERATORS.contains(&operator.as_str()) {
            return Err(self.refused(format!("the operator {operator} is not supported")));
        }
        self.operand(&binary.lhs)?;
        self.out.push(' ');
        self.out.push_str(&operator);
        if let Some(modifier) = &binary.modifier {
            self.modifier(modifier)?;
        }
        self.out.push(' ');
        self.operand(&binary.rhs)
    }

    fn modifier(&mut self, modifier: &BinModifier) -> Result<(), QueryError> {
        if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
            return Err(self.refused("`fill` makes up values for missing data, and missing data must stay missing"));
        }
        if modifier.return_bool {
            self.out.push_str(" bool");
        }
        match &modifier.matching {
            Some(LabelModifier::Include(labels)) => {
                self.out.push_str(" on ");
                self.labels(&labels.labels)?;
            }
            Some(LabelModifier::Exclude(labels)) => {
                self.out.push_str(" ignoring ");
                self.labels(&labels.labels)?;
            }
            None => {}
        }
        match &modifier.card {
            VectorMatchCardinality::ManyToOne(labels) => {
                self.out.push_str(" group_left ");
                self.labels(&labels.labels)?;
            }
            VectorMatchCardinality::OneToMany(labels) => {
                self.out.push_str(" group_right ");
                self.labels(&labels.labels)?;
            }
            VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {}
        }
        Ok(())
    }

    fn subquery(&mut self, subquery: &SubqueryExpr) -> Result<(), QueryError> {
        if subquery.at.is_some() {
            return Err(self.refused("`@` would judge another time than now"));
        }
        let before = std::mem::replace(&mut self.uses_pods, false);
        self.operand(&subquery.expr)?;
        let inside = std::mem::replace(&mut self.uses_pods, before);
        self.uses_pods |= inside;
        self.out.push('[');
        self.duration(subquery.range)?;
        self.out.push(':');
        if let Some(step) = subquery.step {
            self.duration(step)?;
        }
        self.out.push(']');
        self.offset(subquery.offset.as_ref(), inside)
    }

    fn call(&mut self, call: &Call) -> Result<(), QueryError> {
        if !FUNCTIONS.contains(&call.func.name) {
            return Err(self.refused(format!("the function {} is not supported", call.func.name)));
        }
        self.out.push_str(call.func.name);
        self.out.push('(');
        for (index, argument) in call.args.args.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.expr(argument)?;
        }
        self.out.push(')');
        Ok(())
    }

    fn duration(&mut self, duration: Duration) -> Result<(), QueryError> {
        let millis = duration.as_millis();
        if millis == 0 || millis > 366 * 24 * 3600 * 1000 {
            return Err(self.refused("a duration must be at least 1ms and at most 366 days"));
        }
        self.out.push_str(&format!("{millis}ms"));
        Ok(())
    }

    /// What the candidate's pods say now is judged, not what they said; a comparison with other
    /// series of another day is fine.
    fn offset(&mut self, offset: Option<&Offset>, of_pods: bool) -> Result<(), QueryError> {
        match offset {
            None => Ok(()),
            Some(Offset::Neg(_)) => Err(self.refused("a negative offset looks into the future")),
            Some(Offset::Pos(_)) if of_pods => {
                Err(self.refused("an offset on the candidate's pods would judge old data; remove it"))
            }
            Some(Offset::Pos(duration)) => {
                self.out.push_str(" offset ");
                self.duration(*duration)
            }
        }
    }

    fn selector(&mut self, selector: &VectorSelector, range: Option<Duration>) -> Result<(), QueryError> {
        if selector.at.is_some() {
            return Err(self.refused("`@` would judge another time than now"));
        }
        let Matchers { matchers, or_matchers } = &selector.matchers;
        if !or_matchers.is_empty() {
            return Err(self.refused("`or` inside braces is not supported; join two selectors with `or` outside"));
        }
        let mut parts = Vec::new();
        match &selector.name {
            Some(name) if name.contains(PODS) => return Err(self.misplaced()),
            Some(name) if is_metric_name(name) => self.out.push_str(name),
            Some(name) => {
                let mut part = String::from("__name__=");
                quote(name, &mut part);
                parts.push(part);
            }
            None => {}
        }
        let namespace_label = &self.scope.labels().namespace;
        let mut namespace = String::from(namespace_label);
        namespace.push('=');
        quote(self.scope.namespace(), &mut namespace);
        parts.push(namespace);
        let mut of_pods = false;
        for matcher in matchers {
            if matcher.name == *namespace_label {
                let same = matches!(matcher.op, MatchOp::Equal) && matcher.value == self.scope.namespace();
                if !same {
                    return Err(QueryError::Namespace {
                        query: shorten(self.query),
                        matcher: shorten(&matcher.to_string()),
                        namespace: self.scope.namespace().to_owned(),
                    });
                }
                continue;
            }
            let (part, pods) = self.matcher(matcher)?;
            of_pods |= pods;
            parts.push(part);
        }
        self.uses_pods |= of_pods;
        self.out.push('{');
        self.out.push_str(&parts.join(","));
        self.out.push('}');
        if let Some(range) = range {
            self.out.push('[');
            self.duration(range)?;
            self.out.push(']');
        }
        self.offset(selector.offset.as_ref(), of_pods)
    }

    /// One matcher, and whether it names the pods.
    fn matcher(&self, matcher: &Matcher) -> Result<(String, bool), QueryError> {
        if matcher.name.is_empty() || matcher.name.contains(PODS) {
            return Err(self.misplaced());
        }
        let mut out = String::new();
        if is_label_name(&matcher.name) {
            out.push_str(&matcher.name);
        } else {
            quote(&matcher.name, &mut out);
        }
        let operator = match matcher.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Re(_) => "=~",
            MatchOp::NotRe(_) => "!~",
        };
        out.push_str(operator);
        if !matcher.value.contains(PODS) {
            quote(&matcher.value, &mut out);
            return Ok((out, false));
        }
        let (true, Some(pods)) = (matcher.value == PODS && matches!(operator, "=~" | "!~"), &self.pods) else {
            if matches!(self.scope.subject(), Subject::Pods(_) | Subject::PodsOf(_)) {
                return Err(self.misplaced());
            }
            return Err(self.refused("$pods has no meaning where the scope is not a set of pods"));
        };
        quote(pods, &mut out);
        Ok((out, operator == "=~"))
    }
}
