//! Kinds of faults and of other events that disturb a shepherd, how often a scenario has them, and
//! how often they came.

use super::coverage::kinds;

kinds! {
    /// Something that disturbs a shepherd.
    pub(super) enum Fault {
        // The job store.
        LookFails, LookSlow, ClaimSlow, CommitSlow, StoreAway, AnswerLost,
        // Directories, inputs, outputs.
        StageFails, StageLater, StageSlow, HomeLost, ReopenFails, DiskFull, ReleaseSlow,
        OutputsUnreadable, OutputsLost, StorageAway, PublishSlow, PublishRefused, PublishLost, PublishStale,
        // Starts of runners.
        LaunchRefused, LaunchDies, LaunchSheepFails, LaunchHangs, ReadySlow, LaunchAborted, AbortCrossesReady,
        CheckProblem, CheckSlow, ModelChanges, ModelMoves,
        // Runners.
        DiesIdle, DiesAtWork, Poison, DiesBySignal, EngineStops, ConnectionCloses, Hangs, FallsSilent,
        AnswersForNobody, AnswersForAnother, AnswersTwice, AnswersLate, KeepsCancelled, GivesUpUnasked,
        Garbage, DoesNotRead, EndSlow,
        // Clients and operators.
        Cancel, CancelTwice, Rerun, Drain, Force, Kill, Pause, OldRunner,
    }
}

/// How likely each fault is in one scenario, and how often it came.
#[derive(Debug)]
pub(super) struct Faults {
    rates: Vec<f64>,
    pub(super) counts: Vec<u64>,
    /// Whether faults still come.
    pub(super) is_active: bool,
}

impl Faults {
    /// Draws a scenario's faults: one scenario in eight has none, the others some kinds of them.
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        let share = if rng.u8(..8) == 0 { 0.0 } else { [0.1, 0.3, 0.6][rng.usize(..3)] };
        let mut rate = |_: &Fault| if rng.f64() < share { [0.005, 0.03, 0.15][rng.usize(..3)] } else { 0.0 };
        Self {
            rates: Fault::ALL.iter().map(&mut rate).collect(),
            counts: vec![0; Fault::ALL.len()],
            is_active: true,
        }
    }

    /// No fault comes by itself.
    pub(super) fn calm(&mut self) {
        self.rates.fill(0.0);
    }

    /// Whether the scenario has the fault.
    pub(super) fn is_possible(&self, fault: Fault) -> bool {
        self.is_active && self.rates[fault as usize] > 0.0
    }

    /// Whether the fault comes now.
    pub(super) fn strikes(&mut self, rng: &mut fastrand::Rng, fault: Fault) -> bool {
        let rate = self.rates[fault as usize];
        let comes = self.is_active && rate > 0.0 && rng.f64() < rate;
        if comes {
            self.note(fault);
        }
        comes
    }

    /// How many times the fault comes in a scenario, where it comes by itself.
    pub(super) fn times(&self, rng: &mut fastrand::Rng, fault: Fault) -> usize {
        let rate = self.rates[fault as usize];
        if rate > 0.0 { rng.usize(1..=1 + (rate * 20.0) as usize) } else { 0 }
    }

    /// The fault has come.
    pub(super) fn note(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }
}
