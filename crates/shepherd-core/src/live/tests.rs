use futures::StreamExt as _;
use futures::stream::BoxStream;
use shepherd_job::{Attempt, History, JobIdRule, JobSpec, JobState, ModelRef, SheepId, Timestamp};

use super::*;

fn record(state: JobState) -> Arc<JobRecord> {
    let id = JobId::parse("job", JobIdRule::Bucket).unwrap();
    let spec = JobSpec { id, model: ModelRef::parse("m", "").unwrap(), sheep: None, priority: 0 };
    Arc::new(JobRecord { seq: 1, spec, submitted_at: Timestamp::default(), state })
}

fn queued() -> Arc<JobRecord> {
    record(JobState::new())
}

fn processing() -> Arc<JobRecord> {
    record(JobState::Processing {
        attempt: Attempt { epoch: 1, number: 1 },
        sheep: SheepId::parse("dolly").unwrap(),
        started_at: Timestamp::default(),
        history: History { attempts: 1, crashes: 0 },
    })
}

fn done() -> Arc<JobRecord> {
    record(JobState::Done {
        started_at: Timestamp::default(),
        finished_at: Timestamp::from_micros(77),
        history: History::default(),
    })
}

fn id() -> JobId {
    queued().spec.id.clone()
}

fn at(fraction: f64) -> Progress {
    Progress { fraction: Some(fraction), message: None }
}

fn live() -> Arc<Live> {
    Arc::new(Live::new(1000))
}

async fn all(events: BoxStream<'static, JobEvent>) -> Vec<JobEventKind> {
    events.map(|event| event.kind).collect().await
}

#[tokio::test]
async fn a_job_is_watched_from_its_present_state_to_its_end() {
    let live = live();
    let mut events = live.watch(&id()).events(queued(), None);
    assert_eq!(events.next().await.unwrap().kind, JobEventKind::State(queued()));
    live.note(&processing());
    assert_eq!(events.next().await.unwrap().kind, JobEventKind::State(processing()));
    live.report(&id(), at(0.5));
    assert_eq!(live.progress(&id()), Some(at(0.5)));
    // One who comes now begins here.
    let late = live.watch(&id()).events(processing(), None);
    live.note(&done());
    let end = JobEventKind::State(done());
    assert_eq!(all(events).await, [JobEventKind::Progress(at(0.5)), end.clone()]);
    let state = JobEventKind::State(processing());
    assert_eq!(all(late).await, [state, JobEventKind::Progress(at(0.5)), end]);
    assert_eq!((live.progress(&id()), live.lock().len()), (None, 0));
}

#[tokio::test]
async fn progress_that_is_outdated_is_left_out_for_one_who_is_slow() {
    let live = live();
    let events = live.watch(&id()).events(processing(), None);
    (0..1000).for_each(|n| live.report(&id(), at(f64::from(n) / 1000.0)));
    live.note(&done());
    let state = JobEventKind::State(processing());
    assert_eq!(all(events).await, [state, JobEventKind::Progress(at(0.999)), JobEventKind::State(done())]);
}

#[tokio::test]
async fn one_who_comes_again_hears_what_followed() {
    let live = live();
    let mut first = live.watch(&id()).events(queued(), None);
    let seen = first.next().await.unwrap().id;
    live.note(&processing());
    live.report(&id(), at(0.5));
    let again = live.watch(&id()).events(processing(), Some(seen.to_string().parse().unwrap()));
    // An id of another life says nothing here.
    let stranger = live.watch(&id()).events(processing(), Some(EventId::new(live.life + 1, u64::MAX)));
    live.note(&done());
    let (state, end) = (JobEventKind::State(processing()), JobEventKind::State(done()));
    let whole = [state, JobEventKind::Progress(at(0.5)), end.clone()];
    assert_eq!(all(again).await, whole);
    assert_eq!(all(stranger).await, whole);

    let end_id = EventId::end_of(&done()).unwrap();
    assert!(all(live.watch(&id()).events(done(), Some(end_id))).await.is_empty());
    assert_eq!(all(live.watch(&id()).events(done(), Some(seen))).await, [end]);
}

#[tokio::test]
async fn what_is_not_remembered_any_more_is_made_up_for_by_the_present_state() {
    let live = live();
    let mut first = live.watch(&id()).events(queued(), None);
    let seen = first.next().await.unwrap().id;
    for _ in 0..REMEMBERED {
        live.note(&processing());
        live.note(&queued());
    }
    live.note(&processing());
    let mut again = live.watch(&id()).events(processing(), Some(seen));
    let event = again.next().await.unwrap();
    assert_eq!(event.kind, JobEventKind::State(processing()));
    live.note(&done());
    assert_eq!(all(again).await, [JobEventKind::State(done())]);
}

#[tokio::test]
async fn an_end_between_the_place_and_the_look_is_not_missed() {
    let live = live();
    let watch = live.watch(&id());
    live.note(&done());
    assert_eq!(all(watch.events(queued(), None)).await, [JobEventKind::State(done())]);
}

#[tokio::test]
async fn a_log_is_followed_from_its_beginning_to_the_jobs_end() {
    let live = live();
    live.print(&id(), 1, "one\n");
    let mut log = live.watch(&id()).log();
    assert_eq!(log.next().await.unwrap(), "one\n");
    live.print(&id(), 1, "two\n");
    live.note(&processing());
    assert_eq!(log.next().await.unwrap(), "two\n");
    assert_eq!(live.log_object(&id()).unwrap().1, "one\ntwo\n");
    live.print(&id(), 1, "three\n");
    live.note(&done());
    assert_eq!(log.next().await.unwrap(), "three\n");
    assert_eq!(log.next().await, None);
    assert_eq!(live.log(&id()), None);
}

#[tokio::test]
async fn a_job_of_which_nothing_is_known_is_forgotten_with_its_last_watcher() {
    let live = live();
    let (first, second) = (live.watch(&id()), live.watch(&id()));
    drop(first);
    assert_eq!(live.lock().len(), 1);
    drop(second);
    assert_eq!((live.lock().len(), live.count.load(Ordering::SeqCst)), (0, 0));
    // What a job has said stays until its end.
    live.print(&id(), 1, "x");
    drop(live.watch(&id()));
    assert_eq!(live.log(&id()).unwrap(), "x");
    live.note(&done());
    assert_eq!(live.lock().len(), 0);
}

#[tokio::test]
async fn nothing_is_kept_where_no_logs_are_wanted() {
    let live = Arc::new(Live::new(0));
    live.print(&id(), 1, "x");
    assert_eq!((live.log(&id()), live.lock().len()), (None, 0));
}

#[tokio::test]
async fn all_are_sent_away_when_the_shepherd_ends() {
    let live = live();
    let events = live.watch(&id()).events(queued(), None);
    let log = live.watch(&id()).log();
    live.dismiss();
    assert_eq!(all(events).await, [JobEventKind::State(queued())]);
    assert_eq!(log.count().await, 0);
    assert_eq!(live.watch(&id()).log().count().await, 0, "nor does anybody wait who comes later");
}
