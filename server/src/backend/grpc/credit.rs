//! How much an agent may have on its way to us: little while its stream is slowed.
//!
//! What is on its way is in front of everything that other dials are sent. Read at the speed of a dial that stalls, a whole
//! window would keep an echo waiting for seconds; so most of the window is kept back until the stream is itself again.

use std::time::{Duration, Instant};

/// After how long without being slowed a stream gets its window back.
const CALM: Duration = Duration::from_secs(1);

/// The least window is this part of a dial's buffer. A slowed stream is read at three buffers in ten seconds, so that
/// the window is read in some 30 ms.
const PART: usize = 128;

/// What the least window is in any case: a frame of HTTP/2 at least.
const LEAST: (usize, usize) = (16 * 1024, 256 * 1024);

/// The credit that is given back for what was taken.
#[derive(Debug)]
pub struct Credit {
    /// What may be kept back.
    most: usize,
    withheld: usize,
    slowed_at: Option<Instant>,
}

impl Credit {
    /// For a stream with this window, whose dials have buffers of so many bytes.
    pub fn new(window: usize, dial_buffer: usize) -> Self {
        let least = (dial_buffer / PART).clamp(LEAST.0, LEAST.1);
        Self { most: window.saturating_sub(least), withheld: 0, slowed_at: None }
    }

    /// So many bytes were taken, after a pause if the stream is `slowed`: how many the peer may send for them.
    pub fn taken(&mut self, bytes: usize, slowed: bool, now: Instant) -> usize {
        if slowed {
            self.slowed_at = Some(now);
        }
        let is_calm = self.slowed_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        if is_calm {
            self.slowed_at = None;
            return bytes + std::mem::take(&mut self.withheld);
        }
        let kept = bytes.min(self.most - self.withheld);
        self.withheld += kept;
        bytes - kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 1 << 20;
    const FRAME: usize = 16 * 1024;

    #[test]
    fn a_slowed_stream_has_little_on_its_way_until_it_is_calm() {
        let start = Instant::now();
        let mut credit = Credit::new(WINDOW, 8 << 20);
        assert_eq!(credit.taken(FRAME, false, start), FRAME);
        let mut on_its_way = WINDOW;
        for _ in 0..1_000 {
            let given = credit.taken(FRAME, true, start);
            on_its_way = on_its_way - FRAME + given;
        }
        assert_eq!(on_its_way, 64 * 1024);
        assert_eq!(credit.taken(FRAME, false, start + CALM / 2), FRAME, "not yet");
        let all = credit.taken(FRAME, false, start + CALM);
        assert_eq!(on_its_way - FRAME + all, WINDOW);
        assert_eq!(credit.taken(FRAME, false, start + CALM), FRAME);
    }

    #[test]
    fn a_frame_fits_however_small_the_buffer_is() {
        let credit = Credit::new(WINDOW, 64 * 1024);
        assert_eq!(WINDOW - credit.most, FRAME);
    }
}
