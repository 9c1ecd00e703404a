use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::{Strategy, prop_assert, proptest};
use shepherd_job::{ModelRef, SheepId, Timestamp};
use shepherd_queue::Group;

use super::{Board, Cause, Limits, SheepFacts, Swap, UNKNOWN};

const LIMITS: Limits = Limits { max_wait: Duration::from_secs(60) };
const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

fn schedule(ready: &[Group], flock: &[SheepFacts], now: Timestamp, limits: Limits) -> Vec<Swap> {
    Board::new(ready, flock, now, limits).swaps()
}

fn shares<'a>(ready: &'a [Group], flock: &'a [SheepFacts], swaps: &[Swap]) -> Vec<&'a SheepId> {
    Board::new(ready, flock, NOW, LIMITS).shares(swaps)
}

fn model(name: &str) -> ModelRef {
    ModelRef::parse(name, "1").unwrap()
}

fn id(name: &str) -> SheepId {
    SheepId::parse(name).unwrap()
}

fn group(name: &str, seq: u64, ready: usize) -> Group {
    Group { model: model(name), sheep: None, ready, priority: 0, seq, submitted_at: NOW }
}

fn sheep(name: &str, has: Option<&str>) -> SheepFacts {
    SheepFacts {
        id: id(name),
        available: true,
        leaves_alone: HashSet::new(),
        failing: HashSet::new(),
        model: has.map(|name| (model(name), NOW)),
        pending: None,
        in_hand: 0,
        urgency: None,
        spare: 0,
        run_time: UNKNOWN,
        loading: None,
        swap_time: UNKNOWN,
    }
}

#[track_caller]
fn check(ready: &[Group], flock: &[SheepFacts], expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(sheep, name)| (id(sheep), model(name))).collect();
    let swaps = schedule(ready, flock, NOW, LIMITS).into_iter();
    assert_eq!(swaps.map(|swap| (swap.sheep, swap.model)).collect::<Vec<_>>(), expected);
}

#[test]
fn an_idle_sheep_takes_the_first_group() {
    check(&[group("a", 1, 1), group("b", 2, 1)], &[sheep("s", None)], &[("s", "a")]);
    check(&[group("a", 1, 1)], &[sheep("s", Some("b"))], &[("s", "a")]);
    check(&[], &[sheep("s", None)], &[]);
}

#[test]
fn the_loaded_model_goes_before_an_older_job() {
    check(&[group("b", 1, 5), group("a", 2, 1)], &[sheep("s", Some("a"))], &[]);
}

#[test]
fn a_model_that_is_left_alone_is_for_other_sheep_and_the_sheep_for_other_models() {
    let resting = SheepFacts { leaves_alone: HashSet::from([model("a")]), ..sheep("s", Some("a")) };
    check(&[group("a", 1, 5), group("b", 2, 1)], std::slice::from_ref(&resting), &[("s", "b")]);
    check(&[group("a", 1, 5)], &[resting.clone(), sheep("t", None)], &[("t", "a")]);
    check(
        &[group("a", 1, 5)],
        &[SheepFacts { leaves_alone: HashSet::from([model("a")]), ..sheep("s", None) }],
        &[],
    );
    // Nor is it given what others have too much of.
    let slow = Duration::from_secs(10);
    let hoards = SheepFacts { in_hand: 2, spare: 1, run_time: slow, ..sheep("t", Some("a")) };
    assert!(shares(&[], &[resting, hoards.clone()], &[]).is_empty());
    assert_eq!(shares(&[], &[sheep("s", Some("a")), hoards], &[]), [&id("t")]);
}

#[test]
fn a_running_job_is_never_swapped_away() {
    let busy = SheepFacts { in_hand: 1, ..sheep("s", Some("a")) };
    check(&[group("b", 1, 5)], &[busy], &[]);
}

#[test]
fn one_job_wakes_one_sheep() {
    check(&[group("a", 1, 1)], &[sheep("s", None), sheep("t", None)], &[("s", "a")]);
    check(&[group("a", 1, 1)], &[sheep("s", None), sheep("t", Some("a"))], &[]);
}

#[test]
fn models_that_take_turns_each_keep_a_sheep() {
    // The free sheep gets the new model, not the one that would lose its own.
    check(&[group("b", 1, 1)], &[sheep("s", Some("a")), sheep("t", None)], &[("t", "b")]);
    let older = SheepFacts { model: Some((model("b"), Timestamp::from_micros(1))), ..sheep("t", None) };
    check(&[group("c", 1, 1)], &[sheep("s", Some("a")), older], &[("t", "c")]);
    // However long its jobs take, an idle sheep that has the model serves the next one at once.
    let slow = SheepFacts { run_time: Duration::from_secs(60), ..sheep("s", Some("a")) };
    check(&[group("a", 1, 1)], &[slow, sheep("t", Some("b"))], &[]);
}

#[test]
fn a_second_sheep_helps_when_the_wait_exceeds_the_swap() {
    let slow = SheepFacts { in_hand: 1, run_time: Duration::from_secs(3600), ..sheep("s", Some("a")) };
    check(&[group("a", 1, 1)], &[slow, sheep("t", None)], &[("t", "a")]);
    let fast = SheepFacts { in_hand: 1, run_time: Duration::from_millis(1), ..sheep("s", Some("a")) };
    check(&[group("a", 1, 100)], &[fast, sheep("t", None)], &[]);
}

#[test]
fn different_models_go_to_different_sheep() {
    check(
        &[group("a", 1, 1), group("b", 2, 1)],
        &[sheep("s", None), sheep("t", None)],
        &[("s", "a"), ("t", "b")],
    );
}

#[test]
fn a_pin_is_respected() {
    let pinned = Group { sheep: Some(id("t")), ..group("a", 1, 9) };
    check(std::slice::from_ref(&pinned), &[sheep("s", None), sheep("t", None)], &[("t", "a")]);
    check(&[pinned], &[sheep("s", None)], &[]);
}

#[test]
fn a_pinned_group_is_not_served_by_another_sheep() {
    let pinned = Group { sheep: Some(id("t")), ..group("a", 1, 1) };
    check(&[pinned], &[sheep("s", Some("a")), sheep("t", None)], &[("t", "a")]);
}

#[test]
fn a_higher_priority_takes_the_sheep_between_jobs() {
    let busy = SheepFacts { in_hand: 3, ..sheep("s", Some("a")) };
    let urgent = Group { priority: 1, ..group("b", 9, 1) };
    check(&[urgent, group("a", 1, 5)], &[busy], &[("s", "b")]);
}

#[test]
fn claimed_jobs_count_at_their_priority() {
    // Its most urgent job is claimed, and what is left of its model in the queue is not urgent.
    let holds = |urgency| SheepFacts { in_hand: 1, urgency, ..sheep("s", Some("a")) };
    let ready = [group("b", 2, 1), Group { priority: -1, ..group("a", 3, 1) }];
    check(&ready, &[holds(Some(2))], &[]);
    check(&ready, &[holds(Some(-1))], &[("s", "b")]);
    check(&ready, &[holds(None)], &[("s", "b")]);
}

#[test]
fn a_launch_is_abandoned_only_for_more_urgent_jobs() {
    let long_ago = Timestamp::from_micros(0);
    let launching = |cause| SheepFacts {
        model: Some((model("a"), long_ago)),
        pending: Some(cause),
        in_hand: 1,
        urgency: Some(0),
        ..sheep("s", None)
    };
    let other = |priority| Group { priority, submitted_at: long_ago, ..group("b", 1, 5) };
    check(&[other(0)], &[launching(Cause::First)], &[]);
    check(&[other(1)], &[launching(Cause::First)], &[("s", "b")]);
    // What waited too long is not made to wait once more.
    check(&[other(1)], &[launching(Cause::Starved)], &[]);
}

#[test]
fn no_model_starves() {
    let long_ago = Timestamp::from_micros(0);
    let old = Group { submitted_at: long_ago, ..group("b", 1, 1) };
    let settled = SheepFacts { model: Some((model("a"), long_ago)), in_hand: 1, ..sheep("s", None) };
    check(&[old.clone(), group("a", 2, 5)], &[settled], &[("s", "b")]);
    // A sheep that has just swapped keeps its model a while, or two starving models would trade for ever.
    check(&[old, group("a", 2, 5)], &[SheepFacts { in_hand: 1, ..sheep("s", Some("a")) }], &[]);
}

#[test]
fn an_unavailable_sheep_neither_takes_nor_serves() {
    let broken = SheepFacts { available: false, ..sheep("s", Some("a")) };
    check(&[group("a", 1, 1)], &[broken, sheep("t", None)], &[("t", "a")]);
}

#[test]
fn a_job_made_ready_behind_a_long_one_is_shared_with_an_idle_sheep() {
    let hoarding = |run_time| SheepFacts { in_hand: 2, spare: 1, run_time, ..sheep("s", Some("a")) };
    let long = [hoarding(Duration::from_secs(5)), sheep("t", None)];
    assert_eq!(shares(&[], &long, &[]), [&id("s")]);
    let short = [hoarding(Duration::from_millis(1)), sheep("t", Some("a"))];
    assert!(shares(&[], &short, &[]).is_empty(), "it is through sooner than shared");
    let busy = [hoarding(Duration::from_secs(5)), SheepFacts { in_hand: 1, ..sheep("t", None) }];
    assert!(shares(&[], &busy, &[]).is_empty(), "nobody is free");
    let alone = [hoarding(Duration::from_secs(5))];
    assert!(shares(&[], &alone, &[]).is_empty());
    let leaving = [Swap { sheep: id("t"), model: model("b"), cause: Cause::First }];
    assert!(shares(&[group("b", 1, 1)], &long, &leaving).is_empty(), "it has just got other work");
}

fn any_case() -> impl Strategy<Value = (Vec<Group>, Vec<SheepFacts>)> {
    let names = || proptest::sample::select(vec!["a", "b", "c"]);
    let sheep_names = || proptest::sample::select(vec!["s", "t", "u"]);
    let groups = proptest::collection::vec(
        (names(), proptest::option::of(sheep_names()), 1..20_usize, -1..2_i32, 0..2_000_i64),
        0..6,
    )
    .prop_map(|rows| {
        let mut groups: Vec<Group> = rows
            .into_iter()
            .enumerate()
            .map(|(seq, (name, pin, ready, priority, at))| Group {
                sheep: pin.map(id),
                priority,
                submitted_at: Timestamp::from_micros(at * 1_000_000),
                ..group(name, seq as u64, ready)
            })
            .collect();
        groups.sort_by_key(|g| (std::cmp::Reverse(g.priority), g.seq));
        groups
    });
    let flock =
        proptest::collection::vec((proptest::option::of(names()), 0..3_usize, proptest::bool::ANY), 0..4)
            .prop_map(|rows| {
                let name = ["s", "t", "u"];
                rows.into_iter()
                    .enumerate()
                    .map(|(i, (has, in_hand, available))| SheepFacts {
                        in_hand: if has.is_some() { in_hand } else { 0 },
                        available,
                        ..sheep(name[i], has)
                    })
                    .collect()
            });
    (groups, flock)
}

proptest! {
    #[test]
    fn no_decision_breaks_a_rule((ready, flock) in any_case()) {
        let swaps = schedule(&ready, &flock, NOW, LIMITS);
        for swap in &swaps {
            let facts = flock.iter().find(|s| s.id == swap.sheep).unwrap();
            prop_assert!(facts.available);
            prop_assert!(facts.model.as_ref().is_none_or(|(m, _)| *m != swap.model), "a swap to the model it has");
            prop_assert!(
                ready.iter().any(|g| g.model == swap.model && g.sheep.as_ref().is_none_or(|p| *p == swap.sheep)),
                "a swap to a model without work"
            );
            prop_assert!(swaps.iter().filter(|s| s.sheep == swap.sheep).count() == 1);
        }
    }

    #[test]
    fn no_group_waits_beside_an_idle_sheep_that_could_take_it((ready, flock) in any_case()) {
        let swaps = schedule(&ready, &flock, NOW, LIMITS);
        let after = |s: &SheepFacts| {
            swaps
                .iter()
                .find(|w| w.sheep == s.id)
                .map(|w| w.model.clone())
                .or_else(|| s.model.as_ref().map(|(m, _)| m.clone()))
        };
        let can = |s: &SheepFacts, g: &Group| s.available && g.sheep.as_ref().is_none_or(|p| *p == s.id);
        for group in &ready {
            let served = flock.iter().any(|s| can(s, group) && after(s).as_ref() == Some(&group.model));
            let idle = flock.iter().any(|s| {
                let works = s.in_hand > 0 || ready.iter().any(|g| can(s, g) && after(s).as_ref() == Some(&g.model));
                can(s, group) && !works
            });
            prop_assert!(served || !idle, "{group:?} waits beside an idle sheep: {swaps:?}");
        }
    }
}

/// A flock that does what is decided, a second at a time.
struct Replay {
    now: Timestamp,
    queue: Vec<Group>,
    flock: Vec<Replayed>,
    load: u32,
    run: u32,
}

#[derive(Default)]
struct Replayed {
    order: Option<(ModelRef, Timestamp)>,
    cause: Cause,
    model: Option<ModelRef>,
    runner: Runner,
    /// Claimed and not begun.
    prepared: Option<Group>,
    /// Begun, and how long it still takes.
    running: Option<(Group, u32)>,
}

#[derive(Default, PartialEq)]
enum Runner {
    #[default]
    None,
    Starting(u32),
    Ready,
}

impl Replay {
    /// The first jobs of each group, first jobs first.
    fn ready(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for job in &self.queue {
            match groups.iter_mut().find(|g| g.model == job.model && g.sheep == job.sheep) {
                Some(group) => group.ready += 1,
                None => groups.push(job.clone()),
            }
        }
        groups
    }

    fn facts(&self) -> Vec<SheepFacts> {
        let facts = |(index, of): (usize, &Replayed)| {
            let has_model = of.order.as_ref().map(|(model, _)| model) == of.model.as_ref();
            SheepFacts {
                model: of.order.clone(),
                pending: (!has_model || of.runner != Runner::Ready).then_some(of.cause),
                in_hand: usize::from(of.prepared.is_some()) + usize::from(of.running.is_some()),
                urgency: of.prepared.as_ref().map(|job| job.priority).filter(|_| has_model),
                ..sheep(NAMES[index], None)
            }
        };
        self.flock.iter().enumerate().map(facts).collect()
    }

    fn give_back(&mut self, job: Group) {
        self.queue.push(job);
        self.queue.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.seq));
    }

    /// One second, with a decision or without.
    fn step(&mut self, decides: bool) {
        self.now = self.now.after(Duration::from_secs(1));
        if decides {
            for swap in schedule(&self.ready(), &self.facts(), self.now, Limits { max_wait: MAX_WAIT }) {
                let index = NAMES.iter().position(|name| id(name) == swap.sheep).unwrap();
                let sheep = &mut self.flock[index];
                (sheep.order, sheep.cause) = (Some((swap.model, self.now)), swap.cause);
            }
        }
        for index in 0..self.flock.len() {
            self.keep(index);
        }
    }

    /// What one sheep does within a second.
    fn keep(&mut self, index: usize) {
        let (load, run, now) = (self.load, self.run, self.now);
        let order = self.flock[index].order.as_ref().map(|(model, _)| model.clone());
        if order != self.flock[index].model {
            let given_back = self.flock[index].prepared.take();
            given_back.into_iter().for_each(|job| self.give_back(job));
            let sheep = &mut self.flock[index];
            if sheep.running.is_none() {
                (sheep.model, sheep.runner) = (order, Runner::None);
            }
        } else if let Some(model) = order
            && self.flock[index].prepared.is_none()
        {
            let may = |job: &Group| {
                job.model == model && job.sheep.as_ref().is_none_or(|pin| *pin == id(NAMES[index]))
            };
            let first = self.queue.iter().position(may);
            self.flock[index].prepared = first.map(|first| self.queue.remove(first));
        }
        let sheep = &mut self.flock[index];
        sheep.runner = match std::mem::take(&mut sheep.runner) {
            Runner::None if sheep.prepared.is_some() => Runner::Starting(load),
            Runner::None => Runner::None,
            Runner::Starting(0) => {
                sheep.cause = Cause::default();
                sheep.order.iter_mut().for_each(|(_, since)| *since = now);
                Runner::Ready
            }
            Runner::Starting(left) => Runner::Starting(left - 1),
            Runner::Ready => {
                sheep.running = match sheep.running.take() {
                    Some((_, 0)) | None => sheep.prepared.take().map(|job| (job, run)),
                    Some((job, left)) => Some((job, left - 1)),
                };
                Runner::Ready
            }
        };
    }

    fn is_done(&self) -> bool {
        let is_idle = |sheep: &Replayed| sheep.prepared.is_none() && sheep.running.is_none();
        self.queue.is_empty() && self.flock.iter().all(is_idle)
    }
}

const NAMES: [&str; 3] = ["s", "t", "u"];
/// Less than some models take to load.
const MAX_WAIT: Duration = Duration::from_secs(4);

fn any_jobs() -> impl Strategy<Value = Vec<Group>> {
    let name = proptest::sample::select(vec!["a", "b", "c"]);
    proptest::collection::vec((name, -2..3_i32, proptest::bool::weighted(0.1)), 1..12).prop_map(|rows| {
        let job = |(seq, (name, priority, pinned)): (usize, (&str, i32, bool))| Group {
            priority,
            sheep: pinned.then(|| id("s")),
            ..group(name, seq as u64, 1)
        };
        let mut jobs: Vec<Group> = rows.into_iter().enumerate().map(job).collect();
        jobs.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.seq));
        jobs
    })
}

proptest! {
    #[test]
    fn every_job_runs_whatever_the_priorities_and_however_long_models_load(
        queue in any_jobs(),
        sheep in 1..4_usize,
        load in 0..9_u32,
        run in 0..3_u32,
        decides in proptest::collection::vec(proptest::bool::ANY, 1..9),
    ) {
        // At worst a launch of each priority is abandoned for each job that runs.
        let most = queue.len() * (5 * (load as usize + 3) + run as usize + 3) * (decides.len() + 1);
        let flock = (0..sheep).map(|_| Replayed::default()).collect();
        let mut replay = Replay { now: NOW, queue, flock, load, run };
        for second in 0..most {
            replay.step(decides[second % decides.len()] || second % 9 == 8);
        }
        prop_assert!(replay.is_done(), "{:?} are left after {most} s", replay.ready());
    }
}

#[test]
fn no_start_is_given_up_for_a_model_whose_last_start_failed() {
    let urgent = Group { priority: 5, ..group("b", 2, 1) };
    let starting = SheepFacts { pending: Some(Cause::First), urgency: Some(0), ..sheep("s", Some("a")) };
    check(std::slice::from_ref(&urgent), std::slice::from_ref(&starting), &[("s", "b")]);
    let failing = SheepFacts { failing: [model("b")].into(), ..starting };
    check(std::slice::from_ref(&urgent), std::slice::from_ref(&failing), &[]);
    // Between jobs it is tried again.
    let ready = SheepFacts { pending: None, ..failing };
    check(&[urgent], &[ready], &[("s", "b")]);
}
