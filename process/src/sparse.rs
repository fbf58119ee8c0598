//! Log events that others can cause as often as they like.

use std::time::{Duration, Instant};

/// Lets one event a second be logged.
#[derive(Debug, Default)]
pub struct Sparse {
    last: Option<Instant>,
    unlogged: u64,
}

impl Sparse {
    /// Whether to log an event, and how many before it were not.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        let too_soon = self.last.is_some_and(|last| now - last < Duration::from_secs(1));
        if too_soon {
            self.unlogged += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_second_tells_of_the_others() {
        let now = Instant::now();
        let mut log = Sparse::default();
        assert_eq!(log.due(now), Some(0));
        assert_eq!(log.due(now), None);
        assert_eq!(log.due(now), None);
        assert_eq!(log.due(now + Duration::from_secs(1)), Some(2));
    }
}
