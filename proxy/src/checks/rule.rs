//! The limits of one rule: sizes and times in the place of its environment's, rates and concurrency beside them.
//!
//! What is counted lives as long as the rule does, and its rates stay as they are.

use std::sync::Arc;

use dormouse_link::policy::Limits;

use super::concurrency::Running;
use super::rates::Rates;

/// See the module.
#[derive(Debug)]
pub(crate) struct RuleLimits {
    pub(super) said: Limits,
    pub(super) rates: Arc<Rates>,
    pub(super) running: Arc<Running>,
}

impl RuleLimits {
    /// Those that follow on `before`.
    pub(crate) fn next(said: &Limits, before: Option<&Self>) -> Self {
        let rates = before.filter(|before| before.rates.are_of(Some(said))).map(|before| Arc::clone(&before.rates));
        Self {
            said: said.clone(),
            rates: rates.unwrap_or_else(|| Arc::new(Rates::new(Some(said)))),
            running: before.map(|before| Arc::clone(&before.running)).unwrap_or_default(),
        }
    }

    /// The largest body.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        self.said.body_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_outlives_what_does_not_change_it() {
        let said = |text: &str| serde_json::from_str::<Limits>(text).expect(text);
        let before = RuleLimits::next(&said(r#"{"rate": {"requests": 5}, "concurrency": 5}"#), None);
        let after = RuleLimits::next(&said(r#"{"rate": {"requests": 5}, "concurrency": 6}"#), Some(&before));
        assert!(Arc::ptr_eq(&before.rates, &after.rates) && Arc::ptr_eq(&before.running, &after.running));
        let other = RuleLimits::next(&said(r#"{"rate": {"requests": 6}}"#), Some(&after));
        assert!(!Arc::ptr_eq(&after.rates, &other.rates), "another rate is counted anew");
        assert!(Arc::ptr_eq(&after.running, &other.running), "who runs, runs");
    }
}
