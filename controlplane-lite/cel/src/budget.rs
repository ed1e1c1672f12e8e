//! What an evaluation may spend, and what it has spent (`pkg/apis/cel/config.go` of `k8s.io/apiserver`).

use std::cell::Cell;

use crate::error::EvalError;

/// The cost that one evaluation may have: about a tenth of a second.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// The cost of all evaluations for one object or one binding of a policy: about a second.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// The cost of all match conditions for one object.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// Steps of loops inside one evaluation that costs do not tell of: parts compared, elements copied, bytes written.
/// Costs are upstream's to the unit, and some of them are of a call whose work can grow with what it is given.
const STEPS: u64 = 4_000_000;

/// What one evaluation may spend.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    cost: Cell<u64>,
    steps: Cell<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(PER_CALL_LIMIT)
    }
}

impl Budget {
    /// A budget of a cost.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, cost: Cell::new(0), steps: Cell::new(STEPS) }
    }

    /// What was spent.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.cost.get()
    }

    /// Spends a cost.
    ///
    /// # Errors
    /// If that is more than there was.
    pub(crate) fn charge(&self, cost: u64) -> Result<(), EvalError> {
        let total = self.cost.get().saturating_add(cost);
        self.cost.set(total);
        if total > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// Takes steps that have no cost of their own.
    ///
    /// # Errors
    /// If these are more than any evaluation may take.
    pub(crate) fn steps(&self, count: usize) -> Result<(), EvalError> {
        let left = self.steps.get().checked_sub(count as u64).ok_or(EvalError::CostLimit)?;
        self.steps.set(left);
        Ok(())
    }
}
