//! Reads, live, all that one tick decides on. It decides only what there is to read; a read that
//! fails is passed on as such.

use std::{collections::BTreeSet, time::Duration};

use canary_api::{CanaryRelease, JobState, Step, names};
use canary_core::{
    Fetched, Kind, Observed,
    job::{self, State},
    object::{self, Patch},
    observed::{BaselineSide, Hold, JobsSeen, Measured, Rival},
};
use futures::future::join_all;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::api;

/// Longest time for all that is read of jobs: nothing else in a tick may wait for it.
const DEADLINE_OF_JOBS: Duration = Duration::from_secs(2);

/// The records that bear our label, and the one that the status names, should a hand have taken its label away: it is
/// there all the same, and can't be created again.
async fn serving_records(
    client: &Client,
    namespace: &str,
    release: &CanaryRelease,
    owned: &str,
) -> Fetched<Vec<Value>> {
    let list = |query: String| async move {
        api::list(client, api::folder(Kind::ControllerRevision, namespace), &query).await
    };
    let hold = release.status.as_ref().and_then(|status| status.hold.as_ref());
    let named = hold.map(|hold| hold.serving_record.as_str()).filter(|name| !name.is_empty());
    match (list(owned.to_owned()).await, named) {
        (Fetched::Known(mut records), Some(name)) if !records.iter().any(|record| object::name(record) == name) => {
            match list(api::field_selector("metadata.name", name)).await {
                Fetched::Known(others) => records.extend(others),
                failed => return failed,
            }
            Fetched::Known(records)
        }
        (records, _) => records,
    }
}

/// All but the metrics.
pub(super) async fn cluster(client: &Client, release: CanaryRelease, policies: &str) -> Observed {
    let namespace = release.metadata.namespace.clone().unwrap_or_default();
    let spec = &release.spec;
    let read = |kind: Kind, name: String| {
        let folder = api::folder(kind, &namespace);
        async move { api::get(client, folder, &name).await }
    };
    let owned = std::collections::BTreeMap::from([(
        names::LABEL_OWNED_BY.to_owned(),
        names::label_value(release.metadata.name.as_deref().unwrap_or_default()),
    )]);
    let owned = api::label_selector(&owned);
    let active = in_release(&release);
    let same_target = api::field_selector("spec.target.name", &spec.target.name);
    let rivals = async {
        if active {
            Fetched::Missing
        } else {
            api::list(client, api::folder(Kind::CanaryRelease, &namespace), &same_target).await
        }
    };
    let network_policies = async {
        if active { Fetched::Missing } else { api::list(client, api::network_policies(&namespace), "").await }
    };
    let routes = join_all(
        spec.traffic
            .routes
            .iter()
            .map(|route| async { (route.name.clone(), read(Kind::HttpRoute, route.name.clone()).await) }),
    );
    let (
        target,
        canary,
        service,
        canary_service,
        routes,
        rivals,
        network_policies,
        autoscalers,
        budgets,
        serving_records,
        baseline,
        jobs,
    ) = futures::join!(
        read(Kind::Deployment, spec.target.name.clone()),
        read(Kind::Deployment, names::canary(&spec.target.name)),
        read(Kind::Service, spec.traffic.service.clone()),
        read(Kind::Service, names::canary(&spec.traffic.service)),
        routes,
        rivals,
        network_policies,
        api::list(client, api::folder(Kind::HorizontalPodAutoscaler, &namespace), ""),
        api::list(client, api::folder(Kind::PodDisruptionBudget, &namespace), ""),
        serving_records(client, &namespace, &release, &owned),
        baseline(client, &namespace, &release),
        jobs(client, &namespace, &release),
    );
    let ((target_sets, target_pods), (canary_sets, canary_pods), hold) = futures::join!(
        sets_and_pods(client, &namespace, &target),
        sets_and_pods(client, &namespace, &canary),
        prove(client, &release, &target, policies)
    );
    let rivals = match rivals {
        Fetched::Known(found) => Fetched::Known(found.iter().map(rival).collect()),
        Fetched::Missing => Fetched::Missing,
        Fetched::Failed(why) => Fetched::Failed(why),
    };
    Observed {
        release,
        rivals,
        target,
        canary,
        replica_sets: both(target_sets, canary_sets),
        target_pods,
        canary_pods,
        service,
        canary_service,
        baseline,
        routes,
        autoscalers,
        budgets,
        network_policies,
        serving_records,
        jobs,
        hold,
        policies: policies.to_owned(),
        provider_problem: None,
        names_pods: true,
        measured: Measured::default(),
    }
}

pub(super) fn in_release(release: &CanaryRelease) -> bool {
    release.status.as_ref().and_then(|status| status.current.as_ref()).is_some_and(|current| current.step != Step::Done)
}

/// The jobs whose end the status does not know; nothing is read of others, and nothing while traffic goes back.
async fn jobs(client: &Client, namespace: &str, release: &CanaryRelease) -> JobsSeen {
    let Some(current) = release.status.as_ref().and_then(|status| status.current.as_ref()) else {
        return JobsSeen::default();
    };
    if current.step == Step::Revert || release.metadata.deletion_timestamp.is_some() {
        return JobsSeen::default();
    }
    let deadline = Instant::now().checked_add(DEADLINE_OF_JOBS).unwrap_or_else(Instant::now);
    let open: Vec<_> = current.jobs.iter().filter(|run| run.state.is_open()).collect();
    let from = |name: &str| release.spec.jobs.iter().find(|job| job.name == name).map(|job| job.cron_job.clone());
    let wanted = open.iter().filter(|run| run.state == JobState::Wanted).filter_map(|run| from(&run.name));
    let cron_jobs = join_all(wanted.collect::<BTreeSet<_>>().into_iter().map(|name| async {
        let found = by(deadline, api::get(client, api::cron_jobs(namespace), &name)).await;
        (name, found)
    }));
    let jobs = join_all(open.iter().map(|run| async {
        let found = by(deadline, api::get(client, api::folder(Kind::Job, namespace), &run.job)).await;
        (run.job.clone(), found)
    }));
    let (cron_jobs, jobs) = futures::join!(cron_jobs, jobs);
    let failed = jobs.iter().filter_map(|(name, found)| Some((name, found.known()?)));
    let failed = failed.filter(|(_, found)| matches!(job::state(found), State::Failed(_)));
    let pods = join_all(
        failed.map(|(name, found)| async { (name.clone(), by(deadline, pods_of_job(client, namespace, found)).await) }),
    );
    let pods = pods.await.into_iter().collect();
    JobsSeen {
        jobs: jobs.into_iter().collect(),
        pods,
        cron_jobs: cron_jobs.into_iter().collect(),
        ..JobsSeen::default()
    }
}

async fn by<T>(deadline: Instant, call: impl Future<Output = Fetched<T>>) -> Fetched<T> {
    timeout_at(deadline, call).await.unwrap_or_else(|_| Fetched::Failed("no answer in time".to_owned()))
}

/// The pods of a Job, by its uid.
pub(super) async fn pods_of_job(client: &Client, namespace: &str, job: &Value) -> Fetched<Vec<Value>> {
    let named = [("batch.kubernetes.io/job-name".to_owned(), object::name(job).to_owned())].into();
    let pods = api::list(client, api::pods(namespace), &api::label_selector(&named)).await;
    let own = |pod: &Value| object::controlled_by(pod, object::uid(job));
    match pods {
        Fetched::Known(pods) => Fetched::Known(pods.into_iter().filter(own).collect()),
        other => other,
    }
}

/// What there is of baseline pods. Where none were asked for nothing is read, but at the end.
async fn baseline(client: &Client, namespace: &str, release: &CanaryRelease) -> BaselineSide {
    let current = release.status.as_ref().and_then(|status| status.current.as_ref());
    let had = current.is_some_and(|current| current.baseline_pods.is_some());
    if !release.spec.baseline.pods && !had && release.metadata.deletion_timestamp.is_none() {
        return BaselineSide::none();
    }
    let (own, named) = (names::baseline(&release.spec.target.name), names::baseline(&release.spec.traffic.service));
    let (deployment, service) = futures::join!(
        api::get(client, api::folder(Kind::Deployment, namespace), &own),
        api::get(client, api::folder(Kind::Service, namespace), &named),
    );
    let ours = |object: &Value| object::annotation(object, names::ANNOTATION_UID) == release.metadata.uid.as_deref();
    let pods = match &deployment {
        // Another's pods are nobody to compare with.
        Fetched::Known(another) if !ours(another) => Fetched::Known(Vec::new()),
        deployment => sets_and_pods(client, namespace, deployment).await.1,
    };
    BaselineSide { deployment, pods, service }
}

fn rival(object: &Value) -> Rival {
    let text = |pointer: &str| object::text(object, pointer).to_owned();
    Rival { name: text("/metadata/name"), uid: text("/metadata/uid"), created: text("/metadata/creationTimestamp") }
}

/// ReplicaSets and pods that a Deployment's selector selects; of the pods, those of its ReplicaSets.
async fn sets_and_pods(
    client: &Client,
    namespace: &str,
    deployment: &Fetched<Value>,
) -> (Fetched<Vec<Value>>, Fetched<Vec<Value>>) {
    let deployment = match deployment {
        Fetched::Known(deployment) => deployment,
        Fetched::Missing => return (Fetched::Known(Vec::new()), Fetched::Known(Vec::new())),
        Fetched::Failed(why) => return (Fetched::Failed(why.clone()), Fetched::Failed(why.clone())),
    };
    let labels = object::strings(deployment, "/spec/selector/matchLabels");
    let query = if labels.is_empty() { String::new() } else { api::label_selector(&labels) };
    let (sets, pods) = futures::join!(
        api::list(client, api::folder(Kind::ReplicaSet, namespace), &query),
        api::list(client, api::pods(namespace), &query)
    );
    let own = |set: &Value| object::controlled_by(set, object::uid(deployment));
    let uids: Vec<String> = sets.list().iter().filter(|set| own(set)).map(|set| object::uid(set).to_owned()).collect();
    let pods = match (&sets, pods) {
        (Fetched::Failed(why), _) => Fetched::Failed(why.clone()),
        (_, Fetched::Known(pods)) => Fetched::Known(
            pods.into_iter().filter(|pod| uids.iter().any(|uid| object::controlled_by(pod, uid))).collect(),
        ),
        (_, other) => other,
    };
    (sets, pods)
}

fn both(a: Fetched<Vec<Value>>, b: Fetched<Vec<Value>>) -> Fetched<Vec<Value>> {
    match (a, b) {
        (Fetched::Failed(why), _) | (_, Fetched::Failed(why)) => Fetched::Failed(why),
        (a, b) => Fetched::Known(a.list().iter().chain(b.list()).cloned().collect()),
    }
}

/// Tries by a dry run whether a changed template of the target comes back paused; only where that is
/// not known for the policies of now.
async fn prove(client: &Client, release: &CanaryRelease, target: &Fetched<Value>, policies: &str) -> Hold {
    let hold = release.status.as_ref().and_then(|status| status.hold.as_ref());
    let proved = hold.is_some_and(|hold| hold.armed && hold.proved_with == policies);
    let Some(target) = target.known() else { return Hold::NotTried };
    let labelled = object::label(target, names::LABEL_RELEASE).is_some()
        && object::annotation(target, names::ANNOTATION_UID) == release.metadata.uid.as_deref();
    // While the operator rolls the target, its template is nobody's to change, not even in a dry run. (An
    // override speaks for its user only.)
    let rolling = object::annotation(target, names::ANNOTATION_ROLLING).is_some();
    if proved
        || policies.is_empty()
        || !labelled
        || rolling
        || in_release(release)
        || release.metadata.deletion_timestamp.is_some()
    {
        return Hold::NotTried;
    }
    let mut patch = Patch::guarded(target);
    if object::truth(target, "/spec/paused") {
        patch.remove("/spec/paused");
    }
    let annotations = "/spec/template/metadata/annotations";
    if target.pointer(annotations).is_none() {
        patch.set(annotations, json!({}));
    }
    patch.set(&format!("{annotations}/canaryrelease.dev~1proof"), "of the hold");
    let folder = api::folder(Kind::Deployment, release.metadata.namespace.as_deref().unwrap_or_default());
    match api::patch(client, folder, object::name(target), &patch.into_value(), true).await {
        Ok(answer) if object::truth(&answer, "/spec/paused") => Hold::Works(policies.to_owned()),
        Ok(_) => Hold::Fails("a dry run of a changed template did not come back paused".to_owned()),
        // The object moved on between the read and the dry run: the next tick tries again.
        // So it does where nobody answered: that says nothing of the policies.
        Err(api::CallError::Conflict { .. } | api::CallError::Gone { .. } | api::CallError::Unavailable { .. }) => {
            Hold::NotTried
        }
        Err(error) => Hold::Fails(error.to_string()),
    }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
