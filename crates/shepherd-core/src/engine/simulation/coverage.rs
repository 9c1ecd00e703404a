//! What a run of scenarios exercised: kinds of faults, and transitions of attempts and of sheep.

use std::collections::BTreeMap;

use super::faults::Fault;

/// Declares an enum together with the list of its values.
macro_rules! kinds {
    ($(#[$meta:meta])* pub(super) enum $name:ident { $($kind:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum $name { $($kind),* }

        impl $name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$kind),*];
        }
    };
}
pub(super) use kinds;

/// A change from one stage of an attempt, or state of a sheep, to another.
pub(super) type Transition = (&'static str, &'static str);

/// How many scenarios had what.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pub(super) scenarios: u64,
    pub(super) jobs: u64,
    pub(super) inputs: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) transitions: BTreeMap<Transition, u64>,
}

impl Coverage {
    pub(super) fn add(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.jobs += other.jobs;
        self.inputs += other.inputs;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (transition, count) in other.transitions {
            *self.transitions.entry(transition).or_default() += count;
        }
    }

    /// Prints it, for the simulation's documentation.
    pub(super) fn print(&self) {
        println!("{} scenarios, {} jobs, {} inputs", self.scenarios, self.jobs, self.inputs);
        let list = |entries: Vec<String>| println!("  {}", entries.join("\n  "));
        list(self.faults.iter().map(|(fault, count)| format!("{fault:?}: {count}")).collect());
        list(self.transitions.iter().map(|((from, to), count)| format!("{from} -> {to}: {count}")).collect());
    }

    /// Kinds of faults and transitions that did not occur.
    pub(super) fn missing(&self) -> Vec<String> {
        let faults = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault));
        let transitions = TRANSITIONS.iter().filter(|transition| !self.transitions.contains_key(transition));
        faults
            .map(|fault| format!("{fault:?}"))
            .chain(transitions.map(|(from, to)| format!("{from} -> {to}")))
            .collect()
    }
}

/// The transitions of attempts and of sheep that the engine's documentation has.
const TRANSITIONS: &[Transition] = &[
    ("claimed", "staging"),
    ("claimed", "committing"),
    ("staging", "staged"),
    ("staging", "committing"),
    ("staging", "abandoned"),
    ("abandoned", "releasing"),
    ("abandoned", "forgotten"),
    ("staged", "sent"),
    ("staged", "releasing"),
    ("sent", "recalled"),
    ("sent", "cancelling"),
    ("sent", "collecting"),
    ("sent", "releasing"),
    ("recalled", "cancelling"),
    ("recalled", "collecting"),
    ("recalled", "releasing"),
    ("cancelling", "releasing"),
    ("collecting", "committing"),
    ("collecting", "publishing"),
    ("publishing", "committing"),
    ("publishing", "forgotten"),
    ("releasing", "committing"),
    ("releasing", "forgotten"),
    ("committing", "forgotten"),
    ("Empty", "Launching"),
    ("Launching", "Ready"),
    ("Launching", "Empty"),
    ("Launching", "Unfit"),
    ("Ready", "Stopping"),
    ("Stopping", "Empty"),
    ("Stopping", "Gone"),
    ("Gone", "Empty"),
    ("Unfit", "Empty"),
    ("Empty", "Reopening"),
    ("Reopening", "Empty"),
    ("Reopening", "Unfit"),
];
