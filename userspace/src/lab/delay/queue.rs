//! Frames that are on their way, in the order in which they came.
//!
//! Memory is bounded by the room that a line is given; it is taken from the system as it is first used, and kept.

use super::LineConfig;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Frames in the order of their times: all have the same delay, and follow each other at the link's rate, so that the order in
/// which they came is that in which they go.
pub(super) struct Queue {
    config: LineConfig,
    frames: VecDeque<Frame>,
    /// The frames' bytes, one after the other.
    bytes: VecDeque<u8>,
    /// When the last one has been sent, at the link's rate.
    sent: Option<Instant>,
}

struct Frame {
    due: Instant,
    length: usize,
}

impl Queue {
    pub(super) fn new(config: LineConfig) -> Self {
        let bytes = VecDeque::with_capacity(config.room_bytes.get());
        Self { config, frames: VecDeque::new(), bytes, sent: None }
    }

    /// Takes a frame that came now; false when there is no room for it.
    pub(super) fn push(&mut self, frame: &[u8], now: Instant) -> bool {
        if frame.len() > self.config.room_bytes.get() - self.bytes.len() {
            return false;
        }
        let begin = self.sent.map_or(now, |sent| sent.max(now));
        let sent = begin + self.sending(frame.len());
        self.sent = Some(sent);
        self.frames.push_back(Frame { due: sent + self.config.delay, length: frame.len() });
        self.bytes.extend(frame);
        true
    }

    /// How long the link takes to send so many bytes.
    fn sending(&self, bytes: usize) -> Duration {
        self.config.rate_bits_per_second.map_or(Duration::ZERO, |rate| {
            // A frame has less than 2^17 bytes, so that this is far from overflowing.
            Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / rate)
        })
    }

    /// When the next one is to be handed over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.frames.front().map(|frame| frame.due)
    }

    /// Moves the next one into `out` if its time has come. Yields when that was, and its length, bytes.
    pub(super) fn pop(&mut self, now: Instant, out: &mut [u8]) -> Option<(Instant, usize)> {
        let Frame { due, length } = self.frames.pop_front_if(|frame| frame.due <= now)?;
        let (first, second) = self.bytes.as_slices();
        let from_first = length.min(first.len());
        out[..from_first].copy_from_slice(&first[..from_first]);
        out[from_first..length].copy_from_slice(&second[..length - from_first]);
        self.bytes.drain(..length);
        Some((due, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::{NonZeroU64, NonZeroUsize};

    const DELAY: Duration = Duration::from_millis(5);

    fn queue(room_bytes: usize, rate: Option<u64>) -> Queue {
        let room_bytes = NonZeroUsize::new(room_bytes).unwrap();
        Queue::new(LineConfig {
            delay: DELAY,
            rate_bits_per_second: rate.and_then(NonZeroU64::new),
            room_bytes,
        })
    }

    #[test]
    fn a_frame_is_held_for_its_time_and_comes_out_whole() {
        let (mut queue, now, mut out) = (queue(100, None), Instant::now(), [0; 100]);
        // Round the end of the ring several times.
        for n in 0..50_u8 {
            let frame = vec![n; 1 + usize::from(n)];
            assert!(queue.push(&frame, now));
            assert_eq!(queue.pop(now + DELAY - Duration::from_nanos(1), &mut out), None);
            assert_eq!(queue.due(), Some(now + DELAY));
            assert_eq!(queue.pop(now + DELAY, &mut out), Some((now + DELAY, frame.len())));
            assert_eq!(out[..frame.len()], frame);
        }
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn what_has_no_room_is_told_and_leaves_the_order() {
        let (mut queue, now, mut out) = (queue(100, None), Instant::now(), [0; 100]);
        let taken: Vec<_> = (0..5_u8).map(|n| queue.push(&[n; 30], now)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(queue.push(&[9; 10], now));
        let mut firsts = Vec::new();
        while queue.pop(now + DELAY, &mut out).is_some() {
            firsts.push(out[0]);
        }
        assert_eq!(firsts, [0, 1, 2, 9]);
        assert!(queue.push(&[1; 100], now));
    }

    #[test]
    fn a_rate_spaces_frames_and_an_idle_link_saves_nothing_up() {
        // 1000 bytes take 1 ms.
        let (mut queue, now) = (queue(10_000, Some(8_000_000)), Instant::now());
        let after_ms = |ms| now + DELAY + Duration::from_millis(ms);
        let later = now + Duration::from_millis(20);
        for at in [now, now, now, later] {
            assert!(queue.push(&[0; 1000], at));
        }
        let mut out = [0; 1000];
        let dues: Vec<_> =
            std::iter::from_fn(|| queue.pop(after_ms(100), &mut out)).map(|(due, _)| due).collect();
        assert_eq!(dues, [after_ms(1), after_ms(2), after_ms(3), after_ms(21)]);
    }
}
