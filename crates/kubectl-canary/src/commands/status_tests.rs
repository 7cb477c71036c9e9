use serde_json::{Value, json};

use super::*;

fn release(status: Value) -> Release {
    Release::read(json!({
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u1"},
        "spec": {
            "target": {"name": "orders"},
            "traffic": {"service": "orders", "routes": [{"kind": "HTTPRoute", "name": "orders"}], "requests": {"counter": "r"}},
            "stages": [
                {"weight": "1%", "duration": "15m"}, {"weight": "5%", "duration": "15m", "approval": true},
                {"weight": "25%", "duration": "15m"}, {"weight": "100%", "duration": "30m"},
            ],
            "gates": [{"name": "errors", "errorRate": {"bad": "b", "total": "r", "limit": "1%"}}],
        },
        "status": status,
    }))
}

fn baking() -> Value {
    json!({
        "phase": "Baking", "stage": "2/4", "observedGeneration": 1, "observedTemplate": "sha256:new",
        "message": "orders-3: stage 2/4 at 5% until 2026-11-21T12:15:00Z; the approval is missing",
        "current": {
            "id": "orders-3", "number": 3, "step": "Bake", "stepSince": "2026-11-21T12:00:00Z", "stageIndex": 1, "weight": "5%",
            "started": "2026-11-21T11:40:00Z",
            "candidate": {"digest": "sha256:deb898dca4a147b8", "images": ["registry.example.com/orders:2"], "changedBy": "jane"},
        },
        "hold": {"armed": true, "targetUid": "t", "serving": {"digest": "sha256:bcda154d2bc5aaaa", "images": ["registry.example.com/orders:1"]}},
        "gates": [
            {"gate": "errors", "limit": "<= 1%", "restsOn": "3 of 2500 in 5m", "value": "0.12%", "verdict": "Pass"},
            {"gate": "latency", "limit": "P95 < 200ms", "restsOn": "20 of 30 in 5m", "value": "66%", "verdict": "Breach"},
        ],
        "summary": ["Serving: x", "What to do: kubectl annotate crel orders -n shop canaryrelease.dev/command='approve orders-3'"],
    })
}

fn at(minute: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    noon.checked_add(jiff::SignedDuration::from_mins(minute)).unwrap()
}

fn screen(status: Value, minute: i64) -> String {
    render(&view(&release(status), at(minute)).unwrap(), Paint::NONE)
}

#[test]
fn one_screen_says_where_it_stands_and_what_to_do() {
    assert_eq!(
        screen(baking(), 9),
        "\
shop/orders  Baking
  target      Deployment orders
  serving     registry.example.com/orders:1 (sha256:bcda154d2bc5)
  candidate   registry.example.com/orders:2 (sha256:deb898dca4a1), changed by jane
  release     orders-3, started 2026-11-21T11:40:00Z
  stages      [########|####....|........|........]
               1%       >5%      25%      100%
  weight      5%

  GATE     VALUE  LIMIT        VERDICT  RESTS ON
  errors   0.12%  <= 1%        Pass     3 of 2500 in 5m
  latency  66%    P95 < 200ms  Breach   20 of 30 in 5m

  now         orders-3: stage 2/4 at 5% until 2026-11-21T12:15:00Z; the approval is missing
  time left   6m, until 2026-11-21T12:15:00Z; 51m to the end of the last stage, at the earliest
  next        an approval, then stage 3/4 at 25%
  what to do  kubectl canary approve orders -n shop
"
    );
}

#[test]
fn the_gates_last_figures_stand_beside_them_where_a_record_holds_some() {
    let mut seen = view(&release(baking()), at(9)).unwrap();
    seen.trends = vec![Trend {
        gate: "errors".to_owned(),
        values: vec![Some(0.0), Some(0.5), None, Some(2.0)],
        most: Some(1.0),
        least: None,
        unit: "%".to_owned(),
    }];
    let text = render(&seen, Paint::NONE);
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.contains("GATE")).take(3).collect();
    assert_eq!(
        rows,
        [
            "  GATE     VALUE  LIMIT        VERDICT  LATELY  RESTS ON",
            "  errors   0.12%  <= 1%        Pass     ▁▄·!    3 of 2500 in 5m",
            "  latency  66%    P95 < 200ms  Breach           20 of 30 in 5m",
        ]
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let view = view(&release(baking()), at(9)).unwrap();
    let coloured = render(&view, Paint { colours: true });
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&plain), trimmed(&render(&view, Paint::NONE)));
    assert!(coloured.len() > plain.len());
}

#[test]
fn an_extension_counts_from_when_it_was_given_and_a_paused_clock_stands() {
    let mut extended = baking();
    for (given, left, of) in [("12:15", "10m", 30.0), ("12:18", "13m", 33.0)] {
        extended["current"]["extendedSince"] = json!(format!("2026-11-21T{given}:00Z"));
        let seen = view(&release(extended.clone()), at(20)).unwrap();
        assert_eq!(seen.left.unwrap().to_string(), left);
        assert_eq!(seen.stages[1].passed, 20.0 / of);
    }

    let mut paused = baking();
    paused["phase"] = json!("Paused");
    paused["current"]["paused"] = json!({"by": "user jane", "reason": "Command", "since": "2026-11-21T12:05:00Z"});
    let seen = view(&release(paused), at(60)).unwrap();
    assert_eq!((seen.left, seen.left_in_all), (None, None));
    assert_eq!(seen.next, "resume starts the stage's clock again");
    assert_eq!(seen.stages[1].passed, 5.0 / 15.0);
}

#[test]
fn a_clock_that_has_run_out_says_since_when() {
    let screen = screen(baking(), 17);
    assert!(screen.contains("time left   none since 2026-11-21T12:15:00Z; 45m to the end"), "{screen}");
}

#[test]
fn stages_stand_as_the_release_left_them() {
    let states = |step: &str, outcome: &str, revert: bool| {
        let mut status = baking();
        status["current"]["step"] = json!(step);
        status["outcome"] = json!(outcome);
        if revert {
            status["current"]["revert"] = json!({"at": "2026-11-21T12:05:00Z", "by": "gate errors", "message": "m",
                "outcome": "RolledBack", "reason": "GateBreached", "rejects": true, "stage": "2/4"});
        }
        view(&release(status), at(9)).unwrap().stages.iter().map(|stage| stage.state).collect::<Vec<_>>()
    };
    use StageState::{Ahead, Failed, Now, Passed};
    assert_eq!(states("Baseline", "", false), [Ahead; 4]);
    assert_eq!(states("Scale", "", false), [Passed, Now, Ahead, Ahead]);
    assert_eq!(states("Revert", "", true), [Passed, Failed, Ahead, Ahead]);
    assert_eq!(states("Done", "RolledBack", true), [Passed, Failed, Ahead, Ahead]);
    assert_eq!(states("Roll", "", false), [Passed; 4]);
    assert_eq!(states("Done", "Promoted", false), [Passed; 4]);
}

#[test]
fn each_step_says_what_comes_next() {
    for (step, next) in [
        ("Baseline", "stage 1/4 at 1%"),
        ("Scale", "stage 2/4 at 5% is judged"),
        ("Shift", "stage 2/4 at 5% is judged"),
        ("Roll", "traffic goes back to the stable Service, which is then the new version"),
        ("Soak", "the release is Promoted"),
        ("Revert", "the canary's last requests end"),
        ("Done", "the next change of Deployment orders starts a release"),
    ] {
        let mut status = baking();
        status["current"]["step"] = json!(step);
        assert_eq!(view(&release(status), at(1)).unwrap().next, next, "{step}");
    }
    let mut last = baking();
    last["current"]["stageIndex"] = json!(3);
    assert_eq!(view(&release(last), at(1)).unwrap().next, "Deployment orders rolls to the new version");
}

#[test]
fn advice_is_in_commands_of_this_plugin_and_otherwise_as_the_operator_wrote_it() {
    let of = |advice: &str| in_our_words(advice, &release(json!({})));
    assert_eq!(
        of(
            "kubectl annotate crel orders -n shop canaryrelease.dev/command='resume orders-3' once it is mended (NotReady), or abort"
        ),
        "kubectl canary resume orders -n shop once it is mended (NotReady), or abort"
    );
    assert_eq!(of("nothing, this passes by itself"), "nothing, this passes by itself");
    assert_eq!(
        of("kubectl annotate crel orders -n shop canaryrelease.dev/command='half"),
        "kubectl annotate crel orders -n shop canaryrelease.dev/command='half"
    );
    let new = view(&release(Value::Null), at(0)).unwrap();
    assert!(new.what_to_do.contains("whether the operator runs"), "{}", new.what_to_do);
}

#[test]
fn a_command_that_waits_is_shown_until_the_status_tells_of_it() {
    let mut waiting = release(baking());
    waiting.command = Some(("pause orders-3".to_owned(), "jane".to_owned()));
    let seen = render(&view(&waiting, at(1)).unwrap(), Paint::NONE);
    assert!(seen.contains("command     pause orders-3 by jane, which the operator has not taken yet"), "{seen}");
    let mut status = baking();
    status["lastCommand"] = json!({"command": "pause orders-3", "at": "2026-11-21T12:00:30Z", "by": "jane", "pending": true, "result": "paused"});
    let mut told = release(status);
    told.command = waiting.command;
    assert!(!render(&view(&told, at(1)).unwrap(), Paint::NONE).contains("not taken yet"));
}

#[test]
fn a_hostile_status_harms_no_terminal() {
    let mut status = baking();
    status["message"] = json!("\u{1b}[2Jgone\u{202e}");
    status["gates"][0]["value"] = json!("\u{1b}]0;title\u{7}");
    status["current"]["candidate"]["images"] = json!(["x\ny"]);
    let screen = screen(status, 1);
    assert!(!screen.chars().any(|c| c != '\n' && c.is_control()) && !screen.contains('\u{202e}'), "{screen:?}");
}

#[test]
fn many_stages_still_fit_a_screen() {
    let stages: Vec<StageView> = (1..=20)
        .map(|n| StageView {
            weight: format!("{}%", n * 5),
            duration: Duration::from_secs(60),
            approval: false,
            state: StageState::Ahead,
            passed: 0.0,
        })
        .collect();
    let lines = bar(&stages, Paint::NONE);
    assert!(lines.iter().all(|line| line.chars().count() <= 121), "{lines:?}");
    assert!(lines[1].ends_with("100%"));
}

#[test]
fn jobs_that_run_or_did_not_end_well_have_a_line_each() {
    let mut status = baking();
    status["summary"] = json!([
        "Job db at stage 2/4: Failed: exit code 3 of container db (orders-3-db-s2-1-0c1d2)",
        "Job smoke at stage 2/4: Running (orders-3-smoke-s2-1-77e01)",
        "What to do: nothing",
    ]);
    let shown = screen(status, 9);
    let lines = "  jobs        db at stage 2/4: Failed: exit code 3 of container db (orders-3-db-s2-1-0c1d2)
              smoke at stage 2/4: Running (orders-3-smoke-s2-1-77e01)
";
    assert!(shown.contains(lines), "{shown}");
}
