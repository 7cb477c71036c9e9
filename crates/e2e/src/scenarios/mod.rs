//! Every scenario, with the promise that it keeps.

pub mod beset;
pub mod beside;
pub mod commands;
pub mod deletion;
pub mod faults;
pub mod figures;
pub mod gitops;
pub mod hold;
pub mod hostile;
pub mod jobs;
pub mod odd_targets;
pub mod promotion;
pub mod revert;
pub mod secrets;
pub mod starting;

use anyhow::Result;
use futures::future::BoxFuture;

use crate::scene::Scene;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, also its namespace.
    pub name: &'static str,
    /// The promise it keeps.
    pub promise: &'static str,
    /// Whether `cargo xtask test` plays it.
    pub quick: bool,
    /// Whether it disturbs everything else in the cluster, so that it plays alone.
    pub alone: bool,
    /// Whether it begins with a build that this one replaces, and can't be played without.
    pub upgrades: bool,
    /// Plays it.
    pub run: for<'a> fn(&'a mut Scene) -> BoxFuture<'a, Result<()>>,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! scenario {
    ($name:literal, $promise:literal, $function:path $(, $flag:ident)*) => {
        #[allow(clippy::needless_update)]
        Scenario {
            $($flag: true,)*
            ..Scenario {
                name: $name,
                promise: $promise,
                quick: false,
                alone: false,
                upgrades: false,
                run: |scene| Box::pin($function(scene)),
            }
        }
    };
}

/// All scenarios; those that play alone last.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        // The longest first, so that they do not end alone.
        scenario!(
            "example",
            "the README's example works as it is written, its times aside",
            promotion::the_readmes_example_is_released
        ),
        scenario!(
            "hpa",
            "an autoscaler on the target that really scales during the release",
            hold::autoscaler_scales_during_the_release
        ),
        scenario!(
            "delete-each",
            "CanaryRelease deleted at each stage: all traffic on stable, the Deployment plain",
            deletion::deleted_at_each_stage_leaves_a_plain_deployment
        ),
        scenario!(
            "commands",
            "approve, pause, resume, promote and retry do what they say",
            commands::approve_pause_resume_promote_and_retry
        ),
        scenario!(
            "while-rolling",
            "a new template pushed, an abort and a breach while the promoted target rolls",
            revert::breach_push_and_abort_while_the_target_rolls
        ),
        scenario!(
            "start",
            "set image, apply, server-side apply and replace each start a release; the same again is silent",
            starting::every_way_to_write_starts_a_release_and_the_same_again_is_silent
        ),
        scenario!(
            "rejected-turns",
            "v2, v3, then v2 again after their reverts: none released",
            revert::rejected_versions_in_turn_none_released
        ),
        scenario!(
            "pipeline",
            "a pipeline that waits on the status ends right in both outcomes",
            gitops::a_pipeline_that_waits_on_the_status_ends_right
        ),
        scenario!("good", "good release promoted, the client sees no error", promotion::good_release_promoted, quick),
        scenario!("bad-1", "bad release at stage 1 reverted", revert::bad_release_reverted_at_stage_1, quick),
        scenario!(
            "pods",
            "no Prometheus: the pods' own metrics promote a good release and revert a bad one",
            revert::judged_by_the_pods_own_metrics,
            quick
        ),
        scenario!(
            "baseline-pods",
            "baseline pods: three weights, like compared with like; lost ones stop nothing; a worse version is reverted",
            beside::compared_with_pods_beside_the_canarys
        ),
        scenario!(
            "jobs",
            "jobs by reference: their exit codes decide, their logs are in the record; what fails reverts though gates pass",
            jobs::exit_codes_decide_and_logs_are_kept,
            quick
        ),
        scenario!("bad-3", "release that turns bad at stage 3 reverted", revert::turns_bad_at_stage_3_reverted, quick),
        scenario!(
            "gitops",
            "a tool applies plain route and Deployment every 5 s: no difference at any stage, the split stays",
            gitops::a_tool_that_applies_every_5_s_sees_no_difference,
            quick
        ),
        scenario!(
            "superseded",
            "new template in the middle of a release: superseded, starts again from stage 1",
            starting::new_template_supersedes_and_starts_again,
            quick
        ),
        scenario!(
            "rejected",
            "the same rejected manifest again: no release, no pods; a fix: a new release",
            revert::rejected_again_stays_rejected_and_a_fix_is_released,
            quick
        ),
        scenario!(
            "crash-loop",
            "a canary that crash-loops is reverted on its deadline",
            revert::crash_loop_reverted_on_its_deadline,
            quick
        ),
        scenario!(
            "hold-mode",
            "a revert in Hold mode keeps the template, and stable serves and scales",
            revert::hold_mode_keeps_the_template_and_stable_serves
        ),
        scenario!(
            "unpause",
            "the write that would un-pause is refused with the way out",
            starting::unpausing_by_hand_is_refused_with_the_way_out,
            quick
        ),
        scenario!(
            "delete-50",
            "deleted in the foreground at weight 50: no failed answer",
            deletion::deleted_in_the_foreground_at_weight_50,
            quick
        ),
        scenario!("delete-hold", "deletion after a revert in Hold mode", deletion::deleted_after_a_revert_in_hold_mode),
        scenario!(
            "two",
            "two CanaryReleases for one target: the second says so",
            hold::second_release_for_one_target_says_so
        ),
        scenario!(
            "zero",
            "scaled to 0 while held, later back: the stable version serves",
            hold::scaled_to_zero_while_held_comes_back_as_stable
        ),
        scenario!(
            "again",
            "target deleted and created again",
            hold::target_deleted_and_created_again_is_a_new_baseline
        ),
        scenario!(
            "abort",
            "abort without the verb refused, with it done, name recorded",
            commands::abort_needs_the_verb_and_records_the_name,
            quick
        ),
        scenario!(
            "route",
            "route edited by hand: put back and said",
            faults::route_edited_by_hand_is_put_back_and_said,
            quick
        ),
        scenario!(
            "hostile",
            "who may write CanaryReleases and not what they name gains nothing by them",
            hostile::whoever_writes_canaryreleases_gains_nothing_by_them,
            quick
        ),
        scenario!(
            "nonsense",
            "nonsense in annotations, marks, spec and status harms no longer than it stands there",
            faults::nonsense_harms_no_longer_than_it_stands
        ),
        scenario!("odd", "a target of odd but legal shape", odd_targets::target_of_odd_but_legal_shape),
        scenario!(
            "namespace",
            "the namespace of a release under way deleted: nothing of ours keeps it",
            beset::namespace_deleted_in_a_release,
            quick
        ),
        scenario!(
            "prometheus",
            "Prometheus down: weight stays, no promotion, abort works",
            faults::prometheus_down_keeps_the_weight_and_abort_works,
            alone
        ),
        scenario!(
            "killed",
            "operator killed at each stage: goes on, no stage repeated or skipped",
            faults::operator_killed_at_each_stage_goes_on,
            quick,
            alone
        ),
        scenario!(
            "away",
            "API server away, then the operator replaced, in a release: goes on, no stage repeated or skipped",
            faults::api_server_away_and_operator_replaced,
            quick,
            alone
        ),
        scenario!(
            "outages",
            "etcd, network, containerd, Prometheus and lease away in turn in one release: no stage repeated or skipped",
            beset::each_outage_in_turn,
            quick,
            alone
        ),
        scenario!(
            "hostile-object",
            "one CanaryRelease of six hostile shapes, two of which can't be read: the others are released, and it is mended",
            beset::hostile_object_beside_others,
            quick,
            alone
        ),
        scenario!(
            "upgrade",
            "this build takes over from the one before in a release, and that one from this: goes on, and none is started",
            beset::upgraded_and_back_in_a_release,
            quick,
            alone,
            upgrades
        ),
        scenario!(
            "deleted-all",
            "the CRDs deleted in one release, all uninstalled in the next: a plain Deployment, no failed answer",
            beset::definitions_deleted_and_all_uninstalled,
            quick,
            alone
        ),
        scenario!(
            "secrets",
            "credentials that all around them repeat: found in no log, metric, Event, object or evidence",
            secrets::credentials_are_found_nowhere,
            alone
        ),
        scenario!(
            "uninstalled",
            "operator uninstalled in the middle: traffic stays, the way out works",
            faults::operator_uninstalled_in_the_middle,
            alone
        ),
        scenario!("override", "override with the operator dead", faults::override_with_the_operator_dead, alone),
        scenario!(
            "drift",
            "a split that drifts without the route policy: put back and said",
            faults::drifted_route_without_the_policy_is_put_back_and_said,
            alone
        ),
        scenario!("no-hold", "hold not installed: said, not Ready", hold::hold_not_installed_is_said, alone),
    ]
}
