use kube::core::Status;
use serde_json::{Value, json};

use super::*;

const VERBS: [Verb; 6] = [Verb::Abort, Verb::Pause, Verb::Resume, Verb::Approve, Verb::Promote, Verb::Retry];

fn release(status: Value) -> Release {
    Release::read(json!({
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u1", "annotations": {}},
        "spec": {
            "target": {"name": "orders"},
            "traffic": {"service": "orders", "routes": [{"kind": "HTTPRoute", "name": "orders"}], "requests": {"counter": "r"}},
            "stages": [{"weight": "5%", "duration": "5m"}, {"weight": "25%", "duration": "5m", "approval": true}, {"weight": "100%", "duration": "5m"}],
            "gates": [{"name": "e", "errorRate": {"bad": "b", "total": "r", "limit": "1%"}}],
        },
        "status": status,
    }))
}

fn at(step: &str, stage_index: i32) -> Value {
    json!({"phase": "Baking", "current": {"id": "orders-3", "number": 3, "step": step, "stageIndex": stage_index, "weight": "25%",
        "candidate": {"digest": "sha256:new", "images": ["orders:2"]}}})
}

fn paused(without_weight: bool) -> Release {
    let mut status = at("Bake", 1);
    status["current"]["paused"] = json!({"by": "user jane", "reason": "Command", "since": "2026-11-21T12:00:00Z", "withoutWeight": without_weight});
    release(status)
}

#[test]
fn a_command_is_bound_to_the_release_and_an_approval_to_its_stage() {
    let baking = release(at("Bake", 1));
    let texts = VERBS.map(|verb| text(verb, &baking));
    assert_eq!(
        texts,
        [
            "abort orders-3",
            "pause orders-3",
            "resume orders-3",
            "approve orders-3 2",
            "promote orders-3",
            "retry orders-3"
        ]
    );
    let over = release(at("Done", 1));
    assert_eq!(text(Verb::Retry, &over), "retry orders-3");
    assert_eq!(text(Verb::Abort, &over), "abort", "for whatever has begun meanwhile");
    assert_eq!(text(Verb::Abort, &release(json!({}))), "abort");
}

/// docs/operating.md, verb by phase.
#[test]
fn what_fits_is_what_the_table_says() {
    let fits = |release: &Release| VERBS.map(|verb| matches!(expected(verb, release), Expected::Will(_)));
    // abort, pause, resume, approve, promote, retry; an abort is always sent
    for (case, release, expected) in [
        ("no release", release(at("Done", 0)), [true, false, false, false, false, true]),
        ("nothing yet", release(json!({})), [true, false, false, false, false, false]),
        ("Baseline", release(at("Baseline", 0)), [true, true, false, false, true, false]),
        ("Scaling", release(at("Scale", 1)), [true, true, false, false, true, false]),
        ("Baking, no approval asked", release(at("Bake", 0)), [true, true, false, false, true, false]),
        ("Baking, approval asked", release(at("Bake", 1)), [true, true, false, true, true, false]),
        ("Paused", paused(false), [true, false, true, true, true, false]),
        ("Promoting", release(at("Roll", 2)), [true, false, false, false, false, false]),
        ("Soaking", release(at("Soak", 2)), [true, false, false, false, false, false]),
        ("Reverting", release(at("Revert", 1)), [true, false, false, false, false, false]),
    ] {
        assert_eq!(fits(&release), expected, "{case}");
    }
}

#[test]
fn what_will_happen_is_said_before_it_is_asked() {
    let asked = |verb, release: &Release| match expected(verb, release) {
        Expected::Will(will) => question(verb, release, &will),
        Expected::Refused(why) => panic!("{why}"),
    };
    assert_eq!(
        asked(Verb::Abort, &release(at("Bake", 1))),
        "abort shop/orders (orders-3, candidate orders:2)\n  then: all traffic goes back to stable, the canary's pods go, the candidate is rejected\nDo it? [y/N] "
    );
    assert!(asked(Verb::Resume, &paused(true)).contains("starts again at stage 1"));
    assert!(asked(Verb::Resume, &paused(false)).contains("the stage's clock starts again"));
    assert!(asked(Verb::Pause, &release(at("Bake", 1))).contains("25% of the traffic stays"));
    assert!(asked(Verb::Promote, &release(at("Bake", 1))).contains("PARTIAL"));
    for (answer, yes) in [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("no\n", false), ("yep\n", false)]
    {
        assert_eq!(is_yes(answer), yes, "{answer:?}");
    }
}

#[test]
fn only_abort_goes_past_a_command_that_waits() {
    let mut release = release(at("Bake", 1));
    release.command = Some(("pause orders-3".to_owned(), "jane".to_owned()));
    let Expected::Refused(why) = expected(Verb::Promote, &release) else { panic!("not refused") };
    assert!(why.contains("pause orders-3") && why.contains("jane"), "{why}");
    assert!(matches!(expected(Verb::Abort, &release), Expected::Will(_)));
}

fn answered_with(command: Option<&str>, last: Value) -> Release {
    let mut status = at("Bake", 1);
    status["lastCommand"] = last;
    let mut release = release(status);
    release.command = command.map(|text| (text.to_owned(), "jane".to_owned()));
    release
}

fn last(text: &str, at: &str, pending: bool, result: &str) -> Value {
    json!({"command": text, "at": at, "by": "jane", "pending": pending, "result": result})
}

#[test]
fn a_command_is_taken_when_its_annotation_is_gone_and_the_status_tells_of_it() {
    const TEXT: &str = "pause orders-3";
    let sent = release(at("Bake", 1));
    let is = |now: &Release| taken(now, &sent, TEXT);

    let earlier = answered_with(Some(TEXT), last(TEXT, "2026-11-21T12:00:00Z", false, "paused"));
    assert_eq!(is(&earlier), Taken::NotYet, "the status tells of an earlier one");
    let told = answered_with(Some(TEXT), last(TEXT, "2026-11-21T12:05:00Z", true, "refused: x"));
    assert_eq!(is(&told), Taken::NotYet, "until then no other command may be given");
    let gone = answered_with(None, last(TEXT, "2026-11-21T12:05:00Z", false, "refused: x"));
    assert!(matches!(is(&gone), Taken::Yes(last) if last.result == "refused: x"));
    let aborted = answered_with(Some("abort"), last(TEXT, "2026-11-21T12:00:00Z", false, "paused"));
    assert!(matches!(is(&aborted), Taken::Lost(why) if why.contains("abort")));
    let other = answered_with(None, last("abort", "2026-11-21T12:05:00Z", false, "done"));
    assert!(matches!(is(&other), Taken::Lost(_)));
    let mut anew = gone;
    anew.uid = "u2".to_owned();
    assert!(matches!(is(&anew), Taken::Lost(why) if why.contains("made anew")));
}

#[test]
fn a_refusal_of_the_policy_is_said_in_its_own_words_with_what_to_ask_for() {
    let error = |code: u16, message: &str| {
        kube::Error::Api(Box::new(Status { code, message: message.to_owned(), ..Status::default() }))
    };
    let release = release(at("Bake", 1));
    let policy = "canaryreleases.canaryrelease.dev \"orders\" is forbidden: ValidatingAdmissionPolicy 'canaryrelease-command-check' with binding 'canaryrelease-command-check' denied request: joe may not abort CanaryRelease shop/orders: needs the RBAC verb \"abort\" on canaryreleases.canaryrelease.dev";
    let why = refusal(&error(403, policy), Verb::Abort, &release).unwrap();
    assert!(why.starts_with("joe may not abort CanaryRelease shop/orders: needs the RBAC verb"), "{why}");
    assert!(why.contains("canaryrelease-releaser") && why.contains("--verb=abort"), "{why}");
    let pending = "x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: CanaryRelease shop/orders has the command \"pause orders-3\" of jane, which the operator has not taken yet; only abort may replace it";
    let why = refusal(&error(403, pending), Verb::Pause, &release).unwrap();
    assert!(why.starts_with("CanaryRelease shop/orders has the command"), "{why}");
    let why = refusal(&error(403, "User \"joe\" cannot patch resource"), Verb::Pause, &release).unwrap();
    assert!(why.contains("needs patch") && why.contains("the verb pause"), "{why}");
    assert!(refusal(&error(409, "uid"), Verb::Pause, &release).unwrap().contains("made anew"));
    assert_eq!(refusal(&error(500, "down"), Verb::Pause, &release), None);
}
