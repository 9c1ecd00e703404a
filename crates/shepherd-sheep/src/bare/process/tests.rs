use super::{Process, Tree};

fn process(pid: i32, parent: i32, group: i32, session: i32) -> Process {
    Process { pid, start: 100, parent, group, session, dead: false }
}

#[track_caller]
fn check(leader: Option<(i32, u64)>, all: &[Process], marked: &[i32], expected: &[i32]) {
    let found = Tree::new("x", leader, None).members(all, |p| marked.contains(&p.pid));
    assert_eq!(found.iter().map(|p| p.pid).collect::<Vec<_>>(), expected);
}

#[test]
fn a_stat_line_is_read_whatever_the_name() {
    let stat =
        "42 (a) b (c\n) S 7 40 41 34816 42 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 18446744073709551615";
    let expected = Process { pid: 42, start: 987_654, parent: 7, group: 40, session: 41, dead: false };
    assert_eq!(Process::parse(42, stat), Some(expected));
    for cut in 0..stat.len() - 20 {
        let _ = Process::parse(42, &stat[..cut]);
    }
    assert_eq!(Process::parse(42, ""), None);
    assert_eq!(Process::parse(42, "42 (x) S 1 2"), None);
}

#[test]
fn this_process_is_found_as_it_is() {
    let me = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(Process::all().unwrap().iter().any(|p| p.pid == me.pid && p.start == me.start));
    assert!(!me.dead);
}

#[test]
fn a_tree_is_session_group_descendants_and_marked() {
    let all = [
        process(9, 8, 8, 8),     // listed before its parent
        process(5, 1, 5, 5),     // the leader
        process(6, 1, 6, 5),     // its session
        process(7, 1, 5, 4),     // its group
        process(8, 6, 8, 8),     // a child that left the session
        process(11, 1, 11, 11),  // marked
        process(12, 11, 12, 12), // a child of the marked
        process(20, 1, 20, 20),  // a stranger
    ];
    check(Some((5, 100)), &all, &[11], &[9, 5, 6, 7, 8, 11, 12]);
}

#[test]
fn a_leader_whose_id_was_used_again_leads_nothing() {
    let all = [process(5, 1, 5, 5), process(6, 5, 5, 5), process(11, 1, 5, 5)];
    check(Some((5, 99)), &all, &[11], &[11]);
    check(Some((4, 100)), &[process(6, 1, 4, 4)], &[], &[]);
    check(None, &all, &[], &[]);
}

#[test]
fn the_daemon_is_never_part_of_a_tree() {
    let me = i32::try_from(std::process::id()).unwrap();
    check(Some((5, 100)), &[process(5, 1, 5, 5), process(me, 5, 5, 5)], &[me], &[5]);
}
