//! How a record begins: who released what on what, by which plan. The version is what the template's annotation says, else
//! the tag of the first image that changed; how much it changes is the annotation's to say too, else it follows from both
//! semantic versions; the kind of deployment from the stages.

use canary_api::names::{ANNOTATION_RELEASE_TYPE, ANNOTATION_VERSION};
use canary_api::{CanaryReleaseSpec, Gate, GatePlan, ReleaseRecordStatus, ReleaseStatus, Version};
use semver::Version as Semantic;
use serde_json::Value;

use super::{Tick, timeline};
use crate::{gates, object, serving, template};

/// Longest version that is taken from an annotation.
const LONGEST_VERSION: usize = 100;
/// What an annotation may say of how much a version changes.
const TYPES: [&str; 3] = ["Major", "Minor", "Patch"];

pub(super) fn begin(record: &mut ReleaseRecordStatus, tick: &Tick<'_>, is: &ReleaseStatus) {
    let metadata = &tick.seen.release.metadata;
    record.id.clone_from(&is.id);
    record.release = metadata.name.clone().unwrap_or_default();
    record.release_uid = metadata.uid.clone().unwrap_or_default();
    record.target.clone_from(&tick.spec.target.name);
    record.candidate = is.candidate.clone();
    record.stable = is.stable.clone();
    record.started.clone_from(&is.started);
    record.deployment = deployment(tick.spec).to_owned();
    record.gates = tick.spec.gates.iter().map(plan).collect();
    (record.version, record.version_before) = versions(&is.candidate, &is.stable);
    let (candidate, stable) = (candidate_template(tick, is), stable_template(tick, is));
    if let Some(version) = candidate.and_then(|template| annotated(template, ANNOTATION_VERSION)) {
        record.version = version;
    }
    if let Some(version) = stable.and_then(|template| annotated(template, ANNOTATION_VERSION)) {
        record.version_before = version;
    }
    let told = candidate.and_then(|template| annotated(template, ANNOTATION_RELEASE_TYPE));
    record.kind = match told.filter(|told| TYPES.contains(&told.as_str())) {
        Some(told) => told,
        None => change(&record.version_before, &record.version).to_owned(),
    };
    if tick.was.is_some_and(|was| was.id == is.id) {
        let text = "the record begins late: what came before is here only as far as the status tells of it";
        timeline::say(record, tick, "Notification", text);
    }
}

/// The candidate's template, while the target still asks for it.
fn candidate_template<'a>(tick: &Tick<'a>, is: &ReleaseStatus) -> Option<&'a Value> {
    let template = serving::template_of(tick.seen.target.known()?);
    (template::digest(template) == is.candidate.digest).then_some(template)
}

fn stable_template<'a>(tick: &Tick<'a>, is: &ReleaseStatus) -> Option<&'a Value> {
    let sets = tick.seen.replica_sets.list();
    sets.iter().find(|set| object::name(set) == is.stable.replica_set).map(serving::template_of)
}

fn annotated(template: &Value, key: &str) -> Option<String> {
    let text: String = object::annotation(template, key)?.trim().chars().take(LONGEST_VERSION).collect();
    (!text.is_empty()).then_some(text)
}

/// Standard: one stage, all of the traffic. BlueGreen: the same with an approval, so that both versions stand in full
/// before everything switches at once. Canary: several stages.
fn deployment(spec: &CanaryReleaseSpec) -> &'static str {
    match spec.stages.as_slice() {
        [only] if only.approval => "BlueGreen",
        [_] => "Standard",
        _ => "Canary",
    }
}

fn plan(gate: &Gate) -> GatePlan {
    let kinds = [
        (gate.error_rate.is_some(), "errorRate"),
        (gate.latency.is_some(), "latency"),
        (gate.event_rate.is_some(), "eventRate"),
        (gate.relative.is_some(), "relative"),
    ];
    let kind = kinds.into_iter().find(|(is, _)| *is).map_or("value", |(_, kind)| kind);
    GatePlan { gate: gate.name.clone(), kind: kind.to_owned(), limit: gates::limit(gate) }
}

/// Versions of the candidate and of what served before: tags of the first image that differs. Where none differs, or
/// it has no tag, the template's digest.
fn versions(candidate: &Version, stable: &Version) -> (String, String) {
    let differs = candidate.images.iter().enumerate().find(|(index, image)| stable.images.get(*index) != Some(*image));
    let of = |version: &Version| {
        let image = differs.and_then(|(index, _)| version.images.get(index));
        let short = || version.digest.chars().take("sha256:".len().saturating_add(12)).collect();
        image.and_then(|image| tag(image)).map_or_else(short, str::to_owned)
    };
    (of(candidate), of(stable))
}

/// The tag of an image such as `registry:5000/team/web:v1.2.3@sha256:...`.
fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or_default();
    let (_, tag) = name.rsplit('/').next().unwrap_or_default().rsplit_once(':')?;
    (!tag.is_empty()).then_some(tag)
}

/// Major, Minor or Patch, by the first part of two semantic versions that differs; a leading `v` is no part of them.
fn change(before: &str, after: &str) -> &'static str {
    let parse = |text: &str| Semantic::parse(text.strip_prefix('v').unwrap_or(text)).ok();
    let (Some(before), Some(after)) = (parse(before), parse(after)) else { return "" };
    if before.major != after.major {
        "Major"
    } else if before.minor != after.minor {
        "Minor"
    } else if before != after {
        "Patch"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(images: &[&str]) -> Version {
        let images = images.iter().map(|image| (*image).to_owned()).collect();
        Version { images, digest: "sha256:0123456789abcdef".to_owned(), ..Version::default() }
    }

    #[test]
    fn the_version_is_the_tag_of_the_first_image_that_changed() {
        let two = |a: &[&str], b: &[&str]| versions(&of(a), &of(b));
        let same = ("v1.3.0".to_owned(), "v1.2.0".to_owned());
        assert_eq!(two(&["envoy:1", "r:5000/t/web:v1.3.0"], &["envoy:1", "r:5000/t/web:v1.2.0"]), same);
        assert_eq!(two(&["web:v1.3.0@sha256:aa"], &["web:v1.2.0@sha256:bb"]), same);
        let digest = || "sha256:0123456789ab".to_owned();
        assert_eq!(two(&["r:5000/web@sha256:aa"], &["r:5000/web:v1"]), (digest(), "v1".to_owned()));
        assert_eq!(two(&["web:v1"], &["web:v1"]), (digest(), digest()));
        assert_eq!(two(&["web:v1", "sidecar:2"], &["web:v1"]), ("2".to_owned(), digest()));
    }

    #[test]
    fn an_annotation_is_taken_as_it_is_and_cut() {
        let template =
            |text: &str| serde_json::json!({"metadata": {"annotations": {"canaryrelease.dev/version": text}}});
        assert_eq!(annotated(&template(" 2026.11 "), ANNOTATION_VERSION).as_deref(), Some("2026.11"));
        assert_eq!(annotated(&template("  "), ANNOTATION_VERSION), None);
        assert_eq!(annotated(&template(&"é".repeat(300)), ANNOTATION_VERSION).unwrap().chars().count(), 100);
        assert_eq!(annotated(&serde_json::json!({}), ANNOTATION_VERSION), None);
    }

    #[test]
    fn how_much_changes_follows_from_semantic_versions_only() {
        for (before, after, kind) in [
            ("v1.2.3", "2.0.0", "Major"),
            ("1.2.3", "1.3.0", "Minor"),
            ("1.2.3", "v1.2.4", "Patch"),
            ("1.2.3-rc.1", "1.2.3", "Patch"),
            ("1.2.3", "1.2.3", ""),
            ("v1", "v2", ""),
            ("latest", "1.0.0", ""),
        ] {
            assert_eq!(change(before, after), kind, "{before} to {after}");
        }
    }
}
