//! Figures of several rounds: medians, spreads, and ratios to what was measured beside them in the same round.

use serde::Serialize;

/// One figure per round, in the order of the rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; the mean of the two in the middle of an even count; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => 0.0,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// Round by round, this divided by that.
    fn ratios(&self, that: &Self) -> Self {
        Self(self.0.iter().zip(&that.0).map(|(this, that)| this / that).collect())
    }

    fn low(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn high(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The smallest sample that at least `percent` of a hundred do not exceed; 0 of none.
pub(crate) fn percentile(samples: &mut [u64], percent: usize) -> u64 {
    samples.sort_unstable();
    let rank = (samples.len() * percent).div_ceil(100).max(1);
    samples.get(rank - 1).copied().unwrap_or(0)
}

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// The ratio, at least.
    RatioAtLeast(f64),
    /// The ratio, at most.
    RatioAtMost(f64),
    /// The value itself, at least.
    AtLeast(f64),
    /// The value itself, at most.
    AtMost(f64),
}

/// One measured figure, beside its limit or peer if it has one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The case.
    pub(crate) case: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// The median over the rounds.
    pub(crate) value: f64,
    /// Of the value and of the limit.
    pub(crate) unit: &'static str,
    /// What it is compared with.
    pub(crate) against: Option<String>,
    /// The median of that.
    pub(crate) limit: Option<f64>,
    /// The median of the rounds' ratios of the value to the limit.
    pub(crate) ratio: Option<f64>,
    /// The lowest of them.
    pub(crate) ratio_low: Option<f64>,
    /// The highest.
    pub(crate) ratio_high: Option<f64>,
    /// What the ratio or, where the text says so, the value should be.
    pub(crate) goal: Option<String>,
    /// Whether it is.
    pub(crate) met: Option<bool>,
    /// How many rounds there were.
    pub(crate) rounds: usize,
}

impl Figure {
    /// A figure by itself.
    pub(crate) fn new(case: &'static str, what: impl Into<String>, values: &Series, unit: &'static str) -> Self {
        Self {
            case,
            what: what.into(),
            value: values.median(),
            unit,
            against: None,
            limit: None,
            ratio: None,
            ratio_low: None,
            ratio_high: None,
            goal: None,
            met: None,
            rounds: values.0.len(),
        }
    }

    /// A figure and what was measured beside it, in the same unit.
    pub(crate) fn paired(
        case: &'static str,
        what: impl Into<String>,
        values: &Series,
        unit: &'static str,
        against: impl Into<String>,
        limits: &Series,
    ) -> Self {
        let ratios = values.ratios(limits);
        Self {
            against: Some(against.into()),
            limit: Some(limits.median()),
            ratio: Some(ratios.median()),
            ratio_low: Some(ratios.low()),
            ratio_high: Some(ratios.high()),
            ..Self::new(case, what, values, unit)
        }
    }

    /// Sets what it should reach.
    #[must_use]
    pub(crate) fn goal(self, goal: Goal) -> Self {
        let (text, met) = match goal {
            Goal::RatioAtLeast(least) => (format!("ratio at least {least}"), self.ratio.map(|ratio| ratio >= least)),
            Goal::RatioAtMost(most) => (format!("ratio at most {most}"), self.ratio.map(|ratio| ratio <= most)),
            Goal::AtLeast(least) => (format!("at least {least} {}", self.unit), Some(self.value >= least)),
            Goal::AtMost(most) => (format!("at most {most} {}", self.unit), Some(self.value <= most)),
        };
        Self { goal: Some(text), met, ..self }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // exact by construction
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        let table: &[(&[f64], f64)] = &[(&[], 0.0), (&[3.0], 3.0), (&[9.0, 1.0], 5.0), (&[9.0, 1.0, 2.0], 2.0)];
        for (values, expected) in table {
            assert_eq!(Series(values.to_vec()).median(), *expected, "{values:?}");
        }
        let mut samples: Vec<u64> = (1..=200).rev().collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&mut samples, percent)), [100, 198, 200]);
        assert_eq!(percentile(&mut [7], 50), 7);
        assert_eq!(percentile(&mut [], 50), 0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, theirs) = (Series(vec![10.0, 40.0, 6.0]), Series(vec![5.0, 10.0, 6.0]));
        let figure = Figure::paired("a", "b", &ours, "rows/s", "c", &theirs);
        assert_eq!([figure.ratio, figure.ratio_low, figure.ratio_high], [Some(2.0), Some(1.0), Some(4.0)]);
        let met = |goal| figure.clone().goal(goal).met;
        assert_eq!(met(Goal::RatioAtLeast(2.0)), Some(true));
        assert_eq!(met(Goal::RatioAtLeast(2.1)), Some(false));
        assert_eq!(met(Goal::RatioAtMost(1.9)), Some(false));
        assert_eq!(met(Goal::AtLeast(10.0)), Some(true));
        assert_eq!(met(Goal::AtMost(9.9)), Some(false));
    }
}
