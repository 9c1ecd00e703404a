use std::time::Duration;

use proptest::prelude::{Strategy, prop_assert, proptest};
use shepherd_job::{ModelRef, SheepId, Timestamp};
use shepherd_queue::Group;

use super::{Limits, SheepFacts, Swap, UNKNOWN, schedule, shares};

const LIMITS: Limits = Limits { max_wait: Duration::from_secs(60) };
const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

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
        rests_from: Vec::new(),
        model: has.map(|name| (model(name), NOW)),
        in_hand: 0,
        spare: 0,
        run_time: UNKNOWN,
        swap_time: UNKNOWN,
    }
}

#[track_caller]
fn check(ready: &[Group], flock: &[SheepFacts], expected: &[(&str, &str)]) {
    let expected: Vec<Swap> =
        expected.iter().map(|(sheep, name)| Swap { sheep: id(sheep), model: model(name) }).collect();
    assert_eq!(schedule(ready, flock, NOW, LIMITS), expected);
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
    let resting = SheepFacts { rests_from: vec![model("a")], ..sheep("s", Some("a")) };
    check(&[group("a", 1, 5), group("b", 2, 1)], std::slice::from_ref(&resting), &[("s", "b")]);
    check(&[group("a", 1, 5)], &[resting.clone(), sheep("t", None)], &[("t", "a")]);
    check(&[group("a", 1, 5)], &[SheepFacts { rests_from: vec![model("a")], ..sheep("s", None) }], &[]);
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
    let leaving = [Swap { sheep: id("t"), model: model("b") }];
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
