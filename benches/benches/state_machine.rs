//! What one step of a job's life costs, without any store.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shepherd_job::{Attempt, Event, GiveBack, JobState, SheepId, Timestamp};

fn life(c: &mut Criterion) {
    let at = Timestamp::from_micros(1);
    let attempt = Attempt { epoch: 1, number: 1 };
    let sheep = SheepId::parse("dolly").expect("a legal name");
    let claim = || Event::Claim { attempt, sheep: sheep.clone(), at };
    let queued = JobState::new();
    let processing = queued.apply(claim()).expect("a queued job can be claimed");

    c.bench_function("claim and complete", |b| {
        b.iter(|| {
            let processing = black_box(&queued).apply(claim());
            processing.and_then(|state| state.apply(Event::Complete { attempt, at }))
        });
    });
    c.bench_function("give back", |b| {
        b.iter(|| {
            let event = Event::GiveBack { attempt, cause: GiveBack::Crashed, not_before: Some(at) };
            black_box(&processing).apply(event)
        });
    });
    c.bench_function("refuse a stale attempt", |b| {
        let stale = Attempt { number: 9, ..attempt };
        b.iter(|| black_box(&processing).apply(Event::Complete { attempt: stale, at }));
    });
}

criterion_group!(benches, life);
criterion_main!(benches);
