//! What is said of a failure that repeats itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ApiError;

/// The same failure is told again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// Remembers what was complained about, so that it is told at once, and then not with every try.
#[derive(Debug, Default)]
pub struct Complaint {
    told: Option<(String, Instant)>,
}

impl Complaint {
    /// Whether a failure is to be told now.
    pub fn is_due(&mut self, error: &ApiError) -> bool {
        let text = error.to_string();
        let due = self.told.as_ref().is_none_or(|(told, at)| *told != text || at.elapsed() >= AGAIN);
        if due {
            self.told = Some((text, Instant::now()));
        }
        due
    }

    /// It works. Whether there was a complaint before.
    pub fn is_over(&mut self) -> bool {
        self.told.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::right::Right;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_when_it_is_new_and_once_a_minute() {
        let right = |resource| Right::cluster("list", resource, "");
        let error = |resource| ApiError::Malformed { origin: "x".into(), right: right(resource), reason: "x".into() };
        let mut complaint = Complaint::default();
        assert!(!complaint.is_over());
        assert!(complaint.is_due(&error("leases")));
        assert!(!complaint.is_due(&error("leases")));
        assert!(complaint.is_due(&error("nodes")));
        tokio::time::advance(AGAIN).await;
        assert!(complaint.is_due(&error("nodes")));
        assert!(complaint.is_over());
        assert!(complaint.is_due(&error("nodes")));
    }
}
