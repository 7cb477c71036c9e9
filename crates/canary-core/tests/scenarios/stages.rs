//! What a tick makes of what was measured: breaches and silence, the baseline, and how a stage passes, goes on, or ends
//! without a verdict.

use std::time::Duration;

use canary_api::Step;
use canary_core::{
    evidence::{Accounts, Totals},
    gates::{Measure, Reading},
};
use canary_stats::{Dispersion, MeasuredDispersion};
use jiff::SignedDuration;
use serde_json::json;

use crate::{
    weighing::shifted,
    world::{Sight, assert_waits, failed, release, reverted, step, stopped, told},
};

impl Sight {
    /// With the gate of errors alone, and what it counted on both sides: requests and bad ones.
    fn errors(mut self, canary: Measure, stable: Measure) -> Self {
        self.seen.release.spec.gates.retain(|gate| gate.name == "errors");
        let (spec, current) = (self.seen.release.spec.clone(), self.current().clone());
        let window = self.now - SignedDuration::from_secs(60);
        let totals = Totals::new("errors", canary, stable);
        self.seen.measured.readings =
            Accounts::new(&spec, &current, window, None).absorb(&spec, current.step, &[totals], None, self.now);
        self
    }
}

fn counted(n: f64, k: f64) -> Measure {
    Measure::Counted { n, k, seconds: 60.0 }
}

fn late(n: f64, k: f64) -> Measure {
    Measure::Partial { n, k, seconds: 60.0, why: "pod a: 30s old".to_owned() }
}

#[test]
fn a_breach_is_none_before_the_candidate_has_traffic() {
    for place in [(Step::Baseline, 0), (Step::Scale, 0)] {
        let sight = Sight::at(place).gauge(99.0, 9);
        let done = sight.decided(|seen| seen.measured.next_look = Some(Duration::from_millis(1)));
        assert_eq!((step(&done), reverted(&done)), (place.0, None), "{}", done.status.message);
        assert!(done.wake_after.is_some_and(|after| after >= Duration::from_millis(200)), "{:?}", done.wake_after);
        assert_eq!(release(&done).counts, []);
    }
}

#[test]
fn readings_of_before_a_resume_end_nothing() {
    let sight = Sight::at((Step::Bake, 0)).gauge(99.0, 9);
    assert_eq!(reverted(&sight.decide()), Some(("GateBreached", "gate staleness", true)));
    let resumed = sight.paused(false).command("resume web-1").decide();
    assert_eq!((step(&resumed), reverted(&resumed), stopped(&resumed)), (Step::Bake, None, None));
}

/// A sight with a job of the stage that failed.
fn with_a_failed_job(sight: Sight) -> Sight {
    let mut sight = sight.with(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage"}]}));
    let run = json!([{"name": "smoke", "at": "Stage", "attempt": 1, "stage": 1, "job": "j", "state": "Failed"}]);
    sight.current().jobs = serde_json::from_value(run).unwrap();
    sight
}

#[test]
fn a_breach_of_the_candidates_own_comes_before_a_failed_job_and_one_of_both_sides_after_it() {
    let sight = || Sight::at((Step::Bake, 0));
    let own = with_a_failed_job(sight()).gauge(99.0, 9).decide();
    assert_eq!(reverted(&own), Some(("GateBreached", "gate staleness", true)));
    let (canary, stable) = (counted(100.0, 50.0), counted(1000.0, 500.0));
    let both = with_a_failed_job(sight()).errors(canary, stable).decide();
    assert_eq!(reverted(&both), Some(("JobFailed", "job smoke", true)));
}

#[test]
fn a_breach_of_both_sides_stops_a_stage_and_rejects_nothing() {
    for place in [(Step::Scale, 1), (Step::Shift, 1), (Step::Bake, 1)] {
        let done = Sight::at(place).errors(counted(100.0, 50.0), counted(1000.0, 500.0)).decide();
        let why = "gate errors: 50% where <= 1% is allowed, and stable has 50% at the same time: both sides are bad";
        assert_eq!(stopped(&done), Some(("Confounded", why, true)), "{place:?}");
        assert_eq!((release(&done).weight.as_str(), reverted(&done)), ("0%", None));
    }
}

#[test]
fn a_breach_of_both_sides_outside_of_a_stage_is_a_breach() {
    let forged = Sight::at((Step::Baseline, 0)).changed(|current| current.weight = "50%".to_owned());
    let done = forged.errors(counted(100.0, 50.0), counted(1000.0, 500.0)).decide();
    assert_eq!(reverted(&done), Some(("GateBreached", "gate errors", true)));
}

#[test]
fn a_canary_that_counts_nothing_of_twenty_requests_that_were_due_stops_its_stage() {
    let due = |sight: Sight, requests: f64| sight.decided(|seen| seen.measured.due_in_silence = requests);
    let at = |step| Sight::good((step, 1));
    let why = "the canary counted no request while about 20 were due to it at 50%";
    assert_eq!(stopped(&due(at(Step::Bake), 20.0)), Some(("CanarySilent", why, true)));
    assert_eq!(stopped(&due(at(Step::Bake), 19.9)), None);
    assert_eq!(stopped(&due(at(Step::Shift), 99.0)), None);
    assert_eq!(stopped(&due(at(Step::Bake).paused(false), 99.0)), Some(("Command", "user jane", false)));
    assert_eq!(stopped(&due(at(Step::Bake).paused(false).command("resume web-1"), 99.0)), None);
}

/// At the baseline for so long, with what stable counted of errors.
fn measured(stable: Measure, millis: i64) -> Sight {
    Sight::at((Step::Baseline, 0)).errors(Measure::NoData("no pods".to_owned()), stable).since(millis)
}

#[test]
fn a_stable_version_in_breach_stops_a_release_that_takes_a_baseline() {
    let bad = || measured(counted(1000.0, 500.0), 5000);
    let why = "the stable version itself breaks gate errors: 50% where <= 1% is allowed";
    assert_eq!(stopped(&bad().decide()), Some(("StableInBreach", why, true)));
    assert_eq!(stopped(&bad().paused(false).command("resume web-1").decide()), None);
    let none = bad().with(json!({"baseline": {"duration": "0s"}}));
    let done = none.clone().decide();
    assert_eq!((stopped(&done), step(&done), &release(&done).baseline), (None, Step::Scale, &vec![]));
    let resumed = none.paused(false).command("resume web-1").decide();
    assert_eq!((stopped(&resumed), step(&resumed)), (None, Step::Scale));
}

#[test]
fn a_baseline_lasts_its_time_and_is_kept() {
    let before = measured(counted(1000.0, 1.0), 19_999).decide();
    assert_eq!((step(&before), before.wake_after), (Step::Baseline, Some(Duration::from_millis(1))));
    let done = measured(counted(1000.0, 1.0), 20_000).decide();
    assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::ZERO)));
    let kept = &release(&done).baseline[0];
    assert_eq!((kept.gate.as_str(), kept.side.as_str()), ("errors", "stable"));
    assert_eq!((kept.n, kept.k, kept.seconds, kept.dispersion), (1000.0, 1.0, 60.0, None));
    assert_eq!((release(&done).canary_pods, &release(&done).counts), (1, &vec![]));
}

#[test]
fn a_baseline_keeps_how_bursty_stable_is_where_it_is() {
    for (phi, kept) in [(1.0, None), (2.5, Some(2.5))] {
        let mut sight = measured(counted(1000.0, 1.0), 20_000);
        let bursts =
            MeasuredDispersion { phi: Dispersion::measured(phi), statistic: phi, events: 9.0, pods: 1, freedom: 9.0 };
        sight.seen.measured.readings[0].bursts = Some(bursts);
        assert_eq!(release(&sight.decide()).baseline[0].dispersion, kept);
    }
}

#[test]
fn a_baseline_waits_once_its_length_for_figures_that_are_late() {
    let why = "the stable version's figures for gate errors are not all there yet";
    for millis in [20_000, 39_999] {
        let done = measured(late(1000.0, 1.0), millis).decide();
        assert_eq!(step(&done), Step::Baseline);
        assert_waits(&done, why);
    }
    let done = measured(late(1000.0, 1.0), 40_000).decide();
    assert_eq!((step(&done), release(&done).baseline[0].n), (Step::Scale, 1000.0));
}

#[test]
fn a_baseline_waits_for_figures_that_can_not_be_read_and_for_missing_ones_where_a_gate_compares_with_them() {
    let none = || Measure::NoData("no series".to_owned());
    let error = || Measure::Error("it does not answer".to_owned());
    for (to, stable, waits) in [
        (Some("Baseline"), none(), true),
        (Some("Baseline"), error(), true),
        (Some("Baseline"), counted(1000.0, 1.0), false),
        (Some("Stable"), none(), false),
        (Some("Stable"), error(), true),
        (None, none(), false),
        (None, error(), true),
    ] {
        let what = format!("{to:?} {stable:?}");
        let rule = match to {
            Some(to) => json!({"name": "g", "relative": {"counter": "bad_total", "to": to, "margin": "50%"}}),
            None => json!({"name": "g", "errorRate": {"bad": "bad_total", "total": "requests_total", "limit": "1%"}}),
        };
        let mut sight = Sight::at((Step::Baseline, 0)).with(json!({"gates": [rule]})).since(20_000);
        sight.seen.measured.readings = vec![Reading::new("g", Measure::Number { value: 0.0, streak: 0 }, stable)];
        assert_eq!(step(&sight.decide()) == Step::Baseline, waits, "{what}");
    }
}

#[test]
fn stages_that_will_learn_too_little_are_told_when_the_traffic_is_known() {
    let told_of = |stages: usize, rate: Option<f64>| {
        let stages = vec![json!({"weight": "10%", "duration": "30s"}); stages];
        let sight = measured(counted(1000.0, 1.0), 20_000).with(json!({"stages": stages}));
        sight.decided(|seen| seen.measured.stable_rate = rate)
    };
    let few = told_of(2, Some(1.0));
    let blind = &release(&few).blind;
    assert_eq!(
        (blind.len(), blind[0].starts_with("stage 1/2"), blind[1].starts_with("stage 2/2")),
        (2, true, true),
        "{blind:?}"
    );
    let text = format!("web-1: {}; see status.current.blind", blind[0]);
    assert_eq!(told(&few), [("BlindStage", text.as_str())]);
    let many = told_of(11, Some(1.0));
    let blind = &release(&many).blind;
    assert_eq!((blind.len(), blind[8].as_str()), (9, "and 3 more: `kubectl canary plan` shows all"));
    assert_eq!(release(&told_of(8, Some(1.0))).blind.len(), 8);
    assert_eq!(release(&told_of(60, Some(1.0))).blind.len(), 9);
    for done in [told_of(2, None), told_of(2, Some(1e6)), told_of(61, Some(1.0))] {
        assert_eq!((told(&done), &release(&done).blind), (vec![], &vec![]));
    }
}

/// In the second stage for so long.
fn baking(millis: i64) -> Sight {
    Sight::at((Step::Bake, 1)).since(millis)
}

#[test]
fn a_stage_lasts_its_time_and_again_as_long_from_when_it_was_extended() {
    let extended = |millis: i64| baking(30_000 + millis).extended(millis);
    for (early, over) in [(baking(29_999), baking(30_000)), (extended(29_999), extended(30_000))] {
        let done = early.gauge(1.0, 0).decide();
        assert_eq!((step(&done), done.wake_after), (Step::Bake, Some(Duration::from_millis(1))));
        let done = over.gauge(1.0, 0).changed(|current| current.flaps = 2).decide();
        assert_eq!((step(&done), done.wake_after), (Step::Scale, Some(Duration::ZERO)));
        assert_eq!((release(&done).stage_index, release(&done).flaps, release(&done).canary_pods), (2, 0, 4));
        assert_eq!(told(&done), [("StagePassed", "stage 2/3: every gate passed")]);
    }
    // One that is given long after the planned end, since nobody looked, is given whole; a verdict ends it at once.
    let late = |millis| baking(3_600_000).extended(millis);
    assert_eq!(step(&late(1).gauge(1.0, 0).decide()), Step::Scale);
    for (millis, next) in [(59_999, Step::Bake), (60_000, Step::Scale)] {
        assert_eq!(step(&baking(millis).extended(1).gauge(1.0, 0).decide()), next);
    }
    for (millis, over) in [(29_999, false), (30_000, true)] {
        assert_eq!(stopped(&late(millis).gauge(31.0, 1).decide()).is_some(), over);
    }
    // An extension that began before the step is none of it.
    assert_eq!(step(&baking(29_999).extended(3_600_000).gauge(1.0, 0).decide()), Step::Bake);
    let last = Sight::good((Step::Bake, 2)).since(30_000).decide();
    assert_eq!(step(&last), Step::Roll);
    let text = "Deployment web takes the candidate over; traffic stays on the canary's pods until it has";
    assert_eq!(told(&last), [("StagePassed", "stage 3/3: every gate passed"), ("Promoting", text)]);
}

#[test]
fn a_stage_without_a_verdict_is_extended_once_and_then_stopped_or_reverted() {
    let done = baking(30_000).gauge(31.0, 1).decide();
    assert_eq!((step(&done), release(&done).stage_index), (Step::Bake, 1));
    let given = release(&done).extended_since.as_ref().unwrap().0;
    assert_eq!(given, release(&done).step_since.as_ref().unwrap().0 + Duration::from_secs(30));
    let text = "stage 2/3 goes on for at most 30s more: no verdict from staleness (Inconclusive)";
    assert_eq!(told(&done), [("StageExtended", text)]);
    let extended = || baking(60_000).gauge(31.0, 1).extended(30_000);
    let why = "stage 2/3 ended without a verdict from staleness (Inconclusive)";
    let done = extended().decide();
    assert_eq!((stopped(&done), release(&done).weight.as_str()), (Some(("Inconclusive", why, false)), "50%"));
    let text = format!(
        "{why}: the weight stays; give the command resume to judge the stage again, promote to go on, or abort"
    );
    assert_eq!(told(&done), [("Paused", text.as_str())]);
    let done = extended().with(json!({"onInconclusive": "Revert"})).decide();
    assert_eq!(reverted(&done), Some(("Inconclusive", "gates", true)));
}

#[test]
fn what_could_not_be_read_at_a_stages_end_is_looked_at_once_more() {
    let blind = |sight: Sight| sight.seeing(|seen| seen.measured.readings.clear()).decide();
    let early = blind(baking(29_999));
    assert_eq!((early.status.message.contains("once more"), early.wake_after), (false, Some(Duration::from_millis(1))));
    let extended = |millis: i64| baking(30_000 + millis).extended(millis);
    for (waits, over, what) in [
        ((baking(30_000), baking(34_999)), baking(35_000), "StageExtended"),
        ((extended(30_000), extended(34_999)), extended(35_000), "Paused"),
    ] {
        for (waits, left) in [(waits.0, 5000), (waits.1, 1)] {
            let done = blind(waits);
            assert_eq!((step(&done), told(&done), stopped(&done)), (Step::Bake, vec![], None));
            assert_waits(&done, "no data of errors, staleness: looked at once more");
            assert_eq!(done.wake_after, Some(Duration::from_millis(left)));
        }
        assert_eq!(told(&blind(over))[0].0, what);
    }
    // What was read then counts.
    assert_eq!(step(&baking(32_000).gauge(1.0, 0).decide()), Step::Scale);
    assert_eq!(told(&baking(30_000).gauge(31.0, 1).decide())[0].0, "StageExtended");
}

#[test]
fn a_stage_that_has_passed_does_not_end_while_something_else_is_awaited() {
    let passed = || baking(30_000).gauge(1.0, 0);
    let unread = passed().seeing(|seen| seen.target = failed());
    let untaken = passed().route(|route| route["metadata"]["generation"] = json!(99));
    let route_unread = passed().seeing(|seen| seen.routes[0].1 = failed());
    let job = passed().with(json!({"jobs": [{"name": "smoke", "cronJob": "smoke", "at": "Stage"}]}));
    let approval = || passed().seeing(|seen| seen.release.spec.stages[1].approval = true);
    for (sight, why) in [
        (unread, "Deployment web could not be read: timeout"),
        (passed().short(0), "1 of 2 canary pods are ready"),
        (untaken, "gateway gate has not looked at the present form of route web"),
        (route_unread, "HTTPRoute web could not be read: timeout"),
        (job, "job smoke is to be run"),
        (approval(), "stage 2/3 has passed and waits for approval"),
    ] {
        let done = sight.decide();
        assert_eq!((step(&done), release(&done).stage_index), (Step::Bake, 1), "{why}");
        assert_waits(&done, why);
        assert!(told(&done).is_empty(), "{why}");
    }
    assert_eq!(step(&approval().changed(|current| current.approved = true).decide()), Step::Scale);
}

#[test]
fn stages_that_end_short_of_all_traffic_are_followed_by_all_of_it() {
    let done = baking(30_000).gauge(1.0, 0).decided(|seen| seen.release.spec.stages.truncate(2));
    assert_eq!((step(&done), release(&done).stage_index, done.wake_after), (Step::Scale, 1, Some(Duration::ZERO)));
    let partial = shifted(9000).changed(|current| current.partial = true).decide();
    assert_eq!((step(&partial), release(&partial).stage_index), (Step::Scale, 2));
    assert_eq!(release(&partial).canary_pods, 4);
}
