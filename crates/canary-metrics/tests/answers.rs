//! A real server on the loopback that answers as Prometheus should, and as it should not: every
//! shape yields exactly the right data or an error that says which, never a panic, never a pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use std::time::Duration;

use canary_counters::value::worst;
use canary_counters::{
    Grouping, Histogram, Instant, LabelNames, Measured, Meter, NativeBucket, PodKnown, Scope, Selector, Series, Tick,
    Value, ValueLimit,
};
use canary_metrics::{FetchError, HeaderSource, MetricSource, Problem, Prometheus, ProviderConfig, Secret};
use common::{Act, SPACES, Server};
use jiff::Timestamp;
use tokio::net::TcpListener;

/// All samples in these tests are around this time.
const AT: i64 = 1_700_000_000;

fn config(server: &Server) -> ProviderConfig {
    ProviderConfig::new("default", &format!("http://{}", server.address))
}

fn at() -> Timestamp {
    Timestamp::from_second(AT).unwrap()
}

fn scope() -> Scope {
    Scope::pods("shop", ["web-a", "web-b"], &LabelNames::default()).unwrap()
}

fn selector() -> Selector {
    Selector::parse("http_requests_total").unwrap()
}

async fn counters(prometheus: &Prometheus) -> Result<Vec<Series>, FetchError> {
    prometheus.counters(&selector(), &scope(), Duration::from_secs(60), at()).await
}

async fn value(prometheus: &Prometheus) -> Result<Instant, FetchError> {
    prometheus.value(r#"max by (pod) (x{pod=~"$pods"})"#, &scope(), true, at()).await
}

/// What a gate makes of the answer.
fn judged(answer: Result<Vec<Series>, FetchError>) -> Measured {
    let series = match answer {
        Ok(series) => series,
        Err(error) => return Measured::Error(error.to_string()),
    };
    let tick = Tick {
        now_ms: AT * 1000,
        covered_from_ms: (AT - 60) * 1000,
        pods: ["web-a", "web-b"]
            .map(|name| PodKnown { name: name.to_owned(), started_at_ms: (AT - 300) * 1000 })
            .to_vec(),
        grouping: Grouping::Pod("pod".to_owned()),
    };
    let mut meter = Meter::new((AT - 600) * 1000);
    match (meter.absorb("total", &series, &tick), meter.absorb("bad", &[], &tick)) {
        (Ok(total), Ok(bad)) => canary_counters::measure::share(&total, &bad),
        (Err(error), _) | (_, Err(error)) => error.into(),
    }
}

fn ok(body: &str) -> Act {
    Act::Json(body.to_owned())
}

fn data(result_type: &str, result: &str) -> Act {
    Act::Json(format!(r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#))
}

fn matrix(result: &str) -> Act {
    data("matrix", result)
}

/// One good series of a pod.
fn row(pod: &str, values: &str) -> String {
    format!(r#"{{"metric":{{"__name__":"http_requests_total","namespace":"shop","pod":"{pod}"}},"values":[{values}]}}"#)
}

fn both(values: &str) -> String {
    format!("[{},{}]", row("web-a", values), row("web-b", values))
}

/// Two scrapes, five seconds apart, the last one two seconds ago.
const GOOD: &str = r#"[1699999993.1,"10"],[1699999998.1,"20"]"#;

fn http(status: &str, headers: &str, body: &str) -> Act {
    Act::Raw(
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
            .into_bytes(),
    )
}

fn stated(kind: &str, message: &str) -> String {
    format!(r#"{{"status":"error","errorType":"{kind}","error":"{message}"}}"#)
}

#[tokio::test]
async fn a_good_answer_is_counted() {
    let server = Server::start(matrix(&both(GOOD))).await;
    let prometheus = Prometheus::new(config(&server)).unwrap();
    let series = counters(&prometheus).await.unwrap();
    assert_eq!(series.len(), 2);
    assert_eq!(series[0].samples[1].at_ms, 1_699_999_998_100);
    assert_eq!(judged(Ok(series)), Measured::Counted { n: 40.0, k: 0.0 });
}

#[tokio::test]
async fn the_question_is_one_post_with_a_time_and_a_range() {
    let server = Server::start(matrix("[]")).await;
    let config = ProviderConfig { scrape_interval: Some(Duration::from_secs(5)), ..config(&server) };
    let prometheus = Prometheus::new(config).unwrap();
    counters(&prometheus).await.unwrap();
    value(&prometheus).await.unwrap_err();
    let requests = server.requests();
    assert!(requests[0].starts_with("POST /api/v1/query HTTP/1.1\r\n"), "{}", requests[0]);
    let body = requests[0].split("\r\n\r\n").nth(1).unwrap();
    let form: Vec<(String, String)> = reqwest::Url::parse(&format!("http://x/?{body}"))
        .unwrap()
        .query_pairs()
        .map(|(k, v)| (k.into_owned(), v.into_owned()))
        .collect();
    let field = |name: &str| form.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    assert_eq!(field("query").unwrap(), r#"http_requests_total{namespace="shop",pod=~"web-a|web-b"}[60000ms]"#);
    assert_eq!(field("time").unwrap(), "1700000000.000");
    assert_eq!(field("timeout").unwrap(), "5000ms");
    assert_eq!(field("lookback_delta"), None);
    assert!(requests[0].contains("accept-encoding: identity"));
    assert!(requests[1].contains("lookback_delta=10000ms"), "old values are not looked at");
    assert!(requests[1].contains("max+by+%28pod%29"));
}

/// Every shape that must not count, with the category of its error; `data` where it is well-formed
/// and the meter must object, or there is nothing to judge by.
fn shapes() -> Vec<(&'static str, Act, &'static str)> {
    let good = both(GOOD);
    let success =
        |rest: &str| ok(&format!(r#"{{"status":"success",{rest}"data":{{"resultType":"matrix","result":{good}}}}}"#));
    vec![
        // Values that no counter has.
        ("NaN", matrix(&both(r#"[1699999998,"NaN"]"#)), "data"),
        ("+Inf", matrix(&both(r#"[1699999998,"+Inf"]"#)), "data"),
        ("-Inf", matrix(&both(r#"[1699999998,"-Inf"]"#)), "data"),
        ("negative", matrix(&both(r#"[1699999998,"-3"]"#)), "data"),
        ("overflowing number", matrix(&both(r#"[1699999998,"1e999"]"#)), "data"),
        ("empty matrix", matrix("[]"), "data"),
        ("only zeros", matrix(&both(r#"[1699999993,"0"],[1699999998,"0"]"#)), "data"),
        ("one pod silent", matrix(&format!("[{}]", row("web-a", GOOD))), "data"),
        ("stale samples", matrix(&both(r#"[1699999950,"10"],[1699999955,"20"]"#)), "data"),
        ("a pod not asked about", matrix(&format!("[{}]", row("db-0", GOOD))), "data"),
        ("an empty pod", matrix(&format!("[{}]", row("", GOOD))), "data"),
        ("no labels", matrix(&format!(r#"[{{"metric":{{}},"values":[{GOOD}]}}]"#)), "data"),
        ("the same series twice", matrix(&format!("[{},{}]", row("web-a", GOOD), row("web-a", GOOD))), "data"),
        ("unordered samples", matrix(&both(r#"[1699999998,"20"],[1699999993,"10"]"#)), "data"),
        ("the same time twice", matrix(&both(r#"[1699999998,"20"],[1699999998,"21"]"#)), "data"),
        // Other times than asked about.
        ("samples from the future", matrix(&both(r#"[1700000100,"20"]"#)), "wrong_time"),
        ("samples from last week", matrix(&both(r#"[1699400000,"20"]"#)), "wrong_time"),
        ("a negative time", matrix(&both(r#"[-5,"20"]"#)), "malformed"),
        ("a time in milliseconds", matrix(&both(r#"[1699999998000,"20"]"#)), "malformed"),
        ("a huge time", matrix(&both(r#"[1e300,"20"]"#)), "malformed"),
        // Other types.
        ("vector", data("vector", r#"[{"metric":{"pod":"web-a"},"value":[1700000000,"1"]}]"#), "wrong_type"),
        ("scalar", data("scalar", r#"[1700000000,"1"]"#), "wrong_type"),
        ("string", data("string", r#"[1700000000,"1"]"#), "wrong_type"),
        ("streams of another product", data("streams", "[]"), "wrong_type"),
        ("unknown type", data("tensor", "{}"), "wrong_type"),
        ("empty type", data("", "[]"), "wrong_type"),
        (
            "native histogram",
            matrix(r#"[{"metric":{"pod":"web-a"},"histograms":[[1699999998,{"count":"1","sum":"1"}]]}]"#),
            "native_histogram",
        ),
        // Doubts of the server.
        ("warning", success(r#""warnings":["results may be incomplete"],"#), "warning"),
        ("info", success(r#""infos":["PromQL info: something"],"#), "warning"),
        ("partial", success(r#""isPartial":true,"#), "partial"),
        ("success with an error", success(r#""error":"half of it","#), "malformed"),
        ("status error in a 200", ok(&stated("bad_data", "no")), "rejected"),
        ("status timeout in a 200", ok(&stated("timeout", "slow")), "unavailable"),
        ("unknown status", ok(r#"{"status":"maybe","data":{"resultType":"matrix","result":[]}}"#), "malformed"),
        ("no status", ok(r#"{"data":{"resultType":"matrix","result":[]}}"#), "malformed"),
        ("no data", ok(r#"{"status":"success"}"#), "malformed"),
        ("null data", ok(r#"{"status":"success","data":null}"#), "malformed"),
        ("no result", ok(r#"{"status":"success","data":{"resultType":"matrix"}}"#), "malformed"),
        ("null result", matrix("null"), "malformed"),
        (
            "result twice",
            ok(r#"{"status":"success","data":{"resultType":"matrix","result":[],"result":[]}}"#),
            "malformed",
        ),
        ("result is an object", matrix("{}"), "malformed"),
        // Malformed rows.
        ("no metric", matrix(&format!(r#"[{{"values":[{GOOD}]}}]"#)), "malformed"),
        ("no values", matrix(r#"[{"metric":{"pod":"web-a"}}]"#), "malformed"),
        ("empty values", matrix(r#"[{"metric":{"pod":"web-a"},"values":[]}]"#), "malformed"),
        ("value in place of values", matrix(r#"[{"metric":{"pod":"web-a"},"value":[1699999998,"1"]}]"#), "malformed"),
        (
            "value and values",
            matrix(&format!(r#"[{{"metric":{{"pod":"web-a"}},"value":[1,"1"],"values":[{GOOD}]}}]"#)),
            "malformed",
        ),
        ("label is a number", matrix(&format!(r#"[{{"metric":{{"pod":1}},"values":[{GOOD}]}}]"#)), "malformed"),
        ("value is a number", matrix(&both("[1699999998,20]")), "malformed"),
        ("value is text", matrix(&both(r#"[1699999998,"many"]"#)), "malformed"),
        ("value is empty", matrix(&both(r#"[1699999998,""]"#)), "malformed"),
        ("value is hexadecimal", matrix(&both(r#"[1699999998,"0x10"]"#)), "malformed"),
        ("value with a space", matrix(&both(r#"[1699999998," 20"]"#)), "malformed"),
        ("value with a comma", matrix(&both(r#"[1699999998,"1,000"]"#)), "malformed"),
        ("value is nan in Rust's spelling", matrix(&both(r#"[1699999998,"nan"]"#)), "malformed"),
        ("time is text", matrix(&both(r#"["1699999998","20"]"#)), "malformed"),
        ("a point of one", matrix(&both("[1699999998]")), "malformed"),
        ("a point of three", matrix(&both(r#"[1699999998,"20","30"]"#)), "malformed"),
        // Not JSON.
        ("empty body", ok(""), "malformed"),
        ("only spaces", ok("   \n"), "malformed"),
        ("HTML with 200", ok("<!doctype html><title>Sign in</title>"), "malformed"),
        ("plain text", ok("ok"), "malformed"),
        ("cut JSON", ok(r#"{"status":"success","data":{"resultType":"matrix","result":["#), "malformed"),
        ("JSON and more", ok(r#"{"status":"success","data":{"resultType":"matrix","result":[]}} {}"#), "malformed"),
        ("JSON array", ok("[]"), "malformed"),
        ("JSON null", ok("null"), "malformed"),
        (
            "bytes that are no text",
            Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x01".to_vec()),
            "malformed",
        ),
        (
            "endless nesting",
            ok(&format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":{}"#, "[".repeat(100_000))),
            "malformed",
        ),
        // HTTP.
        ("400 bad_data", http("400 Bad Request", "", &stated("bad_data", "parse error")), "rejected"),
        ("422 execution", http("422 Unprocessable Entity", "", &stated("execution", "too many samples")), "rejected"),
        ("503 timeout", http("503 Service Unavailable", "", &stated("timeout", "query timed out")), "unavailable"),
        ("500 internal", http("500 Internal Server Error", "", &stated("internal", "x")), "unavailable"),
        ("500 bad_data", http("500 Internal Server Error", "", &stated("bad_data", "x")), "unavailable"),
        ("502 HTML", http("502 Bad Gateway", "", "<html>nginx</html>"), "unavailable"),
        ("429", http("429 Too Many Requests", "", "slow down"), "unavailable"),
        ("404 HTML", http("404 Not Found", "", "<html>"), "status"),
        ("400 with text", http("400 Bad Request", "", "no"), "status"),
        ("401", http("401 Unauthorized", "", ""), "credentials"),
        ("403 with a stated error", http("403 Forbidden", "", &stated("bad_data", "x")), "credentials"),
        ("204 without a body", http("204 No Content", "", ""), "status"),
        ("206 partial content", http("206 Partial Content", "", "{}"), "status"),
        ("302 redirect", http("302 Found", "Location: http://127.0.0.1:1/\r\n", ""), "redirect"),
        ("307 redirect", http("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", ""), "redirect"),
        (
            "gzip that was not asked for",
            Act::Raw(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00".to_vec(),
            ),
            "encoded",
        ),
        (
            "gzip in disguise",
            Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00".to_vec()),
            "malformed",
        ),
        (
            "a clock in the past",
            http(
                "200 OK",
                "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n",
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            ),
            "clock_skew",
        ),
        ("not HTTP", Act::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "unreachable"),
        ("closed without a word", Act::Raw(Vec::new()), "unreachable"),
        ("cut headers", Act::Raw(b"HTTP/1.1 200 OK\r\nContent-".to_vec()), "unreachable"),
        (
            "cut body",
            Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\":\"succ".to_vec()),
            "broken_off",
        ),
        (
            "cut chunks",
            Act::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"sta".to_vec()),
            "broken_off",
        ),
        (
            "nonsense chunks",
            Act::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec()),
            "broken_off",
        ),
        (
            "a length beyond the cap",
            Act::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()),
            "too_large",
        ),
        ("endless body", Act::Endless("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", SPACES), "too_large"),
        ("endless error page", Act::Endless("HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n", SPACES), "unavailable"),
        ("endless headers", Act::Endless("HTTP/1.1 200 OK\r\nX:", SPACES), "unreachable"),
    ]
}

#[tokio::test]
async fn no_wrong_answer_counts() {
    let shapes = shapes();
    assert!(shapes.len() >= 40, "{}", shapes.len());
    for (name, act, expected) in shapes {
        let server = Server::start(act).await;
        let config = ProviderConfig { max_body_bytes: 1 << 20, timeout: Duration::from_secs(60), ..config(&server) };
        let prometheus = Prometheus::new(config).unwrap();
        let answer = counters(&prometheus).await;
        let category = answer.as_ref().map_or_else(FetchError::category, |_| "data");
        assert_eq!(category, expected, "{name}: {answer:?}");
        if let Err(error) = &answer {
            let message = error.to_string();
            assert!(
                message.starts_with("default: ") && message.lines().count() == 1 && message.len() < 600,
                "{name}: {message}"
            );
        }
        let measured = judged(answer);
        assert_eq!(measured.complete(), None, "{name}: {measured:?}");
        assert!(measured.why().is_some_and(|why| !why.is_empty()), "{name}: it is said which");
    }
}

#[tokio::test]
async fn no_wrong_value_passes() {
    let vector = |rows: &str| data("vector", rows);
    let pod = |pod: &str, value: &str| format!(r#"{{"metric":{{"pod":"{pod}"}},"value":[1700000000,"{value}"]}}"#);
    let two = |a: &str, b: &str| vector(&format!("[{},{}]", pod("web-a", a), pod("web-b", b)));
    let good = r#""data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000,"1"]}]}"#;
    let table = vec![
        ("empty vector", vector("[]"), "data"),
        ("NaN", two("1", "NaN"), "data"),
        ("infinite", two("+Inf", "1"), "data"),
        ("minus infinite", two("-Inf", "1"), "data"),
        ("a pod missing", vector(&format!("[{}]", pod("web-a", "1"))), "data"),
        ("a stranger", vector(&format!("[{}]", pod("db-0", "1"))), "data"),
        (
            "several without a pod",
            vector(r#"[{"metric":{"a":"1"},"value":[1700000000,"1"]},{"metric":{"a":"2"},"value":[1700000000,"1"]}]"#),
            "data",
        ),
        ("scalar NaN", data("scalar", r#"[1700000000,"NaN"]"#), "data"),
        ("above the limit", two("1", "31"), "data"),
        ("the same series twice", vector(&format!("[{},{}]", pod("web-a", "1"), pod("web-a", "2"))), "malformed"),
        ("matrix", matrix(&both(GOOD)), "wrong_type"),
        ("string", data("string", r#"[1700000000,"1"]"#), "wrong_type"),
        ("scalar of the wrong shape", data("scalar", r#"["1"]"#), "malformed"),
        ("scalar as a vector", data("scalar", "[]"), "malformed"),
        ("an old answer from a cache", data("scalar", r#"[1699999000,"1"]"#), "wrong_time"),
        ("an old vector from a cache", vector(r#"[{"metric":{},"value":[1699999000,"1"]}]"#), "wrong_time"),
        (
            "histogram",
            vector(r#"[{"metric":{},"histogram":[1700000000,{"count":"1","sum":"1"}]}]"#),
            "native_histogram",
        ),
        (
            "histogram beside the value",
            vector(r#"[{"metric":{},"value":[1700000000,"1"],"histogram":[1,{}]}]"#),
            "native_histogram",
        ),
        ("values in a vector", vector(&format!(r#"[{{"metric":{{}},"values":[{GOOD}]}}]"#)), "malformed"),
        ("warning", ok(&format!(r#"{{"status":"success","warnings":["x"],{good}}}"#)), "warning"),
        (
            "info about left out data",
            ok(&format!(r#"{{"status":"success","infos":["ignored histogram in max aggregation"],{good}}}"#)),
            "warning",
        ),
        ("partial", ok(&format!(r#"{{"status":"success","isPartial":true,{good}}}"#)), "partial"),
    ];
    let pods = ["web-a", "web-b"].map(str::to_owned).into();
    for (name, act, expected) in table {
        let server = Server::start(act).await;
        let prometheus = Prometheus::new(config(&server)).unwrap();
        let answer = value(&prometheus).await;
        let category = answer.as_ref().map_or_else(FetchError::category, |_| "data");
        assert_eq!(category, expected, "{name}: {answer:?}");
        if let Ok(answer) = answer {
            let judged = worst(&answer, ValueLimit::Max(30.0), "pod", &pods);
            let pass = matches!(&judged, Value::Measured { within: true, missing, .. } if missing.is_empty());
            assert!(!pass, "{name}: {judged:?}");
        }
    }
    // And the right ones do.
    for act in [
        two("1", "30"),
        data("scalar", r#"[1700000000,"30"]"#),
        data("scalar", r#"[1700000000.0004,"3e1"]"#),
        ok(&format!(
            r#"{{"status":"success","infos":["PromQL info: metric might not be a counter, name does not end in _total"],{good}}}"#
        )),
        ok(&format!(r#"{{"status":"success","warnings":[],"infos":null,"stats":{{}},{good}}}"#)),
    ] {
        let server = Server::start(act).await;
        let answer = value(&Prometheus::new(config(&server)).unwrap()).await.unwrap();
        assert!(matches!(worst(&answer, ValueLimit::Max(30.0), "pod", &pods), Value::Measured { within: true, .. }));
    }
}

#[tokio::test]
async fn a_histogram_that_has_only_a_native_form_is_read_as_that() {
    let row = |points: &str| {
        let metric = r#"{"__name__":"latency_seconds","namespace":"shop","pod":"web-a","code":"200"}"#;
        matrix(&format!(r#"[{{"metric":{metric},{points}}}]"#))
    };
    let selector = Selector::parse(r#"latency_seconds{code="200"}"#).unwrap();
    let ask = async |answer: Act| {
        let server = Server::start(Act::Turns(vec![matrix("[]"), answer])).await;
        let prometheus = Prometheus::new(config(&server)).unwrap();
        let answer = prometheus.histogram(&selector, &scope(), Duration::from_secs(60), at()).await;
        (answer, server.requests())
    };
    let good = r#""histograms":[[1699999993.1,{"count":"3","sum":"0.2"}],
        [1699999998.1,{"count":"12","sum":"1.5","buckets":[[3,"-0.001","0.001","2"],[0,"0.0884","0.0964","10"]]}]]"#;
    let (answer, requests) = ask(row(good)).await;
    let Ok(Histogram::Native(series)) = answer else { panic!("{answer:?}") };
    let samples = &series[0].samples;
    assert_eq!((samples[0].at_ms, samples[0].count, samples[0].buckets.len()), (1_699_999_993_100, 3.0, 0));
    assert_eq!(samples[1].buckets[1], NativeBucket { lower: 0.0884, upper: 0.0964, count: 10.0 });
    let asked = |name: &str| {
        format!("query={name}%7Bnamespace%3D%22shop%22%2Cpod%3D%7E%22web-a%7Cweb-b%22%2Ccode%3D%22200%22%7D")
    };
    assert!(requests[0].contains(&asked("latency_seconds_bucket")), "{}", requests[0]);
    assert!(requests[1].contains(&asked("latency_seconds")), "{}", requests[1]);

    // A gauge of that name, or nothing: it has no buckets of either kind.
    for none in [row(r#""values":[[1699999998.1,"1"]]"#), matrix("[]")] {
        assert_eq!(ask(none).await.0, Ok(Histogram::Classic(Vec::new())));
    }
    let point = |at: &str, value: &str| format!(r#""histograms":[[{at},{value}]]"#);
    for (name, points, category) in [
        ("no samples", r#""histograms":[]"#.to_owned(), "malformed"),
        ("partly plain", format!(r#"{good},"values":[[1699999998.1,"1"]]"#), "malformed"),
        ("no count", point("1699999998.1", r#"{"sum":"1"}"#), "malformed"),
        ("a bucket of three", point("1699999998.1", r#"{"count":"1","buckets":[[0,"1","2"]]}"#), "malformed"),
        ("a bucket of words", point("1699999998.1", r#"{"count":"1","buckets":[[0,"a","b","1"]]}"#), "malformed"),
        ("another time", point("1699990000", r#"{"count":"1"}"#), "wrong_time"),
    ] {
        let error = ask(row(&points)).await.0.unwrap_err();
        assert_eq!(error.category(), category, "{name}: {error}");
    }
    let (answer, _) = ask(http("500 Internal Server Error", "", "")).await;
    assert!(answer.unwrap_err().is_transient(), "an outage between the two questions is no empty answer");
}

#[tokio::test]
async fn who_does_not_answer_in_time_times_out() {
    for act in [
        Act::Hang(Vec::new()),
        Act::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\":".to_vec()),
    ] {
        let server = Server::start(act).await;
        let config = ProviderConfig { timeout: Duration::from_millis(50), ..config(&server) };
        let error = counters(&Prometheus::new(config).unwrap()).await.unwrap_err();
        assert_eq!(error.problem, Problem::Timeout(50));
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn waiting_in_line_counts_against_the_deadline() {
    let server = Server::start(Act::Hang(Vec::new())).await;
    let config = ProviderConfig { timeout: Duration::from_millis(50), max_concurrent: 1, ..config(&server) };
    let prometheus = Prometheus::new(config).unwrap();
    let (one, two, three) = tokio::join!(counters(&prometheus), counters(&prometheus), counters(&prometheus));
    for answer in [one, two, three] {
        assert_eq!(answer.unwrap_err().problem, Problem::Timeout(50));
    }
    assert!(server.requests().len() < 3, "one at a time");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    // A port that was free a moment ago, and that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = counters(&Prometheus::new(ProviderConfig::new("default", &address)).unwrap()).await.unwrap_err();
    assert_eq!(error.category(), "unreachable");
    assert!(error.is_transient());
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn questions_that_are_not_allowed_are_not_asked() {
    let server = Server::start(matrix("[]")).await;
    let prometheus = Prometheus::new(config(&server)).unwrap();
    let reserved = Selector::parse(r#"x_total{namespace="other"}"#).unwrap();
    let error = prometheus.counters(&reserved, &scope(), Duration::from_secs(60), at()).await.unwrap_err();
    assert_eq!(error.category(), "query");
    assert!(!error.is_transient());
    for query in [r#"x{namespace="other",pod=~"$pods"}"#, "max(x)", "sum("] {
        let error = prometheus.value(query, &scope(), true, at()).await.unwrap_err();
        assert_eq!(error.category(), "query", "{query}");
    }
    assert!(server.requests().is_empty());
    // The admin may lift the rule about $pods; never the one about the namespace.
    let lifted = Prometheus::new(ProviderConfig { require_pods: false, ..config(&server) }).unwrap();
    assert!(!lifted.requires_pods());
    assert_eq!(lifted.value("max(x)", &scope(), true, at()).await.unwrap_err().category(), "wrong_type");
    assert!(server.requests()[0].contains("namespace%3D%22shop%22"));
}

#[tokio::test]
async fn credentials_come_from_files_and_are_read_anew() {
    let directory = std::env::temp_dir().join(format!("canary-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let token = directory.join("token");
    std::fs::write(&token, "first-secret\n").unwrap();
    let tenant = directory.join("tenant");
    std::fs::write(&tenant, "team-a").unwrap();
    let server = Server::start(matrix("[]")).await;
    let config = ProviderConfig {
        bearer_token_file: Some(token.clone()),
        headers: [
            ("X-Scope-OrgID".to_owned(), HeaderSource { file: Some(tenant), value: None }),
            ("X-Plain".to_owned(), HeaderSource { value: Some(Secret::new("third-secret".into())), file: None }),
        ]
        .into(),
        ..config(&server)
    };
    let shown = format!("{config:?}");
    let prometheus = Prometheus::new(config).unwrap();
    counters(&prometheus).await.unwrap();
    std::fs::write(&token, "second-secret").unwrap();
    counters(&prometheus).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].contains("authorization: Bearer first-secret\r\n"));
    assert!(requests[1].contains("authorization: Bearer second-secret\r\n"));
    assert!(requests[0].contains("x-scope-orgid: team-a\r\n"));
    assert!(!shown.contains("secret") && !format!("{prometheus:?}").contains("secret"));

    for (contents, part) in [("", "is empty"), ("a\nb", "characters")] {
        std::fs::write(&token, contents).unwrap();
        let error = counters(&prometheus).await.unwrap_err();
        assert_eq!(error.category(), "credentials");
        assert!(error.to_string().contains(part), "{error}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let error = counters(&prometheus).await.unwrap_err();
    assert!(error.to_string().contains("can't read"), "{error}");
    assert_eq!(server.requests().len(), 2, "without its credential nothing is asked");
}

#[tokio::test]
async fn a_server_that_echoes_a_credential_makes_no_message_show_it() {
    const CANARY: &str = "c4n4ry-in-the-mine";
    let directory = std::env::temp_dir().join(format!("canary-metrics-echo-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let token = directory.join("token");
    std::fs::write(&token, CANARY).unwrap();
    let echo = format!("authorization: Bearer {CANARY}");
    let stated = format!(r#"{{"status":"error","errorType":"bad_data","error":"you sent {echo}"}}"#);
    let kind = format!(r#"{{"status":"error","errorType":"{CANARY}","error":"no"}}"#);
    let warned =
        format!(r#"{{"status":"success","warnings":["{echo}"],"data":{{"resultType":"matrix","result":[]}}}}"#);
    let escaped = stated.replace("c4n4ry", "\\u0063\\u0034n4ry");
    let named = matrix(&format!(r#"[{{"metric":{{"pod":"{CANARY}"}},"values":[]}}]"#));
    let mut acts = vec![named, ok(&warned), ok(&stated), ok(&escaped), ok(&kind), ok(&echo), data(CANARY, "[]")];
    for status in ["400 Bad Request", "401 No", "403 No", "404 No", "422 No", "429 No", "500 Oh", "502 Oh", "503 Oh"] {
        acts.extend([&stated, &escaped, &kind, &echo].map(|body| http(status, &format!("X-Echo: {echo}\r\n"), body)));
    }
    acts.push(http("302 Found", &format!("Location: http://u:{CANARY}@elsewhere/\r\n"), &echo));
    acts.push(http("200 OK", &format!("Content-Encoding: {CANARY}\r\n"), "{}"));
    acts.push(Act::Raw(format!("{echo}\r\n\r\n").into_bytes()));
    for (number, act) in acts.into_iter().enumerate() {
        let server = Server::start(act).await;
        let headers = [("X-Key".to_owned(), HeaderSource { value: Some(Secret::new(CANARY.into())), file: None })];
        let config =
            ProviderConfig { bearer_token_file: Some(token.clone()), headers: headers.into(), ..config(&server) };
        let prometheus = Prometheus::new(config).unwrap();
        for said in [counters(&prometheus).await.map(drop), value(&prometheus).await.map(drop)] {
            let error = said.unwrap_err();
            assert!(!format!("{error} {error:?}").contains(CANARY), "answer {number}: {error}");
        }
        assert!(server.requests()[0].contains(CANARY), "it was sent");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    // Nor does an address with a password in it get as far as a message.
    let error =
        Prometheus::new(ProviderConfig::new("default", &format!("http://jane:{CANARY}@prom:9090"))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
}

#[test]
fn configurations_that_could_leak_or_hang_are_refused() {
    let with = |url: &str| ProviderConfig::new("default", url);
    for url in [
        "",
        "prometheus:9090",
        "ftp://x",
        "http://",
        "file:///etc/passwd",
        "http://user:hunter2@prometheus",
        "http://hunter2@prometheus",
        "http://prometheus?token=hunter2",
        "http://prometheus#hunter2",
    ] {
        let error = Prometheus::new(with(url)).expect_err(url);
        assert_eq!(error.category(), "url");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert_eq!(with("http://p:9090").check().unwrap().as_str(), "http://p:9090/api/v1/query");
    assert_eq!(with("https://p/prom/").check().unwrap().as_str(), "https://p/prom/api/v1/query");
    let header = |name: &str, value: Option<&str>| {
        let source = HeaderSource { value: value.map(|value| Secret::new(value.into())), file: None };
        ProviderConfig { headers: [(name.to_owned(), source)].into(), ..with("http://p") }.check()
    };
    assert!(header("X-A", Some("b")).is_ok());
    assert!(header("X A", Some("b")).is_err());
    assert!(header("X-A", Some("b\r\nX-C: d")).is_err());
    assert!(header("X-A", None).is_err());
    assert!(ProviderConfig { timeout: Duration::ZERO, ..with("http://p") }.check().is_err());
    assert!(ProviderConfig { max_concurrent: 0, ..with("http://p") }.check().is_err());
    let labels = LabelNames { pod: "a-b".into(), ..LabelNames::default() };
    assert!(ProviderConfig { labels, ..with("http://p") }.check().is_err());
    assert!(ProviderConfig { ca_file: Some("/nonexistent".into()), ..with("https://p") }.check().is_ok());
    let missing = ProviderConfig { ca_file: Some("/nonexistent".into()), ..with("https://p") };
    assert_eq!(Prometheus::new(missing).unwrap_err().category(), "tls");
}

#[test]
fn the_admins_configuration_is_read_strictly() {
    let read = |text: &str| serde_json::from_str::<ProviderConfig>(text);
    let config = read(
        r#"{"name":"default","url":"http://p:9090","bearerTokenFile":"/var/run/token","timeout":"3s",
            "connectTimeout":"500ms","scrapeInterval":"15s","labels":{"pod":"kubernetes_pod_name"},
            "headers":{"X-Scope-OrgID":{"value":"team-a"}},"maxConcurrent":2,"requirePods":false}"#,
    )
    .unwrap();
    assert_eq!(config.timeout, Duration::from_secs(3));
    assert_eq!(config.connect_timeout, Duration::from_millis(500));
    assert_eq!(config.scrape_interval, Some(Duration::from_secs(15)));
    assert_eq!((config.labels.pod.as_str(), config.labels.namespace.as_str()), ("kubernetes_pod_name", "namespace"));
    assert!(!config.require_pods);
    let plain = read(r#"{"name":"default","url":"http://p:9090"}"#).unwrap();
    assert_eq!(plain, ProviderConfig::new("default", "http://p:9090"));
    for text in [
        r#"{"url":"http://p"}"#,
        r#"{"name":"a"}"#,
        r#"{"name":"a","url":"http://p","bearerToken":"secret"}"#,
        r#"{"name":"a","url":"http://p","timeout":"3"}"#,
        r#"{"name":"a","url":"http://p","timeout":"-3s"}"#,
        r#"{"name":"a","url":"http://p","timeout":"99999999999999999999s"}"#,
        r#"{"name":"a","url":"http://p","labels":{"pods":"x"}}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn a_client_comes_up_beside_the_providers_of_others() {
    // The operator installs aws-lc-rs for the whole process, as kube uses it; the client takes it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    assert!(Prometheus::new(ProviderConfig::new("default", "http://p:9090")).is_ok());
}
