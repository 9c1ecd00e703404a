//! What was measured, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

/// All of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

/// What one mode measured.
#[derive(Debug)]
pub(crate) struct Section {
    name: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    wanted: Option<Wanted>,
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl Section {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), rows: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit, wanted: None });
    }

    /// Adds a figure that is to reach something.
    pub(crate) fn wanted(&mut self, name: impl Into<String>, value: f64, unit: &'static str, wanted: Wanted) {
        self.rows.push(Row { name: name.into(), value, unit, wanted: Some(wanted) });
    }
}

impl Report {
    pub(crate) fn json(&self) -> String {
        let sections: serde_json::Map<String, Value> = self
            .sections
            .iter()
            .map(|section| {
                let rows = section.rows.iter().map(|row| {
                    let mut value = json!({"value": row.value, "unit": row.unit});
                    match row.wanted {
                        Some(Wanted::AtLeast(bound)) => value["at_least"] = json!(bound),
                        Some(Wanted::AtMost(bound)) => value["at_most"] = json!(bound),
                        None => {}
                    }
                    (row.name.clone(), value)
                });
                (section.name.clone(), Value::Object(rows.collect()))
            })
            .collect();
        format!("{:#}\n", Value::Object(sections))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            write!(f, "  {:width$}  {:>12} {:<7}", row.name, number(row.value), row.unit)?;
            match row.wanted {
                None => writeln!(f)?,
                Some(wanted) => {
                    let (word, bound) = match wanted {
                        Wanted::AtLeast(bound) => ("at least", bound),
                        Wanted::AtMost(bound) => ("at most", bound),
                    };
                    let verdict = if wanted.is_met(row.value) { "met" } else { "MISSED" };
                    writeln!(f, "  {word} {}: {verdict}", number(bound))?;
                }
            }
        }
        Ok(())
    }
}

/// As many digits as a measurement is worth.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
