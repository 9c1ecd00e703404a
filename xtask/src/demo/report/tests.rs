use std::path::PathBuf;

use super::*;

fn picture(name: &str) -> Picture {
    Picture {
        name: format!("{name}.jpg"),
        path: PathBuf::from(name),
        stem: name.to_owned(),
        text: vec!["ask inside".to_owned()],
    }
}

fn reading(text: &str) -> Reading {
    Reading { lines: vec![text.to_owned()], confidence: 0.96 }
}

fn walked(outcome: Result<Reading, String>, millis: u64) -> Walked {
    Walked { outcome, took: Duration::from_millis(millis) }
}

fn alone(text: &str, millis: u64) -> Alone {
    Alone { reading: reading(text), took: Duration::from_millis(millis) }
}

/// A picture that is read well in every round.
fn good(times: &[(u64, u64)]) -> Report {
    let mut report = Report::new(picture("board"), walked(Ok(reading("askinside")), 1_812));
    report.warm_up(walked(Ok(reading("askinside")), 1_500));
    for (round, (warm, plain)) in times.iter().enumerate() {
        let job = format!("board-{}", round + 1);
        report.add(job, walked(Ok(reading("askinside")), *warm), &alone("askinside", *plain));
    }
    report
}

#[test]
fn the_table_shows_what_was_read_and_how_long_it_took() {
    let mut broken = Report::new(picture("broken"), walked(Err("no picture".to_owned()), 99));
    broken.add("broken-1".to_owned(), walked(Ok(reading("askinside")), 402), &alone("askinside", 401));
    let reports = [good(&[(403, 400), (601, 600), (402, 398)]), broken];
    let expected = "\
picture     recognised text     confidence  cold     warm    plain loop  as expected
board.jpg   askinside           0.960       1812 ms  403 ms  400 ms      yes
broken.jpg  failed: no picture  -           99 ms    402 ms  401 ms      NO: ask inside
";
    assert_eq!(table(&reports), expected);
}

#[test]
fn what_the_shepherd_adds_is_what_the_code_did_not_take() {
    let mut report = good(&[(403, 400), (601, 900), (402, 398)]);
    let printed = "board-cold\nboard-2 took 0.596500 s\nboard-1 took 0.401000 s\nboard-10 took 9.0 s\nboard-3 took 0.4 s\n";
    report.add_printed(printed).unwrap();
    let expected = "\
an image takes 1812 ms cold and 403 ms warm; the first warm one, with loading the model, 1500 ms
the shepherd adds 2.0 ms to what the code takes in the runner (median of 3; half of them are between 2.0 and 4.5 ms)
a plain loop of the same code takes 400 ms; in pairs, warm takes +3.0 ms (median of 3; half of them are between 3.0 and 4.0 ms)
";
    assert_eq!(summary(&[report]), expected);
    let error = good(&[(403, 400)]).add_printed("board-2 took 0.4 s\n").unwrap_err();
    assert!(error.to_string().contains("board-1"), "{error}");
}

#[test]
fn one_wrong_reading_among_many_is_found() {
    let mut report = good(&[(1, 1)]);
    assert!(report.is_as_expected());
    report.add("board-2".to_owned(), walked(Ok(reading("ask outside")), 1), &alone("ask outside", 1));
    report.add("board-3".to_owned(), walked(Ok(reading("ask inside")), 1), &alone("ask inside", 1));
    assert!(!report.is_as_expected());
}

#[test]
fn the_runner_and_the_plain_loop_must_read_the_same() {
    let mut report = good(&[]);
    report.add("board-1".to_owned(), walked(Ok(reading("ask inside")), 1), &alone("ask outside", 1));
    assert!(!report.is_as_expected());
}
