//! `list`: one line for each CanaryRelease. It shows also those that this build does not understand in full.

use serde::Serialize;

use crate::args;
use crate::cluster::Cluster;
use crate::output::{Output, Paint, Tone};
use crate::release::Release;
use crate::table::Table;
use crate::{Error, Exit};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Deployment under release.
    pub target: String,
    /// Where it stands, in a word.
    pub phase: String,
    /// The stage, such as `2/5`.
    pub stage: String,
    /// The canary's share of the traffic.
    pub weight: String,
    /// What is going on, in a sentence.
    pub message: String,
}

/// Runs `list`.
///
/// # Errors
/// Where the cluster does not answer.
pub async fn run(list: &args::List, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let rows: Vec<Row> = cluster.list(list.all_namespaces).await?.iter().map(row).collect();
    let place =
        if list.all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", cluster.namespace) };
    output.answer(&rows, |paint| {
        if rows.is_empty() { format!("no CanaryRelease in {place}") } else { render(&rows, list.all_namespaces, paint) }
    })?;
    Ok(Exit::Done)
}

/// The line of a CanaryRelease.
#[must_use]
pub fn row(release: &Release) -> Row {
    let phase = release.text("/status/phase");
    Row {
        namespace: release.namespace.clone(),
        name: release.name.clone(),
        target: release.target.clone(),
        phase: if phase.is_empty() { "Pending" } else { phase }.to_owned(),
        stage: release.text("/status/stage").to_owned(),
        weight: release.text("/status/current/weight").to_owned(),
        message: release.text("/status/message").to_owned(),
    }
}

/// The lines as text.
#[must_use]
pub fn render(rows: &[Row], with_namespace: bool, paint: Paint) -> String {
    let head: &[&str] = if with_namespace {
        &["NAMESPACE", "NAME", "TARGET", "PHASE", "STAGE", "WEIGHT", "MESSAGE"]
    } else {
        &["NAME", "TARGET", "PHASE", "STAGE", "WEIGHT", "MESSAGE"]
    };
    let mut table = Table::new(head);
    for row in rows {
        let namespace = with_namespace.then(|| (Tone::Plain, row.namespace.clone()));
        let plain = |text: &String| (Tone::Plain, text.clone());
        table.row(namespace.into_iter().chain([
            plain(&row.name),
            plain(&row.target),
            (tone(&row.phase), row.phase.clone()),
            plain(&row.stage),
            plain(&row.weight),
            plain(&row.message),
        ]));
    }
    table.render("", paint)
}

/// What a phase or an outcome means to a reader.
#[must_use]
pub fn tone(phase: &str) -> Tone {
    match phase {
        "Promoted" => Tone::Good,
        "Idle" | "Superseded" => Tone::Quiet,
        "Pending" | "Paused" | "Terminating" | "Ungated" | "Overridden" => Tone::Doubt,
        "RolledBack" | "Aborted" | "Reverting" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_aligned_and_show_what_this_build_does_not_know() {
        let releases = [
            json!({"metadata": {"name": "orders", "namespace": "shop"}, "spec": {"target": {"name": "orders"}},
                "status": {"phase": "Baking", "stage": "2/5", "current": {"weight": "5%"}, "message": "orders-3: stage 2/5 at 5%"}}),
            json!({"metadata": {"name": "web", "namespace": "front"}, "spec": {"target": {"name": "web"}}}),
            json!({"metadata": {"name": "next", "namespace": "front"}, "spec": {"target": {"name": "x"}, "new": 1},
                "status": {"phase": "Levitating", "message": "up"}}),
        ];
        let rows: Vec<Row> = releases.into_iter().map(|release| row(&Release::read(release))).collect();
        assert_eq!(
            render(&rows, true, Paint::NONE),
            "\
NAMESPACE  NAME    TARGET  PHASE       STAGE  WEIGHT  MESSAGE
shop       orders  orders  Baking      2/5    5%      orders-3: stage 2/5 at 5%
front      web     web     Pending
front      next    x       Levitating                 up
"
        );
        assert!(!render(&rows, false, Paint::NONE).contains("NAMESPACE"));
    }
}
