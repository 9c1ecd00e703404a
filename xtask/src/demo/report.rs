//! What the demo found: what was read, and how long each way of reading took.

use std::time::Duration;

use super::pictures::{Picture, Reading};
use super::plain::Alone;
use super::walk::Walked;

/// What one picture came to.
pub(super) struct Report {
    pub(super) picture: Picture,
    /// The first outcome that is not as expected, or the last one.
    outcome: Result<Reading, String>,
    /// In a process of its own.
    cold: Duration,
    /// The first time in a warm runner.
    first: Duration,
    /// In the warm runner and in the plain loop, in turn.
    pairs: Vec<Pair>,
}

/// Times in milliseconds.
struct Pair {
    job: String,
    /// As the client saw it.
    warm: f64,
    /// Of these, what the code itself took within the runner.
    within: f64,
    plain: f64,
}

impl Report {
    pub(super) fn new(picture: Picture, cold: Walked) -> Self {
        Self { picture, outcome: cold.outcome, cold: cold.took, first: Duration::ZERO, pairs: Vec::new() }
    }

    /// The first job of the warm runner: looked at, but in no average.
    pub(super) fn warm_up(&mut self, first: Walked) {
        self.first = first.took;
        self.look_at(first.outcome);
    }

    /// One reading by the warm runner and one in the plain loop.
    pub(super) fn add(&mut self, job: String, warm: Walked, alone: &Alone) {
        let (warm_took, plain) = (millis(warm.took), millis(alone.took));
        self.pairs.push(Pair { job, warm: warm_took, within: f64::NAN, plain });
        let outcome = match warm.outcome {
            // Else it would not be the same code that is compared.
            Ok(reading) if reading != alone.reading => Err(format!(
                "the plain loop read `{}`, the runner `{}`",
                alone.reading.text(),
                reading.text()
            )),
            other => other,
        };
        self.look_at(outcome);
    }

    /// Takes from what the runner printed how long its jobs took it: lines such as `note-1 took 0.412 s`.
    ///
    /// # Errors
    /// One of the jobs is not mentioned.
    pub(super) fn add_printed(&mut self, printed: &str) -> crate::Result<()> {
        for pair in &mut self.pairs {
            let seconds = printed.lines().find_map(|line| {
                let (job, took) = line.split_once(" took ")?;
                (job == pair.job).then_some(took)?.strip_suffix(" s")?.parse::<f64>().ok()
            });
            let Some(seconds) = seconds else {
                return Err(format!("the runner did not print how long {} took", pair.job).into());
            };
            pair.within = seconds * 1e3;
        }
        Ok(())
    }

    fn look_at(&mut self, outcome: Result<Reading, String>) {
        if self.is_as_expected() {
            self.outcome = outcome;
        }
    }

    pub(super) fn is_as_expected(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|reading| reading.says(&self.picture.text))
    }

    fn median(&self, figure: impl Fn(&Pair) -> f64) -> f64 {
        quantile(self.pairs.iter().map(figure).collect(), 0.5)
    }
}

/// A row for each picture.
pub(super) fn table(reports: &[Report]) -> String {
    let header = ["picture", "recognised text", "confidence", "cold", "warm", "plain loop", "as expected"];
    let mut rows = vec![header.map(str::to_owned)];
    for report in reports {
        let (text, confidence) = match &report.outcome {
            Ok(reading) => (reading.text(), format!("{:.3}", reading.confidence)),
            Err(message) => (format!("failed: {message}"), "-".to_owned()),
        };
        let verdict = if report.is_as_expected() {
            "yes".to_owned()
        } else {
            format!("NO: {}", report.picture.text.join(" / "))
        };
        let time = |millis: f64| format!("{millis:.0} ms");
        let cold = time(millis(report.cold));
        let warm = time(report.median(|pair| pair.warm));
        let plain = time(report.median(|pair| pair.plain));
        rows.push([report.picture.name.clone(), text, confidence, cold, warm, plain, verdict]);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut lines = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            lines.push_str(&format!("{cell:<width$}  "));
        }
        lines.truncate(lines.trim_end().len());
        lines.push('\n');
    }
    lines
}

/// What all pictures together say.
pub(super) fn summary(reports: &[Report]) -> String {
    let pairs: Vec<&Pair> = reports.iter().flat_map(|report| &report.pairs).collect();
    let of =
        |part: f64, figure: fn(&Pair) -> f64| quantile(pairs.iter().map(|pair| figure(pair)).collect(), part);
    let cold = quantile(reports.iter().map(|report| millis(report.cold)).collect(), 0.5);
    let first = reports.first().map_or(0.0, |report| millis(report.first));
    let spread = |figure: fn(&Pair) -> f64| {
        let (low, high) = (of(0.25, figure), of(0.75, figure));
        format!("median of {}; half of them are between {low:.1} and {high:.1} ms", pairs.len())
    };
    let added = |pair: &Pair| pair.warm - pair.within;
    let difference = |pair: &Pair| pair.warm - pair.plain;
    format!(
        "an image takes {cold:.0} ms cold and {:.0} ms warm; the first warm one, with loading the model, {first:.0} ms\n\
         the shepherd adds {:.1} ms to what the code takes in the runner ({})\n\
         a plain loop of the same code takes {:.0} ms; in pairs, warm takes {:+.1} ms ({})\n",
        of(0.5, |pair| pair.warm),
        of(0.5, added),
        spread(added),
        of(0.5, |pair| pair.plain),
        of(0.5, difference),
        spread(difference),
    )
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The figure that this part of all stay below; no number without any.
fn quantile(mut figures: Vec<f64>, part: f64) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let index = (part * figures.len().saturating_sub(1) as f64).round() as usize;
    figures.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests;
