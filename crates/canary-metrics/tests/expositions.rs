//! Metrics as text: what exporters really write is read whole, what is not as the formats have it
//! is refused with its line, and no bytes whatever make the parser fail otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use canary_metrics::pods::exposition::{Exposed, ExpositionError, Fault, Format, Keep, Parser, Room, parse};
use proptest::prelude::*;

fn keep() -> Keep {
    Keep { names: None, max_series: 1000, max_line_bytes: 1000, room: Room::new(1 << 20) }
}

fn text(input: &str) -> Result<Vec<Exposed>, ExpositionError> {
    parse(input.as_bytes(), Format::Text, keep())
}

fn open(input: &str) -> Result<Vec<Exposed>, ExpositionError> {
    parse(input.as_bytes(), Format::OpenMetrics, keep())
}

/// As a person writes them, with the value.
fn shown(series: &[Exposed]) -> Vec<String> {
    let one = |exposed: &Exposed| {
        let labels: Vec<String> = exposed.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}{{{}}} {}", exposed.name, labels.join(","), exposed.value)
    };
    series.iter().map(one).collect()
}

#[test]
fn the_classic_format_is_read() {
    let input = "\
# HELP http_requests_total How many, with \\\\ and \\n and \"quotes\".
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
http_requests_total{method=\"post\",code=\"400\",}    3 -1395066363000

# a remark, and #TYPE that is none
  msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"}\t1.458255915e9
metric_without_labels 12.47
spaced { a = \"b\" , c = \"d\" } 1
closed{a=\"}, # {\"}1
empty{a=\"\",b=\"c\"} 0
none{} +0.5
:colon:rule 1
something_weird{problem=\"division by zero\"} +Inf -3982045
nan NaN
minus -Inf
lower{le=\"inf\"} inf
negative -1.5e-3
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile=\"0.01\"} 3102
rpc_duration_seconds_sum 1.7560473e+07
";
    assert_eq!(
        shown(&text(input).unwrap()),
        [
            r#"http_requests_total{method="post",code="200"} 1027"#,
            r#"http_requests_total{method="post",code="400"} 3"#,
            r#"msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1458255915"#,
            "metric_without_labels{} 12.47",
            r#"spaced{a="b",c="d"} 1"#,
            r##"closed{a="}, # {"} 1"##,
            r#"empty{b="c"} 0"#,
            "none{} 0.5",
            ":colon:rule{} 1",
            r#"something_weird{problem="division by zero"} inf"#,
            "nan{} NaN",
            "minus{} -inf",
            r#"lower{le="inf"} inf"#,
            "negative{} -0.0015",
            r#"rpc_duration_seconds{quantile="0.01"} 3102"#,
            "rpc_duration_seconds_sum{} 17560473",
        ]
    );
}

#[test]
fn openmetrics_is_read() {
    let input = "\
# TYPE foo_seconds histogram
# UNIT foo_seconds seconds
# HELP foo_seconds Latency.
foo_seconds_bucket{le=\"0.01\"} 0
foo_seconds_bucket{le=\"0.1\"} 8 # {} 0.054
foo_seconds_bucket{le=\"+Inf\"} 17 1520879607.789 # {trace_id=\"oHg5SJYRHA0 }\"} 9.8 1520879607.789
foo_seconds_count 17
foo_seconds_created 1.520430000123e9
# TYPE a counter
a_total 5.0 # {id=\"x\"} 1
# TYPE b stateset
b{b=\"on\"} 1
# EOF
";
    let series = open(input).unwrap();
    assert_eq!(series.len(), 7);
    assert_eq!(
        shown(&series)[1..3],
        [r#"foo_seconds_bucket{le="0.1"} 8"#.to_owned(), r#"foo_seconds_bucket{le="+Inf"} 17"#.to_owned()]
    );
    assert_eq!(shown(&series)[5], "a_total{} 5");
    assert_eq!(open("# EOF").unwrap(), [], "the end mark needs no end of its own");
    assert_eq!(open("a 1\n# EOF\n\n").unwrap().len(), 1);
}

#[test]
fn lines_may_end_as_elsewhere() {
    assert_eq!(text("# TYPE a counter\r\na 1\r\n\r\nb{c=\"d\"} 2 3\r\n").unwrap().len(), 2);
    assert_eq!(open("a 1\r\n# EOF\r\n").unwrap().len(), 1);
}

#[test]
fn a_bad_line_refuses_the_whole_and_is_named() {
    let table: &[(&str, Fault)] = &[
        ("<html>", Fault::WebPage),
        ("  <!DOCTYPE html>", Fault::WebPage),
        ("{\"a\":1}", Fault::Name),
        ("{a=\"b\"} 1", Fault::Name),
        ("{\"http.requests\",a=\"b\"} 1", Fault::Name),
        ("1a 1", Fault::Name),
        ("a.b 1", Fault::Name),
        ("a-1", Fault::Name),
        ("a+1", Fault::Name),
        ("é 1", Fault::Name),
        ("\u{feff}a 1", Fault::Name),
        ("a", Fault::Value),
        ("a ", Fault::Value),
        ("a{}", Fault::Value),
        ("a{b=\"c\"}", Fault::Value),
        ("a b", Fault::Value),
        ("a 1,5", Fault::Value),
        ("a 1_000", Fault::Value),
        ("a 0x1p3", Fault::Value),
        ("a 1e999", Fault::Value),
        ("a --1", Fault::Value),
        ("a .", Fault::Value),
        ("a e", Fault::Value),
        ("a infinity", Fault::Value),
        ("a # {} 1", Fault::Value),
        ("a 1 x", Fault::Time),
        ("a 1 1.5", Fault::Time),
        ("a 1 99999999999999999999", Fault::Time),
        ("a 1 2 3", Fault::Rest),
        ("a 1 # {} 1", Fault::Time),
        ("a{", Fault::Open),
        ("a{b", Fault::LabelValue),
        ("a{b}", Fault::LabelValue),
        ("a{b=}", Fault::LabelValue),
        ("a{b=c} 1", Fault::LabelValue),
        ("a{b='c'} 1", Fault::LabelValue),
        ("a{b=\"c", Fault::Open),
        ("a{b=\"c\\\"} 1", Fault::Open),
        ("a{b=\"c\"", Fault::Open),
        ("a{b=\"c\",", Fault::Open),
        ("a{b=\"c\" d=\"e\"} 1", Fault::Open),
        ("a{,} 1", Fault::LabelName),
        ("a{b=\"c\",,} 1", Fault::LabelName),
        ("a{1b=\"c\"} 1", Fault::LabelName),
        ("a{b.c=\"d\"} 1", Fault::LabelValue),
        ("a{b:c=\"d\"} 1", Fault::LabelValue),
        ("a{b=\"\\t\"} 1", Fault::Escape),
        ("a{b=\"\\", Fault::Escape),
        ("a{b=\"\\é\"} 1", Fault::Escape),
        ("a{b=\"c\",b=\"d\"} 1", Fault::DoubleLabel),
        ("a{b=\"c\",b=\"\"} 1", Fault::DoubleLabel),
        ("a{__name__=\"b\"} 1", Fault::ReservedLabel),
        ("# TYPE a counters", Fault::Type),
        ("# TYPE a", Fault::Type),
        ("# TYPE a counter b", Fault::Type),
        ("# TYPE", Fault::Name),
        ("# TYPE a.b counter", Fault::Name),
        ("# HELP \"a.b\" text", Fault::Name),
    ];
    for (line, fault) in table {
        let input = format!("# remark\ngood 1\n{line}\nalso_good 2\n");
        let expected = ExpositionError { line: 3, fault: fault.clone() };
        assert_eq!(text(&input), Err(expected.clone()), "{line}");
        assert!(expected.to_string().starts_with("line 3: "));
        assert!(!fault.to_string().is_empty() && fault.to_string().len() < 100);
    }
    assert_eq!(parse(b"a 1\nb{c=\"\xff\"} 1\n", Format::Text, keep()).unwrap_err().fault, Fault::Encoding);
    let labels: Vec<String> = (0..65).map(|index| format!("l{index}=\"\"")).collect();
    assert_eq!(text(&format!("a{{{}}} 1\n", labels[..64].join(","))).unwrap().len(), 1);
    assert_eq!(text(&format!("a{{{}}} 1\n", labels.join(","))).unwrap_err().fault, Fault::TooManyLabels);
}

#[test]
fn openmetrics_has_its_own_mistakes() {
    for (input, line, fault) in [
        ("", 1, Fault::NoEnd),
        ("a 1\n", 2, Fault::NoEnd),
        ("a 1\n# EO", 3, Fault::NoEnd),
        ("a 1\n# EOF\nb 1\n", 3, Fault::AfterEnd),
        ("a 1\n# EOF\n# EOF\n", 3, Fault::AfterEnd),
        ("a 1 x\n# EOF\n", 1, Fault::Time),
        ("a 1 NaN\n# EOF\n", 1, Fault::Time),
        ("a 1 2 3\n# EOF\n", 1, Fault::Rest),
        ("a 1 # 5\n# EOF\n", 1, Fault::Exemplar),
        ("a 1 # {}\n# EOF\n", 1, Fault::Exemplar),
        ("a 1 # {} x\n# EOF\n", 1, Fault::Exemplar),
        ("a 1 # {} 1 x\n# EOF\n", 1, Fault::Time),
        ("a 1 # {} 1 2 3\n# EOF\n", 1, Fault::Rest),
        ("a 1 # {b} 1\n# EOF\n", 1, Fault::LabelValue),
    ] {
        assert_eq!(open(input), Err(ExpositionError { line, fault }), "{input:?}");
    }
}

#[test]
fn an_answer_that_may_have_been_cut_is_none() {
    let finish = |input: &str, whole: bool| {
        let mut parser = Parser::new(Format::Text, keep());
        parser.feed(input.as_bytes()).unwrap();
        parser.finish(whole)
    };
    // 12345, cut, would look like a counter that began anew.
    assert_eq!(finish("a 1\nb_total 12", false).unwrap_err(), ExpositionError { line: 2, fault: Fault::Cut });
    assert_eq!(finish("a 1\nb_total 12", true).unwrap().len(), 2);
    assert_eq!(finish("a 1\nb_total 12\n", false).unwrap().len(), 2);
    assert_eq!(finish("", false).unwrap(), []);
}

#[test]
fn everything_is_bounded() {
    let small =
        |max_series, max_line_bytes, room| Keep { names: None, max_series, max_line_bytes, room: Room::new(room) };
    let fault = |input: &str, keep: Keep| parse(input.as_bytes(), Format::Text, keep).unwrap_err().fault;
    assert_eq!(fault("a 1\nb 2\nc 3\n", small(2, 100, 1000)), Fault::TooMany(2));
    assert_eq!(fault("a 1\nlonger_than_ten 2\n", small(9, 10, 1000)), Fault::TooLong(10));
    assert_eq!(fault("# a remark without an end", small(9, 10, 1000)), Fault::TooLong(10));
    assert_eq!(fault("a 1\nb 2\n", small(9, 100, 100)), Fault::NoRoom(100));
}

#[test]
fn room_is_shared_and_given_back_by_who_failed() {
    let shared = Keep { names: None, max_series: 9, max_line_bytes: 99, room: Room::new(150) };
    let read = |input: &str| parse(input.as_bytes(), Format::Text, shared.clone());
    assert_eq!(read("a 1\nb 2\nbad\n").unwrap_err().fault, Fault::Value);
    assert_eq!(read("a 1\nb 2\n").unwrap().len(), 2, "the failed one holds nothing");
    assert_eq!(read("a 1\n").unwrap_err().fault, Fault::NoRoom(150), "the kept ones do");
}

#[test]
fn what_is_not_asked_for_is_checked_and_not_kept() {
    let names = Some(Arc::new(["b_total".to_owned()].into()));
    let asked = Keep { names, max_series: 1, max_line_bytes: 99, room: Room::new(200) };
    let series = parse(b"a 1\nb_total 2\nb_total_created 3\nc 4\n", Format::Text, asked.clone()).unwrap();
    assert_eq!(shown(&series), ["b_total{} 2"]);
    assert_eq!(parse(b"a x\nb_total 2\n", Format::Text, asked).unwrap_err().fault, Fault::Value);
}

/// A label's value or a name as the format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn written(series: &[Exposed], openmetrics: bool) -> String {
    let mut out = String::new();
    for (index, one) in series.iter().enumerate() {
        let labels: Vec<String> =
            one.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let value = if one.value.is_infinite() { "+Inf".to_owned() } else { format!("{:e}", one.value) };
        out.push_str(&format!("# TYPE {} gauge\n{}{{{}}} {value}", one.name, one.name, labels.join(",")));
        out.push_str(match (index % 3, openmetrics) {
            (0, _) => "\n",
            (_, false) => " 1700000000000\n",
            (1, true) => " 1700000000.5\n",
            (_, true) => " # {trace=\"\\\"}\"} 1\n",
        });
    }
    out.push_str(if openmetrics { "# EOF\n" } else { "" });
    out
}

fn any_exposed() -> impl Strategy<Value = Exposed> {
    let name = "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}";
    let label = "[a-zA-Z_][a-zA-Z0-9_]{0,6}".prop_filter("reserved", |name| name != "__name__");
    let value = prop_oneof![".{1,8}", "[\\\\\"\n{},#= ]{1,6}", "(GET|500|/a/b)"];
    let number =
        prop_oneof![any::<f64>().prop_filter("a number", |n| n.is_finite()), Just(f64::INFINITY), 0.0..1e9_f64];
    (name, prop::collection::btree_map(label, value, 0..5), number).prop_map(|(name, labels, value)| Exposed {
        name,
        labels: labels.into_iter().collect(),
        value,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        series in prop::collection::vec(any_exposed(), 0..20), openmetrics in any::<bool>(), cut in 1_usize..50
    ) {
        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        let input = written(&series, openmetrics);
        prop_assert_eq!(&parse(input.as_bytes(), format, keep()).unwrap(), &series);
        // However the network cuts it into pieces.
        let mut parser = Parser::new(format, keep());
        for piece in input.as_bytes().chunks(cut) {
            parser.feed(piece).unwrap();
        }
        prop_assert_eq!(parser.finish(false).unwrap(), series);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), openmetrics in any::<bool>()) {
        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        if let Err(error) = parse(&bytes, format, keep()) {
            prop_assert!(error.line >= 1 && error.line <= bytes.iter().filter(|b| **b == b'\n').count() + 2);
        }
    }

    #[test]
    fn any_near_miss_is_read_or_refused(input in "([a-c]{1,2}|[ {}=\",#\\\\\n\r0-9.+eE-]|TYPE|HELP|EOF|NaN|Inf|é){0,60}") {
        for format in [Format::Text, Format::OpenMetrics] {
            if let Ok(series) = parse(input.as_bytes(), format, keep()) {
                // What was read means the same when it is written anew.
                let finite: Vec<Exposed> = series.into_iter().filter(|one| one.value.is_finite()).collect();
                let again = parse(written(&finite, false).as_bytes(), Format::Text, keep()).unwrap();
                prop_assert_eq!(again, finite);
            }
        }
    }
}
