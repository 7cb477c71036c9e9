//! The points of a release's life at which a fault meets it: how a shop is made to stay there for a while, and how its
//! release must end. It plays nothing.

use serde_json::json;

use crate::cluster::text;
use crate::history::Seen;
use crate::scene::Scene;
use crate::setup::Setup;

/// How long a release stays where it is to be met, in seconds.
const STAYS: u64 = 75;

/// A point of a release's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Armed, and no release under way.
    Rest,
    /// The stable version is measured.
    Baseline,
    /// The canary is scaled.
    Scale,
    /// Stage 1 is judged.
    Bake,
    /// A person paused the release in stage 1.
    Paused,
    /// The last stage is judged, with all traffic on the canary.
    Full,
    /// The target rolls.
    Roll,
    /// The target has the traffic back, and the canary drains.
    Drain,
    /// The gates watch on after promotion.
    Soak,
    /// A bad canary has lost its traffic and drains.
    Revert,
}

/// How early a shop must be pushed to be at its moment together with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// Its last stage is judged before the others begin.
    Long,
    /// Its canary is scaled before the others begin.
    Short,
    /// None.
    None,
}

impl Moment {
    /// All of them, in the order of a release.
    pub const ALL: [Self; 10] = [
        Self::Rest,
        Self::Baseline,
        Self::Scale,
        Self::Bake,
        Self::Paused,
        Self::Full,
        Self::Roll,
        Self::Drain,
        Self::Soak,
        Self::Revert,
    ];

    /// Its name, also in the namespace.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Baseline => "baseline",
            Self::Scale => "scale",
            Self::Bake => "bake",
            Self::Paused => "paused",
            Self::Full => "full",
            Self::Roll => "roll",
            Self::Drain => "drain",
            Self::Soak => "soak",
            Self::Revert => "revert",
        }
    }

    /// How early its shop is pushed.
    #[must_use]
    pub const fn lead(self) -> Lead {
        match self {
            Self::Roll | Self::Drain | Self::Soak => Lead::Long,
            Self::Bake | Self::Paused | Self::Full | Self::Revert => Lead::Short,
            Self::Rest | Self::Baseline | Self::Scale => Lead::None,
        }
    }

    /// The objects of a shop whose release stays there for a while.
    #[must_use]
    pub fn setup(self, scene: &Scene) -> Setup {
        let stays = format!("{STAYS}s");
        let (first, last) = match self {
            Self::Bake => (stays.as_str(), "6s"),
            Self::Full => ("6s", stays.as_str()),
            _ => ("6s", "6s"),
        };
        let mut setup =
            scene.plain().stages(&[("20%", first), ("100%", last)]).rate(20.0).spec("readyDeadline", "180s");
        match self {
            Self::Baseline => setup = setup.spec("baseline", json!({"duration": stays})),
            Self::Drain | Self::Revert => setup = setup.spec("drain", stays),
            Self::Soak => setup = setup.spec("soak", stays),
            // Of the target's own roll; the canary takes traffic as soon as its pods are ready.
            Self::Roll => setup.deployment["spec"]["minReadySeconds"] = 15.into(),
            Self::Rest | Self::Scale | Self::Bake | Self::Paused | Self::Full => {}
        }
        setup
    }

    /// The version that is released.
    #[must_use]
    pub const fn version(self) -> &'static str {
        if matches!(self, Self::Revert) { "bad" } else { "v2" }
    }

    /// Milliseconds that the candidate takes to start.
    #[must_use]
    pub const fn starts_in_ms(self) -> u64 {
        if matches!(self, Self::Scale) { STAYS * 1000 } else { 0 }
    }

    /// Whether a release is there.
    #[must_use]
    pub fn is_at(self, seen: &Seen) -> bool {
        match self {
            Self::Rest => seen.armed(),
            Self::Baseline => seen.step() == "Baseline",
            Self::Scale => seen.step() == "Scale",
            Self::Bake => seen.baking(1),
            Self::Paused => !text(&seen.object, "/status/current/paused/since").is_empty(),
            Self::Full => seen.baking(2),
            Self::Roll => seen.step() == "Roll",
            Self::Drain => seen.step() == "Drain",
            Self::Soak => seen.step() == "Soak",
            Self::Revert => seen.step() == "RevertDrain",
        }
    }

    /// The version that serves when the CanaryRelease was deleted in this step: a roll that has begun is completed.
    #[must_use]
    pub fn serves_after_deletion(self, step: &str) -> &'static str {
        match step {
            "Roll" | "HandBack" | "Drain" | "Soak" => "v2",
            // Too late for the moment: it was over.
            "Done" if self != Self::Revert => "v2",
            _ => "v1",
        }
    }
}
