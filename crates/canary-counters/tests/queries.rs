//! Users' PromQL: what is accepted, and that nothing gets out of its namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use canary_counters::{LabelNames, QueryError, Scope, check_query, scope_query};
use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, VectorSelector};
use proptest::prelude::*;

fn scope() -> Scope {
    Scope::pods("shop", ["web-a", "web-b"], &LabelNames::default()).unwrap()
}

fn scoped(query: &str) -> Result<String, QueryError> {
    scope_query(query, &scope(), false).map(|scoped| scoped.to_string())
}

/// Every vector selector of an expression, found by our own walk.
fn selectors<'a>(expr: &'a Expr, found: &mut Vec<&'a VectorSelector>) {
    match expr {
        Expr::Aggregate(a) => {
            selectors(&a.expr, found);
            if let Some(param) = &a.param {
                selectors(param, found);
            }
        }
        Expr::Unary(u) => selectors(&u.expr, found),
        Expr::Binary(b) => {
            selectors(&b.lhs, found);
            selectors(&b.rhs, found);
        }
        Expr::Paren(p) => selectors(&p.expr, found),
        Expr::Subquery(s) => selectors(&s.expr, found),
        Expr::VectorSelector(v) => found.push(v),
        Expr::MatrixSelector(m) => found.push(&m.vs),
        Expr::Call(c) => c.args.args.iter().for_each(|arg| selectors(arg, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// The promise: in what goes out, every selector has exactly the forced namespace.
fn assert_confined(query: &str, out: &str) {
    let expr = promql_parser::parser::parse(out).unwrap_or_else(|error| panic!("{query} -> {out}: {error}"));
    let mut found = Vec::new();
    selectors(&expr, &mut found);
    for selector in found {
        assert!(selector.matchers.or_matchers.is_empty(), "{query} -> {out}");
        let on_namespace = selector.matchers.find_matchers("namespace");
        assert_eq!(on_namespace.len(), 1, "{query} -> {out}");
        assert!(matches!(on_namespace[0].op, MatchOp::Equal), "{query} -> {out}");
        assert_eq!(on_namespace[0].value, "shop", "{query} -> {out}");
    }
}

#[test]
fn queries_are_confined_and_pods_filled_in() {
    let table = [
        (
            r#"max(ws_staleness_seconds{pod=~"$pods"})"#,
            r#"max(ws_staleness_seconds{namespace="shop",pod=~"web-a|web-b"})"#,
        ),
        ("up", r#"up{namespace="shop"}"#),
        ("{job=\"x\"}", r#"{namespace="shop",job="x"}"#),
        (
            r#"sum by (pod) (rate(x{pod=~"$pods"}[5m]))"#,
            r#"sum by (pod) (rate(x{namespace="shop",pod=~"web-a|web-b"}[300000ms]))"#,
        ),
        ("a + b * c", r#"(a{namespace="shop"}) + ((b{namespace="shop"}) * (c{namespace="shop"}))"#),
        ("(a + b) * c", r#"((a{namespace="shop"}) + (b{namespace="shop"})) * (c{namespace="shop"})"#),
        ("2 ^ 3 ^ 2", "(2) ^ ((3) ^ (2))"),
        ("a unless on (pod) b", r#"(a{namespace="shop"}) unless on (pod) (b{namespace="shop"})"#),
        (
            "a / ignoring (code) group_left (node) b",
            r#"(a{namespace="shop"}) / ignoring (code) group_left (node) (b{namespace="shop"})"#,
        ),
        ("a > bool 1", r#"(a{namespace="shop"}) > bool (1)"#),
        (
            "max_over_time(rate(a[1m])[10m:30s])",
            r#"max_over_time((rate(a{namespace="shop"}[60000ms]))[600000ms:30000ms])"#,
        ),
        ("topk(3, a)", r#"topk(3, a{namespace="shop"})"#),
        ("quantile(0.9, a)", r#"quantile(0.9, a{namespace="shop"})"#),
        ("-a", r#"-(a{namespace="shop"})"#),
        ("a offset 1d", r#"a{namespace="shop"} offset 86400000ms"#),
        ("sum without (pod) (a)", r#"sum without (pod) (a{namespace="shop"})"#),
        (
            "histogram_quantile(0.99, sum by (le) (rate(h_bucket[1m])))",
            r#"histogram_quantile(0.99, sum by (le) (rate(h_bucket{namespace="shop"}[60000ms])))"#,
        ),
        (r#"a{namespace="shop"}"#, r#"a{namespace="shop"}"#),
        (
            r#"label_replace(a, "x", "$1", "y", "(.*)")"#,
            r#"label_replace(a{namespace="shop"}, "x", "$1", "y", "(.*)")"#,
        ),
        ("1e3", "1000"),
        ("vector(1)", "vector(1)"),
        (r#"a{pod!~"$pods"}"#, r#"a{namespace="shop",pod!~"web-a|web-b"}"#),
    ];
    for (query, expected) in table {
        let out = scoped(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(out, expected, "{query}");
        assert_confined(query, &out);
        // What went out is itself accepted and unchanged but for parentheses already there.
        assert_eq!(scoped(&out).unwrap(), out, "{query}: stable");
    }
}

#[test]
fn no_query_reads_another_namespace() {
    let table = [
        r#"a{namespace="other"}"#,
        r#"a{namespace!="shop"}"#,
        r#"a{namespace=~".*"}"#,
        r#"a{namespace=~"shop"}"#,
        r#"a{namespace!~"shop"}"#,
        r#"a{namespace=""}"#,
        r#"a{namespace="shop",namespace="other"}"#,
        r#"a{"namespace"="other"}"#,
        r#"a{'namespace'=~".+"}"#,
        r#"a or b{namespace="other"}"#,
        r#"max_over_time((a{namespace="other"})[5m:1m])"#,
        r#"count_values("x", a{namespace="other"})"#,
        r#"topk(scalar(a{namespace="other"}), b)"#,
        r#"a{x="1" or namespace="other"}"#,
        r#"a{namespace="shop" or x="1"}"#,
        r#"absent(a{namespace="other"})"#,
    ];
    for query in table {
        let error = scoped(query).expect_err(query);
        assert!(!error.to_string().is_empty());
    }
    assert!(matches!(scoped(r#"a{namespace="other"}"#), Err(QueryError::Namespace { .. })));
}

#[test]
fn text_can_not_break_out_of_its_quotes() {
    let table = [
        r#"a{x="\"} or b{namespace=\"other\"} #"}"#,
        "a{x='\"} or b{namespace=\"other\"} #'}",
        "a{x=`\"} or b #`}",
        r#"a{x="\\"}"#,
        r#"a{x="\\\""}"#,
        "a{x=\"\\n\\t\\x00\\u0085\"}",
        r#"label_replace(a, "x", "\")} or b{", "y", "")"#,
        r#"count_values("\"", a)"#,
        r#"{"a\"} or b{"}"#,
        r#"a{"x\"=\"1\",y"="2"}"#,
        r#"{__name__="a\"} or b{x=\""}"#,
        r#"sum by ("x) (b) or (c") (a)"#,
        "a # } or b{namespace=\"other\"}",
        "a{x=\"#\"}",
    ];
    let mut accepted = 0;
    for query in table {
        if let Ok(out) = scoped(query) {
            accepted += 1;
            assert_confined(query, &out);
        }
    }
    assert!(accepted >= 8, "most of these are legal PromQL: {accepted}");
}

#[test]
fn what_would_judge_another_time_or_invent_data_is_refused() {
    for (query, part) in [
        (r#"a{pod=~"$pods"} offset 1h"#, "offset"),
        (r#"max_over_time(a{pod=~"$pods"}[5m] offset 1h)"#, "offset"),
        (r#"max_over_time((a{pod=~"$pods"})[5m:1m] offset 1h)"#, "offset"),
        ("a offset -1h", "future"),
        ("a @ 0", "another time"),
        ("a @ end()", "another time"),
        ("max_over_time(a[5m:1m] @ start())", "another time"),
        ("info(a)", "info"),
        (r#"info(a, {namespace="other"})"#, ""),
        ("a + fill (0) b", ""),
    ] {
        let message = scoped(query).expect_err(query).to_string();
        assert!(message.contains(part), "{query}: {message}");
    }
}

#[test]
fn the_pods_must_be_named_unless_the_scope_is_total() {
    let labels = LabelNames::default();
    let query = r#"max(x{pod=~"$pods"})"#;
    assert!(check_query(query, "shop", &labels, true).is_ok());
    for query in ["max(x)", r#"max(x{pod!~"$pods"})"#, r#"max(x{pod=~"web.*"})"#] {
        let error = check_query(query, "shop", &labels, true).unwrap_err();
        assert!(matches!(error, QueryError::PodsMissing { .. }), "{query}: {error}");
        assert!(check_query(query, "shop", &labels, false).is_ok(), "{query}");
    }
    for query in [
        r#"x{pod="$pods"}"#,
        r#"x{pod=~"$pods|.*"}"#,
        r#"x{pod=~"($pods)"}"#,
        r#"x{pod=~"$pods$pods"}"#,
        r#"label_replace(x, "a", "$pods", "b", "")"#,
        r#"x{"$pods"="1"}"#,
        r#"{__name__="$pods"}"#,
    ] {
        let error = check_query(query, "shop", &labels, false).expect_err(query);
        assert!(matches!(error, QueryError::PodsMisplaced { .. }), "{query}: {error}");
    }
    let total = Scope::total("shop", &labels).unwrap();
    assert!(scope_query(query, &total, false).is_err(), "no pods to put in place of $pods");
    assert!(scope_query("max(x)", &total, false).is_ok());
}

#[test]
fn bad_queries_get_one_line_that_says_why() {
    for query in
        ["", "sum(", "a b", "rate(a)", "a[5m", "foo(a)", "a{", "sum by (a", "1 +", "\u{0}", "💥", "a{x=~\"[\"}"]
    {
        let error = scoped(query).expect_err(query);
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn deep_and_long_queries_are_refused_before_they_are_parsed() {
    for query in [
        format!("{}a{}", "(".repeat(2000), ")".repeat(2000)),
        "-".repeat(4000) + "a",
        "a+".repeat(1500) + "a",
        "a or ".repeat(500) + "a",
        "a".repeat(10_000),
        format!("{}a{}", "abs(".repeat(500), ")".repeat(500)),
    ] {
        assert!(scoped(&query).is_err());
    }
    // Just below the bound it works, on the small stack of a test's thread.
    for query in [
        format!("{}a{}", "(".repeat(200), ")".repeat(200)),
        "-".repeat(200) + "a",
        "a+".repeat(200) + "a",
        "a^".repeat(200) + "a",
    ] {
        let out = scoped(&query).unwrap_or_else(|error| panic!("{error}"));
        assert!(out.contains("namespace"));
    }
}

#[test]
fn numbers_that_no_duration_holds_are_refused_before_they_are_parsed() {
    for query in
        ["a[1e30]", "a[99999999999999999999]", "a offset 1e30", "a offset -1e30", "a[5m:1e19]", "a[1e400]", "a[.1e+40]"]
    {
        let error = scoped(query).expect_err(query).to_string();
        assert!(error.contains("1e18") || !error.contains("gave up"), "{query}: {error}");
    }
    for query in [
        "a[inf]",
        "a[nan]",
        "a[-5m]",
        "a[0x1f]",
        "a[99999999y]",
        "a offset inf",
        "a offset  -Inf",
        "a offset NaN",
        "a[0]",
        "a[1_0]",
    ] {
        if let Err(error) = scoped(query) {
            assert!(!error.to_string().contains("gave up"), "{query}: {error}");
        }
    }
    assert_eq!(scoped("a < 1e6").unwrap(), r#"(a{namespace="shop"}) < (1000000)"#);
    assert!(scoped(r#"a{le="+Inf"}"#).is_ok());
}

/// Words that make PromQL, in any order: most are refused, none may escape.
fn soup() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "a",
        "b_total",
        "{",
        "}",
        "(",
        ")",
        "[5m]",
        "[5m:1m]",
        ",",
        "=",
        "=~",
        "!=",
        "!~",
        "\"x\"",
        "'y'",
        "`z`",
        "namespace",
        "\"namespace\"",
        "\"other\"",
        "\"$pods\"",
        "pod",
        "__name__",
        "or",
        "and",
        "unless",
        "+",
        "-",
        "*",
        "/",
        "^",
        "sum",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "rate",
        "max_over_time",
        "offset",
        "5m",
        "-5m",
        "@",
        "end()",
        "0",
        "1",
        "1e400",
        "NaN",
        "inf",
        "0x1f",
        "08",
        "bool",
        ">",
        "==",
        "topk",
        "#",
        "\\",
        "\"\\\"\"",
        "label_replace",
        "info",
        "x=\"1\"",
        "{x=\"1\"}",
        "{namespace=\"other\"}",
        "scalar",
        "vector",
        "time()",
        "[inf]",
        "[1e30]",
        "[-5m]",
        "[0]",
        "[99999999y]",
        "é",
        "\u{0}",
    ]);
    (prop::collection::vec(words, 1..14), prop::sample::select(vec!["", " "])).prop_map(|(words, gap)| words.join(gap))
}

/// Legal PromQL of any shape, with and without an attempt on the namespace.
fn legal() -> impl Strategy<Value = (String, bool)> {
    let matcher = prop::sample::select(vec![
        ("x=\"1\"", true),
        ("pod=~\"$pods\"", true),
        ("namespace=\"shop\"", true),
        ("\"namespace\"=\"shop\"", true),
        ("namespace=\"other\"", false),
        ("'namespace'!=\"shop\"", false),
        ("y!~\"a|b\"", true),
        ("z=\"} or b{\"", true),
    ]);
    let leaf = (prop::sample::select(vec!["a", "b_total", "sum", "c:d"]), prop::collection::vec(matcher, 0..3))
        .prop_map(|(name, matchers)| {
            let inside: Vec<&str> = matchers.iter().map(|(text, _)| *text).collect();
            (format!("{name}{{{}}}", inside.join(",")), matchers.iter().all(|(_, fine)| *fine))
        });
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(vec![
                    "abs({})",
                    "sum by (x) ({})",
                    "-{}",
                    "({})",
                    "topk(2, {})",
                    "count_values(\"v\", {})",
                    "max_over_time(({})[5m:])",
                    "scalar({}) + vector(1)"
                ])
            )
                .prop_map(|((text, fine), form)| (form.replace("{}", &text), fine)),
            (
                inner.clone(),
                inner,
                prop::sample::select(vec![
                    "+",
                    "/",
                    "or",
                    "unless on (x)",
                    "and ignoring (y)",
                    "> bool",
                    "* on (x) group_left (y)",
                    "^"
                ])
            )
                .prop_map(|((left, a), (right, b), operator)| (format!("{left} {operator} {right}"), a && b)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn no_mixture_of_words_escapes_or_makes_the_parser_panic(query in soup()) {
        match scoped(&query) {
            Ok(out) => {
                assert_confined(&query, &out);
                let again = scoped(&out).unwrap();
                prop_assert_eq!(again, out);
            }
            Err(error) => prop_assert!(!error.to_string().contains("gave up"), "the parser panics on {:?}", query),
        }
    }

    #[test]
    fn legal_queries_are_confined_and_attempts_refused((query, fine) in legal()) {
        // Some combinations are ill-typed; then there is nothing to confine.
        if promql_parser::parser::parse(&query).is_ok() {
            match scoped(&query) {
                Ok(out) => {
                    prop_assert!(fine, "{} -> {}", query, out);
                    assert_confined(&query, &out);
                }
                Err(error) => prop_assert!(!fine, "{}: {}", query, error),
            }
        }
    }

    #[test]
    fn no_text_panics(query in "\\PC{0,60}") {
        if let Ok(out) = scoped(&query) {
            assert_confined(&query, &out);
        }
        let _ = canary_counters::Selector::parse(&query);
    }

    #[test]
    fn any_label_value_stays_inside_its_quotes(value in any::<String>()) {
        let quoted: String = value.chars().map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            c => c.to_string(),
        }).collect();
        if let Ok(out) = scoped(&format!("a{{x=\"{quoted}\"}}")) {
            assert_confined(&value, &out);
            let expr = promql_parser::parser::parse(&out).unwrap();
            let mut found = Vec::new();
            selectors(&expr, &mut found);
            let kept = found[0].matchers.find_matchers("x");
            prop_assert_eq!(&kept[0].value, &value);
        }
    }
}
