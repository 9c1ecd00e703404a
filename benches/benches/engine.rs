//! The engine by itself: a step of a flock that is at work, and a placement of its models.

use criterion::{Criterion, criterion_group, criterion_main};
use shepherd_core::bench::BusyFlock;

/// Sheep of the flock.
const SHEEP: usize = 64;
/// Models of which 1,000 jobs each wait: 100,000 jobs.
const MODELS: usize = 100;

fn engine(c: &mut Criterion) {
    let mut flock = BusyFlock::new(SHEEP, MODELS);
    // About seven inputs: answered, collected, committed, claimed, staged, and what comes with them.
    c.bench_function("engine/one job of 64 sheep", |b| b.iter(|| flock.finish_one()));
    c.bench_function("engine/placement of 100 models on 64 sheep", |b| b.iter(|| flock.place()));
}

criterion_group!(benches, engine);
criterion_main!(benches);
