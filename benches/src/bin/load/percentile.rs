//! Times, and what can be said of many of them.

use std::time::Duration;

/// Times of single jobs.
#[derive(Debug, Default)]
pub(crate) struct Times {
    micros: Vec<u32>,
    sorted: bool,
}

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        self.sorted = false;
    }

    pub(crate) fn extend(&mut self, time: Option<Duration>) {
        if let Some(time) = time {
            self.push(time);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.micros.len()
    }

    /// The time in milliseconds that this part of all stay below; 0 without any.
    pub(crate) fn millis(&mut self, part: f64) -> f64 {
        if !self.sorted {
            self.micros.sort_unstable();
            self.sorted = true;
        }
        let last = self.micros.len().saturating_sub(1);
        let index = (part * last as f64).round() as usize;
        self.micros.get(index).map_or(0.0, |micros| f64::from(*micros) / 1e3)
    }
}

/// The middle one of a few figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
