//! Random histories, told to this store and to the plain one in memory: both must
//! answer the same, whatever is cached and however often the store is reopened.

use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use shepherd_job::{Attempt, Event, GiveBack, JobId, Phase};

use super::{Fresh, SqliteOptions, tiny};
use crate::contract::{Node, at, claim_at, complete, fail, id, job, join, model, object, sheep};
use crate::{
    Change, Claim, Claimed, Existing, Held, JobStore as _, Lag, ListQuery, MemoryStore, NewJob, Outbox as _,
    Outcome, Pending, PendingLimits, Pins, Prune, Store,
};

#[derive(Clone, Debug)]
enum Step {
    Submit(Vec<(u8, u8, i32, bool, bool)>),
    Claim {
        model: u8,
        sheep: u8,
        limit: usize,
    },
    /// Which of the tokens seen so far, and what to do with it.
    Apply(Vec<(usize, Action)>),
    Cancel(u8),
    /// Takes what is pending, to be delivered later.
    Take(usize),
    /// Delivers what was taken, all or the last.
    Deliver(bool),
    /// Renews with some of the tokens seen so far.
    Renew(Vec<usize>),
    /// Removes records: the outcome, from when on they stay, how many stay, at most how many go.
    Prune(u8, Option<i64>, u64, usize),
    Join,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Complete(bool),
    Fail,
    GiveBack { crashed: bool, delay: Option<u8> },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        any::<bool>().prop_map(Action::Complete),
        Just(Action::Fail),
        (any::<bool>(), proptest::option::of(0..6_u8))
            .prop_map(|(crashed, delay)| Action::GiveBack { crashed, delay }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let new = (0..8_u8, 0..6_u8, -1..2_i32, any::<bool>(), any::<bool>());
    prop_oneof![
        4 => proptest::collection::vec(new, 1..5).prop_map(Step::Submit),
        4 => (0..2_u8, 0..2_u8, 0..4_usize).prop_map(|(model, sheep, limit)| Step::Claim { model, sheep, limit }),
        4 => proptest::collection::vec((any::<usize>(), action()), 1..4).prop_map(Step::Apply),
        1 => (0..8_u8).prop_map(Step::Cancel),
        2 => (0..5_usize).prop_map(Step::Take),
        2 => any::<bool>().prop_map(Step::Deliver),
        1 => proptest::collection::vec(any::<usize>(), 0..5).prop_map(Step::Renew),
        2 => (0..3_u8, proptest::option::of(0..30_i64), 0..3_u64, 0..4_usize)
            .prop_map(|(outcome, before, keep, limit)| Step::Prune(outcome, before, keep, limit)),
        1 => Just(Step::Join),
        1 => Just(Step::Reopen),
    ]
}

fn new_job((name, kind, priority, again, spooled): (u8, u8, i32, bool, bool), now: i64) -> NewJob {
    let mut new = job(&format!("job-{name}"));
    new.spec.model = model(["m", "n"][usize::from(kind % 2)]);
    new.spec.sheep = [None, Some(sheep("dolly")), Some(sheep("shaun"))][usize::from(kind / 2)].clone();
    new.spec.priority = priority;
    new.submitted_at = at(now);
    new.existing = if again { Existing::Rerun } else { Existing::Refuse };
    if spooled {
        new.objects = vec![object("inputs/input", format!("{now}")), object("inputs/a", "same")];
    }
    new
}

fn change(token: &(JobId, Attempt), action: Action, now: i64) -> Change {
    let (job, attempt) = (token.0.clone(), token.1);
    let mut objects = Vec::new();
    let event = match action {
        Action::Complete(spooled) => {
            if spooled {
                objects.push(object("outputs/output", format!("{now}")));
            }
            complete(attempt)
        }
        Action::Fail => fail(attempt),
        Action::GiveBack { crashed, delay } => Event::GiveBack {
            attempt,
            cause: if crashed { GiveBack::Crashed } else { GiveBack::Blameless },
            not_before: delay.map(|d| at(now + i64::from(d))),
        },
    };
    Change { job, event, objects }
}

/// Everything that can be asked, as text that can be compared.
async fn view(queue: &Node<impl Store>, now: i64) -> String {
    let all = queue.list(ListQuery { limit: 99, ..ListQuery::default() }).await.unwrap();
    let mut out = format!("{:?}\n{:?}\n", all, queue.ready(at(now)).await.unwrap());
    for phase in [Phase::Queued, Phase::Processing, Phase::Done, Phase::Failed, Phase::Cancelled] {
        let before = all.first().map(|record| record.seq);
        let some = queue.list(ListQuery { phases: vec![phase], before, limit: 2 }).await.unwrap();
        out += &format!("{phase:?} {:?}\n", some.iter().map(|record| record.seq).collect::<Vec<_>>());
    }
    for name in 0..8 {
        let id = id(&format!("job-{name}"));
        out += &format!("{:?} {:?}\n", queue.get(&id).await.unwrap(), queue.objects(&id).await.unwrap());
    }
    // Positions tell only the order.
    for pending in queue.pending(None, PendingLimits::jobs(99)).await.unwrap() {
        out += &format!("{:?} {:?}\n", pending.job, pending.objects);
    }
    let Lag { jobs, bytes, since, finished: _ } = queue.lag();
    out + &format!("{jobs} {bytes} {since:?}\n")
}

async fn compare(steps: Vec<Step>, options: SqliteOptions) -> Result<(), TestCaseError> {
    let mut real = Fresh::new(options.clone()).await;
    let mut plain = Node::join(MemoryStore::new()).await;
    let mut tokens: Vec<(JobId, Attempt)> = Vec::new();
    let mut taken: Vec<Vec<Pending>> = Vec::new();
    for (now, step) in (1..).zip(steps) {
        match step {
            Step::Submit(jobs) => {
                let jobs: Vec<NewJob> = jobs.into_iter().map(|new| new_job(new, now)).collect();
                let (a, b) = (real.submit(jobs.clone()).await.unwrap(), plain.submit(jobs).await.unwrap());
                prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
            }
            Step::Claim { model: m, sheep: s, limit } => {
                let sheep = |s: u8| sheep(["dolly", "shaun"][usize::from(s)]);
                let mut claim = Claim::new(model(["m", "n"][usize::from(m)]), sheep(s), limit, at(now));
                claim.pins = [Pins::Own, Pins::OwnAnd([sheep(1 - s)].into()), Pins::Only][limit % 3].clone();
                claim.overdue = (now % 2 == 0).then(|| at(now - 3));
                let (a, b) = (real.claim(claim.clone()).await.unwrap(), plain.claim(claim).await.unwrap());
                prop_assert_eq!(claims(&a), claims(&b));
                prop_assert!(a.iter().zip(&b).all(|(a, b)| b.first || !a.first));
                tokens.extend(a.into_iter().map(|c| (c.job.spec.id.clone(), c.attempt)));
            }
            Step::Apply(actions) if !tokens.is_empty() => {
                let pick = |(at, action): (usize, Action)| {
                    change(&tokens[tokens.len() - 1 - at % tokens.len()], action, now)
                };
                let changes: Vec<Change> = actions.into_iter().map(pick).collect();
                let (a, b) =
                    (real.apply(changes.clone()).await.unwrap(), plain.apply(changes).await.unwrap());
                prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
            }
            Step::Apply(_) => {}
            Step::Cancel(name) => {
                let job = id(&format!("job-{name}"));
                let cancel = vec![Change { job, event: Event::Cancel { at: at(now) }, objects: Vec::new() }];
                let (a, b) = (real.apply(cancel.clone()).await.unwrap(), plain.apply(cancel).await.unwrap());
                prop_assert_eq!(a, b);
            }
            Step::Take(limit) => taken.push(real.pending(None, PendingLimits::jobs(limit)).await.unwrap()),
            Step::Deliver(all) => {
                let given: Vec<Pending> =
                    if all { taken.drain(..).flatten().collect() } else { taken.pop().unwrap_or_default() };
                real.delivered(given.clone()).await.unwrap();
                plain.delivered(given).await.unwrap();
            }
            Step::Renew(some) => {
                let held: Vec<Held> = some
                    .into_iter()
                    .filter_map(|n| tokens.get(n % tokens.len().max(1)))
                    .map(|(job, attempt)| Held { job: job.clone(), attempt: *attempt })
                    .collect();
                let mut a = real.renew(&real.lease, held.clone(), at(now)).await.unwrap();
                let mut b = plain.renew(&plain.lease, held, at(now)).await.unwrap();
                for renewed in [&mut a, &mut b] {
                    renewed.lost.sort();
                    renewed.unknown.sort();
                    renewed.cancelled.sort();
                }
                prop_assert_eq!(a, b);
            }
            Step::Prune(outcome, before, keep_newest, limit) => {
                let outcome = [Outcome::Done, Outcome::Failed, Outcome::Cancelled][usize::from(outcome)];
                let prune = Prune { outcome, finished_before: before.map(at), keep_newest, limit };
                let (a, b) = (real.prune(prune).await.unwrap(), plain.prune(prune).await.unwrap());
                prop_assert_eq!(a, b);
            }
            Step::Join => {
                real.rejoin().await;
                plain.lease = join(&*plain, "ann", 0).await;
            }
            Step::Reopen => {
                real.reopen(options.clone()).await;
                plain.lease = join(&*plain, "ann", 0).await;
            }
        }
        prop_assert_eq!(view(&real, now).await, view(&plain, now).await);
        prop_assert_eq!(real.counts().await.unwrap(), plain.counts().await.unwrap());
    }
    // Whatever happened, what is left leaves in the same order.
    let (a, b) = (claim_at(&real, 99, i64::MAX).await, claim_at(&plain, 99, i64::MAX).await);
    prop_assert_eq!(claims(&a), claims(&b));
    Ok(())
}

/// What was claimed. A store that may have forgotten claims does not know first attempts.
fn claims(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|c| format!("{:?} {} {:?}", c.job, c.attempt, c.objects)).collect()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    #[test]
    fn both_stores_tell_the_same_story(
        steps in proptest::collection::vec(step(), 1..50),
        cached in any::<bool>(),
    ) {
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        let options = if cached { SqliteOptions::default() } else { tiny() };
        runtime.block_on(compare(steps, options))?;
    }
}
