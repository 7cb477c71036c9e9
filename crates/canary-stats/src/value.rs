//! A gauge, or any number a query returns, against fixed bounds for some ticks in a row. The worst pod decides. No
//! statistics are claimed for it, and it takes no share of the budget.

use crate::error::StatsError;

/// What one tick of a value gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consecutive {
    /// Inside the bounds.
    Inside,
    /// Outside, for so many ticks in a row, fewer than it takes.
    Outside(u32),
    /// Outside for as many ticks in a row as it takes, or more.
    Breach(u32),
    /// No number: the ticks in a row so far are neither added to nor forgotten.
    NoData,
}

/// Ticks in a row outside bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueGate {
    min: Option<f64>,
    max: Option<f64>,
    consecutive: u32,
    streak: u32,
}

impl ValueGate {
    /// Ticks in a row where nothing else is said.
    pub const DEFAULT_CONSECUTIVE: u32 = 2;

    /// A gate with bounds, both allowed values; `consecutive` is at least 1.
    ///
    /// # Errors
    /// Where a bound is NaN.
    pub fn new(min: Option<f64>, max: Option<f64>, consecutive: u32) -> Result<Self, StatsError> {
        if let Some(bound) = [min, max].into_iter().flatten().find(|bound| bound.is_nan()) {
            return Err(StatsError::Rate(bound));
        }
        Ok(Self { min, max, consecutive: consecutive.max(1), streak: 0 })
    }

    /// The same gate, continued after a restart from the ticks in a row in the status.
    #[must_use]
    pub const fn resumed(self, streak: u32) -> Self {
        Self { streak, ..self }
    }

    /// Whether a number is outside the bounds.
    #[must_use]
    pub fn outside(&self, value: f64) -> bool {
        self.max.is_some_and(|max| value > max) || self.min.is_some_and(|min| value < min)
    }

    /// One tick: the newest number of each pod. The worst decides; one that is NaN or infinite makes no tick.
    pub fn push(&mut self, values: impl IntoIterator<Item = f64>) -> Consecutive {
        let (mut any, mut outside) = (false, false);
        for value in values {
            if !value.is_finite() {
                return Consecutive::NoData;
            }
            any = true;
            outside |= self.outside(value);
        }
        if !any {
            return Consecutive::NoData;
        }
        self.streak = if outside { self.streak.saturating_add(1) } else { 0 };
        match self.streak {
            0 => Consecutive::Inside,
            streak if streak >= self.consecutive => Consecutive::Breach(streak),
            streak => Consecutive::Outside(streak),
        }
    }
}
